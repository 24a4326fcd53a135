"""Measure the kernel of a layer that computes its output in a way of its own.

The layer is run on chosen images. The weights that it multiplies with follow from what it returns.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil, prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from kernelviz_callback.model.convolutions import Geometry, geometry_of, weight_shape
from kernelviz_callback.model.held_state import NotRestorable
from kernelviz_callback.model.isolation import CollectiveOperation, isolated_run

_MOST_VALUES = 2**22  # numbers in the images, or in the outputs, of one call of the layer
_MOST_PRODUCTS = 2**33  # multiplications in all calls; about a second on two cores
# Largest error, relative to the largest output, of an output that the kernel predicts.
_TOLERANCE = {torch.float16: 0.02, torch.bfloat16: 0.05}
_FLOAT_TOLERANCE = 1e-3
_CONVOLVE: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class NotAConvolution(Exception):
    """Raised if no kernel predicts the outputs of a layer. The message is the reason."""


def measure_kernel(layer: nn.Module, *, with_hooks: bool = False) -> Tensor:
    """Return the weights that a layer multiplies its input with, whatever code computes them.

    The layer reads a random image. If its code calls one convolution, the weights of that call are
    the result. Otherwise the layer reads images with a single 1 each, and its outputs, minus its
    output for an image of zeros, are the weights. In both cases the weights must then predict what
    the layer returns for random images.

    The layer is run in evaluation mode, and every side effect is undone, see `isolated_run`.

    Args:
        layer: A convolution or an adapter, whose parameters are on this process as a whole.
        with_hooks: Whether to call the hooks of the layer.

    Returns:
        Weights of the shape `weight_shape`, on the device of the layer and of its type.

    Raises:
        NotAConvolution: If no kernel predicts the outputs of the layer, or if the measurement
            takes too long.

    Example:
        >>> conv = nn.Conv2d(3, 8, 5)
        >>> torch.equal(measure_kernel(conv), conv.weight)
        True
    """
    like = next((t for t in _tensors_of(layer) if t.is_floating_point()), None)
    if like is None:
        raise NotAConvolution("it has no parameters and no buffers")
    try:
        question = _Question.about(layer)
    except Exception as error:
        raise NotAConvolution(
            f"its settings are not those of a convolution: {type(error).__name__}: {error}"
        ) from error
    try:
        with isolated_run(layer, like.device, hooks_of=layer if with_hooks else None):
            return _measure(layer, question, like)
    except CollectiveOperation as error:
        raise NotAConvolution(f"it waits for other processes ({error})") from None
    except NotRestorable as error:
        raise NotAConvolution(str(error)) from error
    except NotAConvolution:
        raise
    except Exception as error:
        raise NotAConvolution(
            f"it failed on images of shape {tuple(question.image)}: {type(error).__name__}: {error}"
        ) from error


def _tensors_of(layer: nn.Module) -> Iterator[Tensor]:
    yield from layer.parameters()
    yield from layer.buffers()


@dataclass(frozen=True)
class _Question:
    """The sizes of the images that a layer is run on.

    Attributes:
        shape: Shape of the weights.
        geometry: Geometry of the layer.
        extent: Pixels from the first to the last weight of a kernel, in each direction.
        margin: Pixels before the first place of a 1. Nothing at the border of an image is reached
            from there, however the layer pads its input.
        image: Shape of an image, (C, H, W).
    """

    shape: tuple[int, ...]
    geometry: Geometry
    extent: list[int]
    margin: list[int]
    image: list[int]

    @classmethod
    def about(cls, layer: nn.Module) -> "_Question":
        shape, geometry = weight_shape(layer), geometry_of(layer)
        extent = [d * (k - 1) + 1 for d, k in zip(geometry.dilation, shape[2:], strict=True)]
        padding = [0] * len(extent) if isinstance(geometry.padding, str) else geometry.padding
        margin = [e + max(e, p) for e, p in zip(extent, padding, strict=True)]
        sizes = [2 * (m + s) for m, s in zip(margin, geometry.stride, strict=True)]
        return cls(shape, geometry, extent, margin, [shape[1] * geometry.groups, *sizes])

    def starts(self) -> Iterator[list[int]]:
        """Yield where the kernel may start, in pixels from the place of the first output."""
        stride, extent, padding = self.geometry.stride, self.extent, self.geometry.padding
        if not isinstance(padding, str):
            yield [-p for p in padding]
        yield [-((e - 1) // 2) for e in extent]
        sizes = zip(self.image[1:], stride, extent, strict=True)
        # As much as TensorFlow pads, half of it before the image.
        yield [-(max((ceil(n / s) - 1) * s + e - n, 0) // 2) for n, s, e in sizes]
        yield [0 for _ in extent]


def _measure(layer: nn.Module, question: _Question, like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(
        3, *question.image, generator=generator, dtype=torch.float32, device="cpu"
    ).to(like)
    with _Convolutions() as calls:
        _check_output(layer(images[:1]), question)
        return _measured(layer, question, images, calls.weights.copy())


def _measured(
    layer: nn.Module, question: _Question, images: Tensor, weights: list[Tensor]
) -> Tensor:
    """Return the one kernel that explains the outputs.

    Args:
        layer: The layer.
        question: The sizes.
        images: Shape (3, C, H, W), random.
        weights: The weights of the convolutions that the layer has called.
    """
    zero = layer(torch.zeros_like(images[:1]))
    images = images[1:] * 2 + 1  # other images, so that weights that depend on the image are found
    output = layer(images) - zero
    if len(weights) == 1 and weights[0].shape == question.shape:
        [kernel] = weights
        if any(_predicts(kernel, start, images, output, question) for start in question.starts()):
            return kernel
    products = output[0].numel() * prod(question.shape[1:]) * _image_count(question)
    if products > _MOST_PRODUCTS:
        raise NotAConvolution("its kernel is too large to be measured")
    for kernel, start in _kernels_of_impulses(layer, zero, question):
        if _predicts(kernel, start, images, output, question):
            return kernel
    raise NotAConvolution("its output is not its input, convolved with one kernel")


class _Convolutions(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the weights of every convolution that is called in this mode, and computes exactly.

    On a GPU, convolutions round their inputs to TF32, which has 10 bits, unless they are told not
    to. The setting of torch for this belongs to the training and to all threads.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.weights: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is not torch.ops.aten.convolution.default:
            return func(*args, **(kwargs or {}))
        self.weights.append(args[1].detach().clone())
        cudnn = {
            "benchmark": False,
            "deterministic": True,
            "cudnn_enabled": torch.backends.cudnn.enabled,
            "allow_tf32": False,
        }
        return torch.ops.aten._convolution.default(*args, **(kwargs or {}), **cudnn)


def _check_output(output: Any, question: _Question) -> None:
    filters, rank = question.shape[0], len(question.shape)
    if not isinstance(output, Tensor) or output.ndim != rank or output.shape[1] != filters:
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise NotAConvolution(f"it returns {found} instead of {filters} maps for each image")


def _image_count(question: _Question) -> int:
    return question.shape[1] * prod(question.geometry.stride)


def _kernels_of_impulses(
    layer: nn.Module, zero: Tensor, question: _Question
) -> Iterator[tuple[Tensor, list[int]]]:
    """Yield kernels, and where they start, that explain the responses to single pixels.

    A kernel moves by the stride from one output to the next. So there is an image for each place
    within a stride, and for each channel. The channels of different groups share an image.
    """
    stride, margin = question.geometry.stride, question.margin
    channels = question.shape[1]
    places = list(product(range(channels), *map(range, stride)))
    size = max(prod(question.image), zero.numel())
    responses = []
    step = max(1, _MOST_VALUES // size)
    for begin in range(0, len(places), step):
        chunk = places[begin : begin + step]
        images = zero.new_zeros(len(chunk), *question.image)
        for image, (channel, *place) in zip(images, chunk, strict=True):
            pixel = [m + p for m, p in zip(margin, place, strict=True)]
            image[tuple([slice(channel, None, channels), *pixel])] = 1
        responses.append(layer(images) - zero)
    response = torch.cat(responses).reshape(channels, *stride, *zero.shape[1:])
    energy = response.double().square().sum()
    for start in question.starts():
        kernel = _gather(response, start, question)
        if kernel.double().square().sum() >= (1 - _FLOAT_TOLERANCE) * energy:
            yield kernel, start


def _gather(response: Tensor, start: list[int], question: _Question) -> Tensor:
    """Collect the weights of a kernel from responses of shape (C, *stride, N, *output)."""
    geometry, dims = question.geometry, len(start)
    places, outputs = [], []
    for first, taps, stride, dilation, margin in zip(
        start, question.shape[2:], geometry.stride, geometry.dilation, question.margin, strict=True
    ):
        offsets = [first + tap * dilation for tap in range(taps)]
        within = [(offset - margin) % stride for offset in offsets]
        behind = [(margin + w - o) // stride for w, o in zip(within, offsets, strict=True)]
        places.append(torch.tensor(within, dtype=torch.long, device="cpu"))
        outputs.append(torch.tensor(behind, dtype=torch.long, device="cpu"))
    grids = torch.meshgrid(*places, indexing="ij"), torch.meshgrid(*outputs, indexing="ij")
    index: Any = (slice(None), *grids[0], slice(None), *grids[1])
    gathered = response[index]  # (*k, C, N): the indexed dimensions come first
    return gathered.permute(dims + 1, dims, *range(dims)).contiguous()


def _predicts(
    kernel: Tensor, start: list[int], images: Tensor, output: Tensor, question: _Question
) -> bool:
    """Whether a kernel gives the outputs of random images, except at the borders of the images."""
    geometry, inner, kept = question.geometry, images, output
    for dim, (first, stride) in enumerate(zip(start, geometry.stride, strict=True), start=2):
        skipped = max(0, ceil(-first / stride))  # outputs that also read what is before the image
        inner = inner.narrow(
            dim, skipped * stride + first, inner.shape[dim] - skipped * stride - first
        )
        kept = kept.narrow(dim, skipped, max(0, kept.shape[dim] - skipped))
    expected = _CONVOLVE[len(start)](
        inner, kernel, None, geometry.stride, 0, geometry.dilation, geometry.groups
    )
    for dim in range(2, kept.ndim):
        count = min(kept.shape[dim], expected.shape[dim])
        kept, expected = kept.narrow(dim, 0, count), expected.narrow(dim, 0, count)
    known = kept.isfinite()
    if kept.numel() == 0 or not torch.equal(known, expected.isfinite()):
        return False
    if not known.any():
        return True
    error, largest = (kept - expected)[known].abs().amax(), kept[known].abs().amax()
    return bool(error <= _TOLERANCE.get(kernel.dtype, _FLOAT_TOLERANCE) * largest)

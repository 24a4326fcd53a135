"""Convolve a probe with filters, without bias and nonlinearity, optionally shrunk.

The full-size responses of many filters are too large for a picture and are averaged over r x r
pixels. Averaging and convolution are both linear, so they may change places. The averaged response
is the convolution, at stride r, of the kernel with the probe averaged over r x r pixels at every
place: the same numbers with less work.
"""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# Memory limit of a chunk of filters: its kernels, its responses and its picture. It also limits the
# channels of a probe that are convolved at once, because torch copies them: six copies of 98 MiB
# were seen.
CHUNK_BYTES = 8 * 2**20
_LARGEST_WHOLE_PROBE = 16 * 2**20  # bytes; a larger probe is averaged part by part
_CHUNK_BYTES_ON_CUDA = 32 * 2**20  # fewer and larger kernels, so that fewer calls launch them
# Convolutions are several times faster if the number of channels is a multiple of this.
_FAST_MULTIPLE = 16
# Up to this many channels are convolved one by one on the CPU. There, a grouped convolution of 3
# channels takes three times as long as three convolutions. On CUDA, fewer calls take less time.
_MOST_ALONE = 4


def channel_responses(
    probe: Tensor,
    weights: Tensor,
    *,
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    shrink: int = 1,
) -> Tensor:
    """Convolve each channel of the probe with the kernel for this channel.

    Plane c of filter o is ``probe[c] * weights[o, c]`` (cross-correlation, as in ``torch.nn``), at
    stride 1 and without padding. It is positive where the probe resembles the kernel, negative
    where it resembles the negative of the kernel, and zero where it is orthogonal to the kernel. In
    a grouped convolution a filter is applied to the channels of its group.

    Args:
        probe: Shape (C * groups, H, W), floating point, not modified.
        weights: Filters, shape (N, C, kH, kW), on the device of ``probe``, not modified.
        dilation: Spacing of the kernel's weights in pixels, (vertical, horizontal).
        groups: Number of groups of the convolution. It divides N.
        shrink: Average the responses over ``shrink`` x ``shrink`` pixels. Remaining pixels at the
            right and bottom edge are left out.

    Returns:
        Shape (N, C, H', W'), float32, signed, where H' = (H - dilation * (kH - 1)) // shrink. The
        precision settings of a training (autocast, TF32, bfloat16) have no effect on the result.

    Raises:
        ValueError: If the numbers of channels of ``probe`` and ``weights`` do not match, or the
            kernel is larger than the probe.

    Example:
        >>> probe = torch.tensor([[[1.0, 2.0, 4.0]]])
        >>> channel_responses(probe, torch.tensor([[[[-1.0, 1.0]]]]))
        tensor([[[[1., 2.]]]])
    """
    convolution = _Convolution(probe, weights.shape, dilation, groups, shrink)
    return convolution.by_channel(weights)


def summed_responses(
    probe: Tensor,
    weights: Tensor,
    *,
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    shrink: int = 1,
) -> Tensor:
    """Convolve the whole probe with each filter: the layer's linear response, without its bias.

    This is the sum of `channel_responses` over the channels, at stride 1 and without padding.

    Args:
        probe: The same as in `channel_responses`.
        weights: The same as in `channel_responses`.
        dilation: The same as in `channel_responses`.
        groups: The same as in `channel_responses`.
        shrink: The same as in `channel_responses`.

    Returns:
        Shape (N, 1, H', W'), float32, signed, with H' and W' as in `channel_responses`.

    Raises:
        ValueError: In the same cases as `channel_responses`.

    Example:
        >>> probe = torch.tensor([[[1.0, 2.0]], [[10.0, 20.0]]])
        >>> summed_responses(probe, torch.tensor([[[[1.0]], [[0.5]]]]))
        tensor([[[[ 6., 12.]]]])
    """
    return _Convolution(probe, weights.shape, dilation, groups, shrink).summed(weights)


@dataclass(frozen=True)
class ResponseChunks:
    """The responses of a layer, computed for a few filters at a time to limit the memory.

    Iteration yields the `channel_responses`, or the `summed_responses` if ``summed``, of as many
    consecutive filters as ``CHUNK_BYTES`` allows. It can be repeated.

    Attributes:
        probe: The argument of `channel_responses`.
        weights: The argument of `channel_responses`.
        dilation: The argument of `channel_responses`.
        groups: The argument of `channel_responses`.
        shrink: The argument of `channel_responses`.
        summed: Whether to sum the responses of a filter over its channels.

    Example:
        >>> chunks = ResponseChunks(torch.rand(3, 9, 9), torch.rand(4, 3, 2, 2))
        >>> chunks.shape, torch.cat(list(chunks)).shape
        ((4, 3, 8, 8), torch.Size([4, 3, 8, 8]))
    """

    probe: Tensor
    weights: Tensor
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    shrink: int = 1
    summed: bool = False

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of all chunks together: (N, 1 or C, H', W')."""
        filters, channels, height, width = self.weights.shape
        full = response_size(
            (self.probe.shape[1], self.probe.shape[2]), (height, width), self.dilation
        )
        planes = 1 if self.summed else channels
        return filters, planes, full[0] // self.shrink, full[1] // self.shrink

    def __iter__(self) -> Iterator[Tensor]:
        """Yield one chunk of responses at a time, shape (n, 1 or C, H', W')."""
        whole = _Convolution(
            self.probe, self.weights.shape, self.dilation, self.groups, self.shrink
        )
        per_group = len(self.weights) // self.groups
        at_once = self._filters_at_once()
        groups_at_once = max(1, at_once // per_group)
        for first in range(0, self.groups, groups_at_once):
            last = min(first + groups_at_once, self.groups)
            part = whole.of_groups(first, last)
            convolve = part.summed if self.summed else part.by_channel
            own = self.weights[first * per_group : last * per_group]
            for weights in torch.split(own, at_once if part.groups == 1 else len(own)):
                yield convolve(weights)

    def _filters_at_once(self) -> int:
        """Return how many filters fit into a chunk.

        A filter needs memory for three copies of its responses and two copies of its kernels,
        because torch reorders the kernels. It also reorders the channels of each group.
        """
        _, planes, height, width = self.shape
        numbers = 2 * self.weights[0].numel() + 3 * planes * height * width
        if self.groups > 1:
            numbers += self.probe.numel() // len(self.weights)
        bytes_each = numbers * (8 if self.weights.is_cuda else 4)
        room = _CHUNK_BYTES_ON_CUDA if self.weights.is_cuda else CHUNK_BYTES
        fitting = max(1, room // bytes_each)
        return fitting - fitting % _FAST_MULTIPLE if fitting > _FAST_MULTIPLE else fitting


def kernel_reach(kernel_size: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width that a kernel covers, its dilation included, in pixels.

    Example:
        >>> kernel_reach((3, 5), (1, 2))
        (3, 9)
    """
    return dilation[0] * (kernel_size[0] - 1) + 1, dilation[1] * (kernel_size[1] - 1) + 1


def response_size(
    probe_size: tuple[int, int], kernel_size: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int]:
    """Return the height and width of a response at stride 1 without padding, in pixels.

    Args:
        probe_size: Height and width of the probe, in pixels.
        kernel_size: (kH, kW).
        dilation: Spacing of the kernel's weights in pixels, (vertical, horizontal).

    Raises:
        ValueError: If the kernel, its dilation included, is larger than the probe.

    Example:
        >>> response_size((224, 224), (7, 7), (1, 1))
        (218, 218)
    """
    reach = kernel_reach(kernel_size, dilation)
    if reach[0] > probe_size[0] or reach[1] > probe_size[1]:
        raise ValueError(
            f"the kernel covers {reach[0]}x{reach[1]} pixels (dilation included) and the probe has "
            f"only {probe_size[0]}x{probe_size[1]}; use a larger or less elongated image"
        )
    return probe_size[0] - reach[0] + 1, probe_size[1] - reach[1] + 1


class _Convolution:
    """The convolution of one probe with the filters of a layer, a few of them at a time.

    The probe is averaged over ``shrink`` x ``shrink`` pixels at every place: a small one once, a
    large one part by part, to limit the memory. On CUDA the numbers are float64, because a float32
    convolution may run in TF32, and the setting that prevents TF32 belongs to the training.

    Args:
        probe: The argument of `channel_responses`.
        shape: Shape of the layer's weights.
        dilation: The argument of `channel_responses`.
        groups: The argument of `channel_responses`.
        shrink: The argument of `channel_responses`.

    Raises:
        ValueError: In the cases of `channel_responses`.
    """

    def __init__(
        self,
        probe: Tensor,
        shape: Sequence[int],
        dilation: tuple[int, int],
        groups: int,
        shrink: int,
    ) -> None:
        filters, channels, *kernel = shape
        if filters % groups or probe.shape[0] != channels * groups:
            raise ValueError(
                f"weights {tuple(shape)} in {groups} group(s) filter {channels * groups} input "
                f"channels; the probe has {probe.shape[0]}"
            )
        response_size((probe.shape[1], probe.shape[2]), (kernel[0], kernel[1]), dilation)
        self.groups = groups
        self._exact = torch.float64 if probe.is_cuda else torch.float32
        self._dilation = dilation
        self._stride = shrink
        is_small = probe.numel() * self._exact.itemsize <= _LARGEST_WHOLE_PROBE
        with torch.no_grad():
            if not is_small:
                self._image = probe
            elif probe.is_cuda:
                self._image = _averaged(probe.to(self._exact), shrink)
            else:
                # Plane by plane: the sums on the way need several times the memory of their result.
                planes = [_averaged(plane.to(self._exact), shrink) for plane in probe]
                self._image = torch.stack(planes)
        self._box = 1 if is_small else shrink  # what is still to be averaged

    def of_groups(self, first: int, last: int) -> "_Convolution":
        """Return the convolution of the filters in the groups from ``first`` to before ``last``."""
        part = copy(self)
        channels = len(self._image) // self.groups
        part._image, part.groups = self._image[first * channels : last * channels], last - first
        return part

    def by_channel(self, weights: Tensor) -> Tensor:
        """Return the `channel_responses` of filters, shape (N, C, kH, kW)."""
        filters, channels, *kernel = weights.shape
        if self.groups == 1 and channels <= _MOST_ALONE and not weights.is_cuda:
            planes = [
                self._convolve(plane[None], weights[:, c, None], 1)
                for c, plane in enumerate(self._image)
            ]
            return torch.stack(planes, dim=1)
        kernels = weights.reshape(self.groups, -1, channels, *kernel).transpose(1, 2)
        found = self._convolve(self._image, kernels.reshape(-1, 1, *kernel), len(self._image))
        by_filter = found.reshape(self.groups, channels, -1, *found.shape[1:]).transpose(1, 2)
        return by_filter.reshape(filters, channels, *found.shape[1:])

    def summed(self, weights: Tensor) -> Tensor:
        """Return the `summed_responses` of filters, shape (N, C, kH, kW)."""
        if self.groups > 1:
            return self._convolve(self._image, weights, self.groups)[:, None]
        channel_bytes = self._image[0].numel() * self._exact.itemsize
        fitting = max(1, CHUNK_BYTES // channel_bytes // _FAST_MULTIPLE) * _FAST_MULTIPLE
        total = torch.zeros((), device=self._image.device, dtype=torch.float32)
        for image, part in zip(
            torch.split(self._image, fitting), torch.split(weights, fitting, dim=1), strict=True
        ):
            total = total + self._convolve(image, part, 1)
        return total[:, None]

    def _convolve(self, image: Tensor, kernels: Tensor, groups: int) -> Tensor:
        with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
            planes = F.conv2d(
                _averaged(image.to(self._exact), self._box)[None],
                kernels.to(self._exact),
                stride=self._stride,
                dilation=self._dilation,
                groups=groups,
            )
            return planes[0].float()


def _averaged(image: Tensor, box: int) -> Tensor:
    """Return the mean of the ``box`` x ``box`` pixels at the right of and below every pixel."""
    if box == 1:
        return image
    for axis in (-2, -1):
        image = _window_sums(image, axis, box)
    return image.div_(box**2)


def _window_sums(image: Tensor, axis: int, box: int) -> Tensor:
    """Return the sums of ``box`` > 1 neighbours along an axis.

    They are put together from the sums of 1, 2, 4, ... neighbours.
    """
    size = image.shape[axis] - box + 1
    parts, start, sums, span = [], 0, image, 1
    while True:
        if box & span:
            parts.append(sums.narrow(axis, start, size))
            start += span
        if 2 * span > box:
            return sum(parts[1:], start=parts[0])
        shorter = sums.shape[axis] - span
        sums = sums.narrow(axis, 0, shorter) + sums.narrow(axis, span, shorter)
        span *= 2

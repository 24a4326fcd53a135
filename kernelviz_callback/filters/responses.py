"""Convolve a probe with filters, without bias and nonlinearity, optionally shrunk.

The full-size responses of many filters are too large for a picture and are averaged over r x r
pixels. Averaging and convolution are both linear. So the averaged response is the convolution of
the probe, at stride r, with the kernel smeared by an r x r box: the same numbers with less work.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# Memory limit of a chunk of filters: its kernels, its responses and its picture. It also limits the
# channels of a probe that are convolved at once, because torch copies them: six copies of 98 MiB
# were seen.
CHUNK_BYTES = 16 * 2**20
# Convolutions are several times faster if the number of channels is a multiple of this.
_FAST_MULTIPLE = 16


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
    smeared, exact = _smeared(probe, weights, dilation, groups, shrink)
    filters, channels, *kernel = smeared.shape
    by_channel = smeared.reshape(groups, -1, channels, *kernel).transpose(1, 2)
    planes = _convolve(exact, by_channel.reshape(-1, 1, *kernel), channels * groups, shrink)
    by_filter = planes.reshape(groups, channels, -1, *planes.shape[1:]).transpose(1, 2)
    return by_filter.reshape(filters, channels, *planes.shape[1:])


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
    smeared, exact = _smeared(probe, weights, dilation, groups, shrink)
    if groups > 1:
        return _convolve(exact, smeared, groups, shrink)[:, None]
    channel_bytes = exact[0].numel() * exact.element_size()
    at_once = max(_FAST_MULTIPLE, CHUNK_BYTES // channel_bytes // _FAST_MULTIPLE * _FAST_MULTIPLE)
    total = torch.zeros((), device=probe.device)
    for own, kernels in zip(
        torch.split(exact, at_once), torch.split(smeared, at_once, dim=1), strict=True
    ):
        total = total + _convolve(own, kernels, groups, shrink)
    return total[:, None]


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
        convolve = summed_responses if self.summed else channel_responses
        per_group = len(self.weights) // self.groups
        at_once = self._filters_at_once()
        groups_at_once = max(1, at_once // per_group)
        channels = self.weights.shape[1]
        for first in range(0, self.groups, groups_at_once):
            last = min(first + groups_at_once, self.groups)
            own_probe = self.probe[first * channels : last * channels]
            own_weights = self.weights[first * per_group : last * per_group]
            groups = last - first
            for part in torch.split(own_weights, at_once if groups == 1 else len(own_weights)):
                yield convolve(
                    own_probe, part, dilation=self.dilation, groups=groups, shrink=self.shrink
                )

    def _filters_at_once(self) -> int:
        """Return how many filters fit into a chunk.

        A filter needs memory for three copies of its responses and two copies of its smeared
        kernels, because torch reorders the kernels. It also reorders the channels of each group.
        """
        _, channels, *kernel = self.weights.shape
        _, planes, height, width = self.shape
        reach = [d * (k - 1) + self.shrink for d, k in zip(self.dilation, kernel, strict=True)]
        numbers = 2 * channels * reach[0] * reach[1] + 3 * planes * height * width
        if self.groups > 1:
            numbers += self.probe.numel() // len(self.weights)
        bytes_each = numbers * (8 if self.weights.is_cuda else 4)
        fitting = max(1, CHUNK_BYTES // bytes_each)
        return fitting - fitting % _FAST_MULTIPLE if fitting > _FAST_MULTIPLE else fitting


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
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel_size, strict=True))
    if reach[0] > probe_size[0] or reach[1] > probe_size[1]:
        raise ValueError(
            f"the kernel covers {reach[0]}x{reach[1]} pixels (dilation included) and the probe has "
            f"only {probe_size[0]}x{probe_size[1]}; use a larger one (probe_size=... for the chart)"
        )
    return probe_size[0] - reach[0] + 1, probe_size[1] - reach[1] + 1


def _smeared(
    probe: Tensor, weights: Tensor, dilation: tuple[int, int], groups: int, shrink: int
) -> tuple[Tensor, Tensor]:
    """Return the kernels, dilated and smeared by the box of ``shrink``, and the probe.

    Both have the same type. On CUDA it is float64, because a float32 convolution may run in TF32,
    and the setting that prevents TF32 belongs to the training.
    """
    filters, channels, *kernel = weights.shape
    if filters % groups or probe.shape[0] != channels * groups:
        raise ValueError(
            f"weights {tuple(weights.shape)} in {groups} group(s) filter {channels * groups} input "
            f"channels; the probe has {probe.shape[0]}"
        )
    response_size((probe.shape[1], probe.shape[2]), (kernel[0], kernel[1]), dilation)
    exact = torch.float64 if probe.is_cuda else torch.float32
    with torch.no_grad():
        smeared = weights.to(exact)
        for axis, step in zip((-2, -1), dilation, strict=True):
            smeared = _smeared_along(axis, smeared, step, shrink)
    return smeared, probe.to(exact)


def _smeared_along(axis: int, kernels: Tensor, step: int, box: int) -> Tensor:
    """Return the mean of ``box`` copies of the kernels, each shifted by one more pixel.

    In a copy the weights are ``step`` pixels apart. A transposed convolution gives the same result,
    but it reorders its weights in sixteen times their memory.
    """
    shape = list(kernels.shape)
    reach = step * (shape[axis] - 1) + 1
    shape[axis] = reach + box - 1
    total = kernels.new_zeros(shape)
    along = total.transpose(axis, 0)
    for first in range(box):
        along[first : first + reach : step] += kernels.transpose(axis, 0)
    return total.div_(box)


def _convolve(probe: Tensor, kernels: Tensor, groups: int, shrink: int) -> Tensor:
    with torch.no_grad(), torch.autocast(probe.device.type, enabled=False):
        return F.conv2d(probe[None], kernels, stride=shrink, groups=groups)[0].float()

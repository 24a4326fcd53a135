"""The response of filters to a probe: one batched convolution, before any bias or nonlinearity.

Full-size responses of 64 filters would be shrunk again to fit a picture. Shrinking (the average of
r x r pixels) and convolving are both linear, so the shrunk response is the convolution of the
probe, at stride r, with the kernel smeared by an r x r box: the same numbers for a fraction of the
work.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# What the filters of a chunk may hold: kernels, responses and the picture that they become. And the
# channels of a probe that are convolved at once: of 98 MiB torch was seen to keep six copies.
CHUNK_BYTES = 16 * 2**20
# Convolutions of a multiple of this many channels are several times faster than others.
_EVEN = 16


def channel_responses(
    probe: Tensor,
    weights: Tensor,
    *,
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    shrink: int = 1,
) -> Tensor:
    """What each kernel makes of its own channel of the probe: the per-channel convolution.

    Plane c of picture o is ``probe[c] * weights[o, c]`` (cross-correlation, as in ``torch.nn``), at
    stride 1 and without padding: bright where the probe looks like the kernel, dark where it looks
    like its negative, zero where it is orthogonal to it. In a grouped convolution filter o sees the
    channels of its own group.

    Args:
        probe: Shape (C * groups, H, W), floating point, not modified.
        weights: Filters, shape (N, C, kH, kW), on the device of ``probe``, not modified.
        dilation: Spacing of the kernel's taps in pixels, (vertical, horizontal).
        groups: Number of groups of the convolution. Divides N.
        shrink: Average the responses over ``shrink`` x ``shrink`` pixels; a remainder at the right
            and bottom edge is left out.

    Returns:
        Shape (N, C, H', W'), float32, signed, where H' = (H - dilation * (kH - 1)) // shrink. No
        precision setting of the training (autocast, TF32, bfloat16) reaches them.

    Raises:
        ValueError: If the channels of probe and weights do not fit each other, or the kernel is
            larger than the probe.

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
    """What each filter makes of the whole probe: the layer's linear response, without its bias.

    The sum of `channel_responses` over the channels, at stride 1 and without padding. Arguments and
    errors are the same.

    Returns:
        Shape (N, 1, H', W'), float32, signed.

    Example:
        >>> probe = torch.tensor([[[1.0, 2.0]], [[10.0, 20.0]]])
        >>> summed_responses(probe, torch.tensor([[[[1.0]], [[0.5]]]]))
        tensor([[[[ 6., 12.]]]])
    """
    smeared, exact = _smeared(probe, weights, dilation, groups, shrink)
    if groups > 1:
        return _convolve(exact, smeared, groups, shrink)[:, None]
    channel_bytes = exact[0].numel() * exact.element_size()
    at_once = max(_EVEN, CHUNK_BYTES // channel_bytes // _EVEN * _EVEN)
    total = torch.zeros((), device=probe.device)
    for own, kernels in zip(
        torch.split(exact, at_once), torch.split(smeared, at_once, dim=1), strict=True
    ):
        total = total + _convolve(own, kernels, groups, shrink)
    return total[:, None]


@dataclass(frozen=True)
class ResponseChunks:
    """The responses of a layer, some filters at a time: memory stays bounded whatever the layer.

    Iterating computes `channel_responses`, or `summed_responses` if ``summed``, of as many
    neighbouring filters as ``CHUNK_BYTES`` has room for, and may be done again. The other fields
    are the arguments of these functions.

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
        """Of all chunks together: (N, 1 or C, H', W')."""
        filters, channels, height, width = self.weights.shape
        full = response_size(
            (self.probe.shape[1], self.probe.shape[2]), (height, width), self.dilation
        )
        planes = 1 if self.summed else channels
        return filters, planes, full[0] // self.shrink, full[1] // self.shrink

    def __iter__(self) -> Iterator[Tensor]:
        """Compute (n, 1 or C, H', W') responses, chunk by chunk."""
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
        """As many as fit: responses thrice; smeared kernels twice, for torch reorders them.

        So it does with the probe, of which every group has a part of its own.
        """
        _, channels, *kernel = self.weights.shape
        _, planes, height, width = self.shape
        reach = [d * (k - 1) + self.shrink for d, k in zip(self.dilation, kernel, strict=True)]
        numbers = 2 * channels * reach[0] * reach[1] + 3 * planes * height * width
        if self.groups > 1:
            numbers += self.probe.numel() // len(self.weights)
        bytes_each = numbers * (8 if self.weights.is_cuda else 4)
        fitting = max(1, CHUNK_BYTES // bytes_each)
        return fitting - fitting % _EVEN if fitting > _EVEN else fitting


def response_size(
    probe_size: tuple[int, int], kernel_size: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int]:
    """Height and width of a response at stride 1 without padding, in pixels.

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
    """The kernels, dilated and smeared by the box of ``shrink``, and the probe, both exact enough.

    On CUDA both are float64: a float32 convolution may run in TF32 there, and the setting that
    forbids it is the training's own.
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
    """The mean of ``box`` copies, each with its taps ``step`` apart and one pixel further on.

    A transposed convolution does the same, and lays out its weights anew: sixteen times as many.
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

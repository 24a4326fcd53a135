"""Convolve a probe with filters, without bias and nonlinearity, optionally shrunk.

The full-size responses of many filters are too large for a picture and are averaged over r x r
pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kernelviz_callback.filters.probe_convolution import (
    CHUNK_BYTES,
    FAST_MULTIPLE,
    ProbeConvolution,
    response_size,
)

_CHUNK_BYTES_ON_CUDA = 32 * 2**20  # fewer and larger kernels, so that fewer calls launch them


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
    convolution = ProbeConvolution(probe, weights.shape, dilation, groups, shrink)
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
    return ProbeConvolution(probe, weights.shape, dilation, groups, shrink).summed(weights)


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
        convolution: The convolution of this probe with filters of this shape, with the same
            dilation, groups and shrink; None to make it.

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
    convolution: ProbeConvolution | None = None

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
        whole = self.convolution or ProbeConvolution(
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
        return fitting - fitting % FAST_MULTIPLE if fitting > FAST_MULTIPLE else fitting

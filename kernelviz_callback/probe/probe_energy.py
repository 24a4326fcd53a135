"""Measure how strongly filters respond to a probe, without a convolution.

The mean square of a response is w' A w. Here w is the weights of the filter, and A is the mean of
p p' over all patches p of the probe that have the size of the kernel. A does not depend on the
weights, so it is computed once for a layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor
from torch.nn import functional as F

from kernelviz_callback.filters.float64 import float64_blocks
from kernelviz_callback.filters.planes import why_no_image
from kernelviz_callback.filters.responses import response_size
from kernelviz_callback.probe.probe import Probe

_MOST_WEIGHTS = 2048  # in a filter; with more weights, A would be larger than most layers
_BAND_NUMBERS = 2**19  # numbers of the patches that are in memory at once
_MOST_WORK = 2e10  # multiplications; to stay below, only every n-th patch per axis is used


@dataclass(frozen=True)
class ProbeEnergy:
    """The second moments of the patches of a probe, for one layer; see `measure_probe`.

    Attributes:
        moments: The mean of p p' over the patches p, shape (G, D, D), float32. G is the number of
            groups, or 1 if all groups read the same channels. D is C kH kW, or kH kW if all
            channels are equal.
        channels: C, the number of input channels of a filter.
    """

    moments: Tensor
    channels: int

    def response_rms(self, weights: Tensor) -> Tensor:
        """Compute the root mean square of each filter's response to the probe.

        Args:
            weights: Shape (N, C, kH, kW), float32, on the CPU, not modified.

        Returns:
            Shape (N,), in units of the weights times units of the probe. The response is that of
            `summed_responses`. Its mean is not subtracted.
        """
        groups, size, _ = self.moments.shape
        # If all channels of the probe are equal, the response depends on the sum of the kernels.
        is_same = size < weights[0].numel()
        rows, norms = [], []
        for block in float64_blocks(weights):
            kernels = block.flatten(2).sum(1) if is_same else block.flatten(1)
            norm = torch.linalg.vector_norm(kernels, dim=1, keepdim=True)
            rows.append((kernels / norm.where(norm > 0, 1)).float())
            norms.append(norm[:, 0])
        unit = torch.cat(rows).reshape(groups, -1, size)
        energy = ((unit @ self.moments) * unit).sum(2).flatten()
        return (energy.clamp(min=0).sqrt() * torch.cat(norms)).float()


def energy_for_layer(
    probe: Probe, shape: Sequence[int], *, dilation: tuple[int, int] = (1, 1), groups: int = 1
) -> ProbeEnergy | str:
    """Measure a probe for the filters of a layer, or return the reason why this is impossible.

    Args:
        probe: The probe, before it is adapted to the channels of the layer.
        shape: Shape of the layer's weights. Only 2-D layers have a response to an image.
        dilation: Dilation of the convolution, (vertical, horizontal).
        groups: Number of groups of the convolution.

    Returns:
        The energy of the probe, or the reason in words.
    """
    reason = why_no_image(shape)
    if reason is not None:
        return reason
    _, channels, height, width = shape
    try:
        image = probe.covering((height, width), dilation).for_channels(channels * groups)
        return measure_probe(
            image, (height, width), channels=channels, dilation=dilation, groups=groups
        )
    except ValueError as error:
        return str(error)


def measure_probe(
    probe: Tensor,
    kernel: tuple[int, int],
    *,
    channels: int,
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> ProbeEnergy:
    """Compute the second moments of a probe's patches, for the filters of a layer.

    Args:
        probe: Shape (C * groups, H, W), float32, on the CPU, not modified.
        kernel: (kH, kW).
        channels: C, the number of input channels of a filter.
        dilation: Dilation of the convolution, (vertical, horizontal).
        groups: Number of groups of the convolution.

    Returns:
        The moments, from which `ProbeEnergy.response_rms` is computed for any weights.

    Raises:
        ValueError: If the kernel is larger than the probe, or if the filters have more than 2,048
            weights and the channels of the probe are not all equal.
    """
    height, width = response_size((probe.shape[1], probe.shape[2]), kernel, dilation)
    seen = probe.reshape(groups, channels, *probe.shape[1:])
    if bool((seen == seen[:1]).all()):
        seen = seen[:1]
    if bool((seen == seen[:, :1]).all()):
        seen = seen[:, :1]
    size = seen.shape[1] * kernel[0] * kernel[1]
    if size > _MOST_WEIGHTS:
        raise ValueError(
            f"responses are not measured for filters of more than {_MOST_WEIGHTS} weights; found "
            f"{size}"
        )
    every = ceil((len(seen) * size**2 * height * width / _MOST_WORK) ** 0.5) or 1
    moments = probe.new_empty(len(seen), size, size)
    for one, image in zip(moments, seen, strict=True):
        one.copy_(_moments(image, kernel, dilation, every))
    return ProbeEnergy(moments, channels)


def _moments(
    image: Tensor, kernel: tuple[int, int], dilation: tuple[int, int], every: int
) -> Tensor:
    """Return the mean of p p' over the patches p of an image, for a band of rows at a time."""
    size = len(image) * kernel[0] * kernel[1]
    reach = dilation[0] * (kernel[0] - 1) + 1
    rows = max(1, _BAND_NUMBERS // (size * image.shape[2])) * every
    total, count = image.new_zeros(size, size), 0
    for top in range(0, image.shape[1] - reach + 1, rows):
        band = image[None, :, top : top + rows + reach - 1]
        patches = F.unfold(band, kernel, dilation=dilation, stride=every)[0]
        total += patches @ patches.T
        count += patches.shape[1]
    return total / count

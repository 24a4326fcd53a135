"""How strongly filters respond to a probe, without convolving: from the moments of its patches.

The mean square of a response is w' A w, with w the weights of the filter and A the mean of p p'
over all patches p of the probe that it is laid on. A depends on the probe alone, so it is computed
once.
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

_MOST_WEIGHTS = 2048  # of a filter: the covariance would have more numbers than most layers
_BAND_NUMBERS = 2**19  # in the patches that are in memory at once
_MOST_WORK = 2e10  # multiplications: beyond it patches are taken from a lattice of places


@dataclass(frozen=True)
class ProbeEnergy:
    """The second moments of a probe under the kernels of one layer; see `measure_probe`.

    Attributes:
        moments: Shape (G, D, D), float32: of the patches that the filters of each group see, G = 1
            if all groups see the same. D is C kH kW, or kH kW if all channels are the same.
        channels: C, input channels of a filter.
    """

    moments: Tensor
    channels: int

    def response_rms(self, weights: Tensor) -> Tensor:
        """How strongly each filter responds: the root mean square of its summed response.

        Args:
            weights: Shape (N, C, kH, kW), float32, on the CPU.

        Returns:
            Shape (N,), in units of the weights (a probe lies in [0, 1]). The response is that of
            `summed_responses`, whose mean over all pixels includes the constant part.
        """
        groups, size, _ = self.moments.shape
        is_same = size < weights[0].numel()  # in all channels, so that their sum is what responds
        rows, norms = [], []
        for block in float64_blocks(weights):
            kernels = block.flatten(2).sum(1) if is_same else block.flatten(1)
            norm = torch.linalg.vector_norm(kernels, dim=1, keepdim=True)
            rows.append((kernels / norm.where(norm > 0, 1)).float())
            norms.append(norm[:, 0])
        unit = torch.cat(rows).reshape(groups, -1, size)
        energy = ((unit @ self.moments) * unit).sum(2).flatten()
        return (energy.clamp(min=0).sqrt() * torch.cat(norms)).float()


def energy_under(
    probe: Probe, shape: Sequence[int], *, dilation: tuple[int, int] = (1, 1), groups: int = 1
) -> ProbeEnergy | str:
    """Prepare a probe for the filters of a layer, or tell why it cannot be.

    Args:
        probe: Not adapted to the channels of the layer yet.
        shape: Of its weights; those of other than 2-D layers respond to no image.
        dilation: Of the convolution.
        groups: Likewise.
    """
    reason = why_no_image(shape)
    if reason is not None:
        return reason
    _, channels, height, width = shape
    try:
        image = probe.for_channels(channels * groups)
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
    """Prepare a probe for the filters of a layer.

    Args:
        probe: Shape (C * groups, H, W), float32, on the CPU.
        kernel: (kH, kW).
        channels: C, input channels of a filter.
        dilation: As of the convolution.
        groups: Likewise.

    Raises:
        ValueError: If the kernel is larger than the probe, or its filters have more than 2,048
            weights while the channels of the probe differ.
    """
    height, width = response_size((probe.shape[1], probe.shape[2]), kernel, dilation)
    seen = probe.reshape(groups, channels, *probe.shape[1:])
    if bool((seen == seen[:1]).all()):
        seen = seen[:1]
    if bool((seen == seen[:, :1]).all()):
        seen = seen[:, :1]
    size = seen.shape[1] * kernel[0] * kernel[1]
    if size > _MOST_WEIGHTS:
        raise ValueError(f"filters of more than {_MOST_WEIGHTS} weights; found {size}")
    every = ceil((len(seen) * size**2 * height * width / _MOST_WORK) ** 0.5) or 1
    moments = probe.new_empty(len(seen), size, size)
    for one, image in zip(moments, seen, strict=True):
        one.copy_(_moments(image, kernel, dilation, every))
    return ProbeEnergy(moments, channels)


def _moments(
    image: Tensor, kernel: tuple[int, int], dilation: tuple[int, int], every: int
) -> Tensor:
    """Mean of p p' over the patches of one image, a band of rows at a time."""
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

"""What leaves a layer and the norm behind it: how strong each channel is, and how often positive.

The weights of a filter do not tell this. A batch norm rescales every channel, so a filter with
small weights can be as strong as any other, and a channel whose ``gamma`` is 0 is dead without any
weight showing it. The numbers follow from the mean and the covariance of the patches alone.
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from kernelviz_callback.filters.patches import Patches, output_moments, rows_by_group

NormKind: TypeAlias = Literal["batch", "running", "instance", "group", "layer"]


@dataclass(frozen=True)
class Norm:
    """A normalisation of the channels that a layer gives out.

    Attributes:
        kind: Which numbers the norm divides by. "batch": the statistics of each channel in the
            batch. "running": fixed statistics of each channel, of a batch norm in evaluation mode.
            "instance": those of each channel in each image. "group": those of a group of channels
            in each image. "layer": those of all channels, at each position or in each image.
        gamma: Factor of each channel, shape (N,); None for 1.
        beta: Offset of each channel, shape (N,); None for 0.
        eps: Added to the variance, not negative, in squared units of the layer's output.
        groups: Number of groups of a group norm.
        mean: Running mean of each channel, shape (N,), if the kind is "running".
        variance: Running variance of each channel, shape (N,), if the kind is "running".
    """

    kind: NormKind
    gamma: Tensor | None = None
    beta: Tensor | None = None
    eps: float = 1e-5
    groups: int = 1
    mean: Tensor | None = None
    variance: Tensor | None = None

    def to(self, device: torch.device) -> "Norm":
        """Return the norm with its tensors in float64 on a device."""

        def moved(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.detach().to(device, torch.float64)

        return replace(
            self,
            gamma=moved(self.gamma),
            beta=moved(self.beta),
            mean=moved(self.mean),
            variance=moved(self.variance),
        )


class Outputs(NamedTuple):
    """What leaves each channel of a layer, over all positions of the images.

    Attributes:
        mean: Mean, shape (N,), float64.
        signal: Standard deviation, shape (N,), float64. 0 means that the next layer gets a constant
            from this channel.
        open_share: Share of the positions where the value is positive, in [0, 1], shape (N,),
            float64. It is 0 for a channel from which a ReLU lets nothing through. It is counted on
            `Patches.sample`.
    """

    mean: Tensor
    signal: Tensor
    open_share: Tensor


def channel_outputs(
    weights: Tensor, patches: Patches, *, bias: Tensor | None = None, norm: Norm | None = None
) -> Outputs:
    """Compute what leaves each channel of a layer, from the patches that the layer reads.

    With patch mean m and covariance C, a filter w gives out the mean ``w . m + b`` and the variance
    ``v = w' C w``. A batch norm in training subtracts this mean and divides by ``sqrt(v + eps)``,
    so its standard deviation is ``|gamma| sqrt(v / (v + eps))`` and its mean is ``beta``.

    Group norm, layer norm and instance norm use the statistics of single images, which differ from
    each other. Here they are taken to be those of all images together.

    Args:
        weights: Filters, shape (N, C, ...), floating point, not modified.
        patches: Patches that the layer reads.
        bias: Bias of the layer, shape (N,); None if it has none.
        norm: What normalises the layer's output; None if nothing does.

    Raises:
        ValueError: If the filters do not fit the patches.

    Example:
        >>> patches = Patches(torch.zeros(1, 1), torch.ones(1, 1, 1), torch.ones(1, 1, 1), 1)
        >>> small, large = torch.tensor([[[0.1]], [[10.0]]])
        >>> norm = Norm("batch", gamma=torch.tensor([1.0, 0.0]))
        >>> found = channel_outputs(torch.stack([small, large]), patches, norm=norm)
        >>> found.signal.round(decimals=2)
        tensor([1., 0.], dtype=torch.float64)
    """
    mean, variance = output_moments(weights, patches, bias)
    # What the filters give out for each patch of the sample, shape (n, N), without its mean.
    apart = patches.sample.double() - patches.mean[:, None]
    values = (apart @ rows_by_group(weights, patches).transpose(1, 2)).transpose(0, 1).flatten(1)
    if norm is not None:
        norm = norm.to(mean.device)
        centre, spread = _statistics(mean, variance, norm)
        gamma = torch.ones_like(mean) if norm.gamma is None else norm.gamma
        factor = gamma / (spread + norm.eps).sqrt()
        mean = (mean - centre) * factor + (0.0 if norm.beta is None else norm.beta)
        variance = variance * factor.square()
        values = values * factor
    return Outputs(mean, variance.sqrt(), (values + mean > 0).double().mean(0))


def _statistics(mean: Tensor, variance: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """Return the mean that a norm subtracts from each channel, and the variance it divides by."""
    if norm.kind == "running":
        assert norm.mean is not None
        assert norm.variance is not None
        return norm.mean, norm.variance
    if norm.kind in ("batch", "instance"):
        return mean, variance
    means = mean.reshape(norm.groups, -1)
    centre = means.mean(1, keepdim=True)
    spread = variance.reshape(norm.groups, -1) + (means - centre).square()
    spread = spread.mean(1, keepdim=True)
    return centre.expand_as(means).flatten(), spread.expand_as(means).flatten()

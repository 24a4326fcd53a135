"""Reduce a filter with many input channels to one kernel, in the same way for all checkpoints."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

import torch
from torch import Tensor

from kernelviz_callback.drawing.tile_style import tile_style
from kernelviz_callback.filters.principal import principal_planes


@dataclass(frozen=True, eq=False)
class MixedChannels:
    """The result of `mix_channels` for a layer in several checkpoints.

    Attributes:
        layers: One tensor for each checkpoint, shape (N, 1, kH, kW), or with 1-D or 3-D kernels. A
            layer that is drawn channel by channel is unchanged.
        counts: Number of input channels that are mixed, for each checkpoint; 0 if unchanged.
        is_shared: Whether all checkpoints use the same channel weights for a filter.
        explained: Share of the squared norm that the mixtures explain in the last checkpoint, the
            median over its filters.
    """

    layers: list[Tensor]
    counts: list[int]
    is_shared: bool
    explained: float

    def note(self, last: str) -> str | None:
        """Describe what a tile shows, None if channels are not mixed.

        Args:
            last: Name of the last checkpoint.
        """
        count = max(self.counts)
        if not count:
            return None
        share = "" if isnan(self.explained) else f": {self.explained:.0%} (median)"
        if self.is_shared:
            return (
                f"each tile is one mixture of {count} input channels, the same in all tiles of a "
                f"filter, that explains most of it in {last}{share}"
            )
        return (
            "each tile is the mixture of input channels that explains most of the filter in this "
            f"checkpoint, in {last}{share}"
        )


@torch.no_grad()
def mix_channels(layers: Sequence[Tensor]) -> MixedChannels:
    """Replace the kernels of each filter by one weighted sum over its input channels: a mixture.

    The channel weights of a filter are the left singular vector of its principal plane in the last
    checkpoint. So the mixture in the last checkpoint is that plane, with the same sign (see
    `principal_planes`). All other checkpoints use the same channel weights, so that the difference
    of two mixtures is the mixture of the difference. If a filter is missing, zero or not finite in
    the last checkpoint, its channel weights come from the latest checkpoint that has the filter. If
    the checkpoints have different numbers of channels, each uses its own channel weights.

    Args:
        layers: The matched weights of each checkpoint, N filters each, NaN for a filter without
            partner; not modified. Layers of up to four channels, and of kernels with one weight,
            are not mixed.
    """
    is_mixed = [tile_style(w.shape).is_principal for w in layers]
    is_shared = len({w.shape[1] for w in layers}) == 1
    many = [w for w, mixes in zip(layers, is_mixed, strict=True) if mixes]
    shared = _latest_channel_weights(many) if many and is_shared else None
    mixed = [
        _weighted_sum(w, _channel_weights(w) if shared is None else shared) if mixes else w
        for w, mixes in zip(layers, is_mixed, strict=True)
    ]
    counts = [w.shape[1] if mixes else 0 for w, mixes in zip(layers, is_mixed, strict=True)]
    explained = torch.nan
    if is_mixed[-1]:
        explained = principal_planes(layers[-1]).explained.nanmedian().item()
    return MixedChannels(mixed, counts, is_shared, explained)


def _latest_channel_weights(layers: Sequence[Tensor]) -> Tensor:
    """Compute the channel weights of each filter in the last layer that has it, shape (N, C)."""
    *before, last = layers
    channel_weights = _channel_weights(last)
    for weights in reversed(before):
        is_missing = channel_weights.eq(0).all(1, keepdim=True)
        if not is_missing.any():
            break
        channel_weights = torch.where(is_missing, _channel_weights(weights), channel_weights)
    return channel_weights


def _channel_weights(weights: Tensor) -> Tensor:
    """Compute the left singular vectors, shape (N, C), float64; zeros for a filter of zeros."""
    known = torch.where(weights.isfinite(), weights, 0)
    planes = principal_planes(known).planes.flatten(1).double()
    projected = (known.double().flatten(2) @ planes[:, :, None])[..., 0]
    lengths = projected.norm(dim=1, keepdim=True)
    unit: Tensor = projected / lengths.where(lengths > 0, 1)
    return unit


def _weighted_sum(weights: Tensor, channel_weights: Tensor) -> Tensor:
    planes = channel_weights[:, None] @ weights.double().flatten(2)
    return planes.float().reshape(len(weights), 1, *weights.shape[2:])

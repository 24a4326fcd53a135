"""One mixture of input channels for a filter in all checkpoints: what its tiles show of many."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

import torch
from torch import Tensor

from kernelviz_callback.drawing.tile_style import tile_style
from kernelviz_callback.filters.principal import principal_planes


@dataclass(frozen=True, eq=False)
class Mixed:
    """What `mix_channels` made of a layer in some checkpoints.

    Attributes:
        layers: Shape (N, 1, kH, kW) each, or with kernels as they were; those that are drawn
            channel by channel are as they were.
        counts: The input channels that are mixed in each, 0 where none are.
        is_shared: Whether all have one mixture for a filter.
        explained: Its share of the squared norm of the last's filters, their median.
    """

    layers: list[Tensor]
    counts: list[int]
    is_shared: bool
    explained: float

    def note(self, last: str) -> str | None:
        """What a tile is, None where it is no mixture; ``last`` is what the last is called."""
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
def mix_channels(layers: Sequence[Tensor]) -> Mixed:
    """Make one kernel of the many of each filter, so that differences stay differences.

    A filter's kernels are added up by what each channel takes of its principal plane in the last
    checkpoint: there the tile is that plane (see `principal_planes`, whose sign it has), and in the
    others what has become of the same sum. A filter that is missing, zero or not finite in the last
    is mixed as in the latest that has it. Where the numbers of channels differ each has its own.

    Args:
        layers: The matched weights of each checkpoint, of N filters each, NaN where there is no
            partner; not modified. Up to four channels, and kernels of one tap, stay as they are.
    """
    is_mixed = [tile_style(w.shape).is_principal for w in layers]
    is_shared = len({w.shape[1] for w in layers}) == 1
    many = [w for w, mixed in zip(layers, is_mixed, strict=True) if mixed]
    shared = _latest(many) if many and is_shared else None
    made = [
        _added_up(w, _takes(w) if shared is None else shared) if mixed else w
        for w, mixed in zip(layers, is_mixed, strict=True)
    ]
    counts = [w.shape[1] if mixed else 0 for w, mixed in zip(layers, is_mixed, strict=True)]
    explained = torch.nan
    if is_mixed[-1]:
        explained = principal_planes(layers[-1]).explained.nanmedian().item()
    return Mixed(made, counts, is_shared, explained)


def _latest(layers: Sequence[Tensor]) -> Tensor:
    """What each filter takes of its channels in the last layer that has it, shape (N, C)."""
    *before, last = layers
    takes = _takes(last)
    for weights in reversed(before):
        is_missing = takes.eq(0).all(1, keepdim=True)
        if not is_missing.any():
            break
        takes = torch.where(is_missing, _takes(weights), takes)
    return takes


def _takes(weights: Tensor) -> Tensor:
    """The left singular vector of each filter, shape (N, C), float64; zeros where it has none."""
    known = torch.where(weights.isfinite(), weights, 0)
    planes = principal_planes(known).planes.flatten(1).double()
    takes = (known.double().flatten(2) @ planes[:, :, None])[..., 0]
    lengths = takes.norm(dim=1, keepdim=True)
    unit: Tensor = takes / lengths.where(lengths > 0, 1)
    return unit


def _added_up(weights: Tensor, takes: Tensor) -> Tensor:
    planes = takes[:, None] @ weights.double().flatten(2)
    return planes.float().reshape(len(weights), 1, *weights.shape[2:])

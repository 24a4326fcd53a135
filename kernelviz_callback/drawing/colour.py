"""Signed numbers to colours: zero is neutral, both signs are visible, NaN and infinity striped."""

from functools import cache

import torch
from torch import Tensor

# The 8-bit level of zero; the ends of the scale are 1 and 255.
ZERO_LEVEL = 128
# In stripes, which no other value is drawn in.
NON_FINITE_COLOURS = ((255, 0, 255), (0, 0, 0))
STRIPE = 3  # pixels
DIVERGING_MAP = "RdBu_r"  # ColorBrewer's red-blue, reversed: blue negative, red positive
_SMALLEST_SCALE = torch.finfo(torch.float32).tiny
_BLOCK = 2**17  # numbers that are converted together: they fit in a processor's cache


def to_levels(values: Tensor, half_range: Tensor, *, is_finite: bool = False) -> Tensor:
    """Round signed values to 8 bits: -half_range to 1, zero to 128, +half_range to 255.

    This is the only conversion from numbers to picture levels. Values beyond the range are clipped
    to its ends. NaN becomes 128; `paint_non_finite` draws stripes over it.

    Args:
        values: Shape (N, ...), floating point, not modified.
        half_range: The magnitude at the ends of the scale, not negative, of a shape that broadcasts
            with ``values``. With 0, every value is neutral.
        is_finite: Whether it is known that no value is NaN. Then NaN is not searched for. A NaN
            would become any level.

    Example:
        >>> to_levels(torch.tensor([-2.0, 0.0, 1.0, 2.0]), torch.tensor(2.0))
        tensor([  1, 128, 192, 255], dtype=torch.uint8)
    """
    levels = torch.empty(values.shape, dtype=torch.uint8, device=values.device)
    ends = half_range.float().clamp(min=_SMALLEST_SCALE).broadcast_to(values.shape)
    rows = max(1, _BLOCK * len(values) // max(1, values.numel()))
    if values.is_cuda:
        rows = max(1, len(values))  # fewer calls
    blocks = (torch.split(each, rows) for each in (values, ends, levels))
    for given, end, found in zip(*blocks, strict=True):
        share = (given.float() / end).clamp_(-1, 1).mul_(127)
        if not is_finite:
            share.nan_to_num_(0)
        # By way of int32: the direct conversion takes twice as long on a CPU.
        found.copy_(share.add_(ZERO_LEVEL).round_().int())
    return levels


def diverging(levels: Tensor) -> Tensor:
    """Colour planes of levels: blue below zero, nearly white at zero, red above zero.

    Args:
        levels: Shape (..., H, W), uint8, as `to_levels` makes them.

    Returns:
        Shape (..., 3, H, W), uint8.
    """
    table = _diverging_table().to(levels.device)
    return table[levels.long()].movedim(-1, -3)


def paint_non_finite(colours: Tensor, non_finite: Tensor) -> Tensor:
    """Paint magenta and black diagonal stripes where a value is NaN or infinite.

    Args:
        colours: Colours of the finite values, shape (..., 3, H, W), uint8, not modified.
        non_finite: Where values are NaN or infinite, shape (..., H, W), bool.

    Returns:
        A copy of ``colours`` with stripes.
    """
    height, width = non_finite.shape[-2:]
    diagonal = torch.arange(height, device="cpu")[:, None] + torch.arange(width, device="cpu")
    stripes = torch.tensor(NON_FINITE_COLOURS, dtype=torch.uint8, device="cpu")[
        diagonal // STRIPE % 2
    ]
    stripes = stripes.permute(2, 0, 1).to(colours.device)
    return torch.where(non_finite.unsqueeze(-3), stripes, colours)


@cache
def _diverging_table() -> Tensor:
    """The colour of each level, shape (256, 3), uint8. Level 0 is never used."""
    from matplotlib import colormaps

    table = torch.as_tensor(
        colormaps[DIVERGING_MAP].resampled(255)(range(255), bytes=True)[:, :3], device="cpu"
    )
    return torch.cat([table[:1], table])

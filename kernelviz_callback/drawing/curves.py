"""Filters of one dimension: their taps as a curve, and what they let through of each frequency."""

from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

Base: TypeAlias = Literal["middle", "bottom"]


def curve_width(points: int, height: int) -> int:
    """Pixels that a curve of so many points is wide, drawn ``height`` high.

    Half as much again as its height, by as many whole pixels a point as come nearest; of more than
    three times its height, neighbouring points share a pixel.

    Example:
        >>> curve_width(9, 56), curve_width(80, 56), curve_width(1024, 56)
        (81, 80, 168)
    """
    if points > 3 * height:
        return 3 * height
    return points * max(1, round(1.5 * height / points))


def draw_curves(
    values: Tensor, half_ranges: Tensor, *, height: int, width: int, base: Base = "middle"
) -> Tensor:
    """Draw curves as values again: painted in colours, what lies between zero and the curve shows.

    Args:
        values: Shape (N, C, points), floating point, not modified.
        half_ranges: Shape (N,): the magnitude that reaches the edge of the tile.
        height: In pixels, even.
        width: Likewise; see `curve_width`. Of points that share a pixel the largest and the
            smallest are drawn.
        base: Where zero is: in the middle, or, of what is never negative, at the bottom.

    Returns:
        Shape (N, C, height, width), float32: in each pixel the value that the curve has there, if
        the pixel lies between it and zero, else 0; in between where it does so in part. NaN where
        a value of the column is NaN or infinite.

    Example:
        >>> draw_curves(torch.tensor([[[2.0, -1.0]]]), torch.tensor([2.0]), height=4, width=2)
        tensor([[[[ 2.,  0.],
                  [ 2.,  0.],
                  [ 0., -1.],
                  [ 0.,  0.]]]])
    """
    values = values.float()
    is_bad = F.adaptive_max_pool1d((~values.isfinite()).float(), width) > 0
    known = values.nan_to_num(0.0, 0.0, 0.0)
    above = F.adaptive_max_pool1d(known, width).clamp(min=0)
    below = F.adaptive_max_pool1d(-known, width).clamp(min=0)
    room = height // 2 if base == "middle" else height
    ends = torch.where(half_ranges > 0, half_ranges, 1)[:, None, None, None]
    near = torch.arange(room, device=values.device)[:, None]  # each row's distance from zero
    rows = (above[:, :, None] / ends * room - near).clamp(0, 1) * above[:, :, None]
    drawn = rows.flip(2)
    if base == "middle":
        under = 0 - (below[:, :, None] / ends * room - near).clamp(0, 1) * below[:, :, None]
        drawn = torch.cat([drawn, under], dim=2)
    return drawn.masked_fill(is_bad[:, :, None], torch.nan)

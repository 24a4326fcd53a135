"""Curves: the taps of a 1-D filter, or its gain over frequency."""

from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

Base: TypeAlias = Literal["middle", "bottom"]


def curve_width(points: int, height: int) -> int:
    """Return the width of a curve, in pixels: about 1.5 times its height.

    Each point has the same whole number of pixels. If there are more than three times as many
    points as the height has pixels, neighbouring points share a pixel.

    Args:
        points: Number of points of the curve.
        height: Height of the curve, in pixels.

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
    """Draw curves as planes of values: the area between zero and the curve is filled.

    Args:
        values: Points of the curves, shape (N, C, points), floating point, not modified.
        half_ranges: The magnitude that reaches the edge of the tile, shape (N,).
        height: Height of a curve in pixels, even.
        width: Width of a curve in pixels, see `curve_width`. If points share a pixel, the largest
            and the smallest are drawn.
        base: Where zero is: in the "middle" of the tile, or at its "bottom" for values that are
            never negative.

    Returns:
        Shape (N, C, height, width), float32. A pixel between zero and the curve holds the curve's
        value at this column, and any other pixel holds 0. A pixel that is covered in part holds
        this part of the value. A column with a value that is NaN or infinite is NaN.

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

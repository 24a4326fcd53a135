"""Painting of tiles: the planes of a filter or a response in colours, in a row."""

from torch import Tensor

from kernelviz_callback.drawing.caption_layout import BACKGROUND
from kernelviz_callback.drawing.colour import diverging, paint_non_finite, to_levels


def paint_tiles(
    values: Tensor,
    half_ranges: Tensor,
    *,
    is_rgb: bool,
    zoom: int = 1,
    rule: int = 1,
    non_finite: Tensor | None = None,
) -> Tensor:
    """Colour the tiles of a grid.

    Args:
        values: Filters or responses, shape (N, C, H, W), see `as_planes`.
        half_ranges: The magnitude at the ends of each tile's colour scale, shape (N,).
        is_rgb: Whether each three channels are one RGB picture. If not, each channel is one
            picture. The pictures of a tile stand in a row.
        zoom: Whole factor of enlargement.
        rule: Pixels between the pictures of a tile.
        non_finite: Where values are NaN or infinite: bool, same shape. None if all are finite.

    Returns:
        Shape (N, 3, tile height, tile width), uint8, on the device of ``values``.
    """
    ends = half_ranges[:, None, None, None]
    levels = _enlarge(to_levels(values, ends, is_finite=non_finite is None), zoom)
    colours = _in_threes(levels) if is_rgb else diverging(levels)
    if non_finite is not None:
        mask = _enlarge(non_finite, zoom)
        mask = _in_threes(mask).any(2) if is_rgb else mask
        colours = paint_non_finite(colours, mask)
    return colours[:, 0] if colours.shape[1] == 1 else _side_by_side(colours, rule)


def _in_threes(planes: Tensor) -> Tensor:
    """Turn (N, 3 P, H, W) into (N, P, 3, H, W)."""
    filters, count, height, width = planes.shape
    return planes.reshape(filters, count // 3, 3, height, width)


def _side_by_side(planes: Tensor, rule: int) -> Tensor:
    """Put the P pictures of each tile in a row: (N, P, 3, H, W) to (N, 3, H, W')."""
    filters, count, _, height, width = planes.shape
    pitch = width + rule
    ruled = planes.new_tensor(BACKGROUND)[:, None, None].repeat(filters, count, 1, height, pitch)
    ruled[..., :width] = planes
    row = ruled.permute(0, 2, 3, 1, 4).reshape(filters, 3, height, count * pitch)
    return row[..., : count * pitch - rule]


def _enlarge(planes: Tensor, zoom: int) -> Tensor:
    """Repeat every pixel of (..., H, W) planes ``zoom`` times, down and across."""
    *many, height, width = planes.shape
    blocks = planes[..., :, None, :, None].expand(*many, height, zoom, width, zoom)
    return blocks.reshape(*many, height * zoom, width * zoom)

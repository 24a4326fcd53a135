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
        Shape (N, tile height, tile width, 3), uint8, on the device of ``values``.
    """
    levels = to_levels(values, half_ranges[:, None, None, None], is_finite=non_finite is None)
    pictures = _enlarge(_in_threes(levels) if is_rgb else diverging(levels), zoom)
    if non_finite is not None:
        mask = _in_threes(non_finite).any(2) if is_rgb else non_finite
        mask = _enlarge(mask[:, :, None], zoom)[..., 0]
        pictures = paint_non_finite(pictures.movedim(-1, 2), mask).movedim(2, -1)
    return pictures[:, 0] if pictures.shape[1] == 1 else _side_by_side(pictures, rule)


def _in_threes(planes: Tensor) -> Tensor:
    """Turn (N, 3 P, H, W) into (N, P, 3, H, W)."""
    filters, count, height, width = planes.shape
    return planes.reshape(filters, count // 3, 3, height, width)


def _side_by_side(pictures: Tensor, rule: int) -> Tensor:
    """Put the P pictures of each tile in a row: (N, P, H, W, 3) to (N, H, W', 3)."""
    filters, count, height, width, _ = pictures.shape
    pitch = width + rule
    ruled = pictures.new_tensor(BACKGROUND).repeat(filters, height, count, pitch, 1)
    ruled[:, :, :, :width] = pictures.transpose(1, 2)
    row = ruled.reshape(filters, height, count * pitch, 3)
    return row[:, :, : count * pitch - rule]


def _enlarge(planes: Tensor, zoom: int) -> Tensor:
    """Repeat every pixel ``zoom`` times, down and across: (N, P, K, h, w) to (N, P, H, W, K)."""
    filters, count, colours, height, width = planes.shape
    wide = planes.new_empty(filters, count, height, width, zoom, colours)
    for k in range(colours):  # one by one: half the time of a permuted copy
        wide[..., k] = planes[:, :, k, :, :, None]
    rows = wide.reshape(filters, count, height, 1, width * zoom, colours)
    tall = rows.expand(-1, -1, -1, zoom, -1, -1)
    return tall.reshape(filters, count, height * zoom, width * zoom, colours)

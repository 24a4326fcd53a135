"""Paint the tiles of a grid on the device of the filters, and compose the picture on the CPU."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kernelviz_callback.drawing.arrangement import GAP, arrange_matrix, arrange_tiles, curve_height
from kernelviz_callback.drawing.caption_layout import draw_caption
from kernelviz_callback.drawing.caption_text import Scale, non_finite_note, scale_note
from kernelviz_callback.drawing.curves import curve_width, draw_curves
from kernelviz_callback.drawing.picture import Layout, Picture
from kernelviz_callback.drawing.tile_style import TileStyle, colour_bar
from kernelviz_callback.drawing.tiles import paint_tiles
from kernelviz_callback.drawing.verdict_frames import Flags
from kernelviz_callback.filters.measures import largest_magnitude
from kernelviz_callback.model.host import to_host

FRAME = 3  # pixels of a verdict's frame, outside the tile; less for tiles below 48 pixels


@dataclass(frozen=True)
class PaintedGrid:
    """The tiles of a grid in colours, and what its caption says of them: plain data on the CPU.

    Attributes:
        tiles: Shape (N, H, W, 3), uint8.
        half_ranges: The magnitude at the ends of each filter's scale, shape (N,).
        style: How the filters are drawn.
        columns: Number of tiles in a row.
        gap: Pixels between tiles, without frames.
        lines: The caption, without the line of the scale.
        scale: The option of `kernel_grid`.
        noun: What is drawn, for the caption.
    """

    tiles: Tensor
    half_ranges: Tensor
    style: TileStyle
    columns: int
    gap: int
    lines: list[str]
    scale: Scale
    noun: str

    def compose(self, flags: Flags | None = None) -> Picture:
        """Put the tiles, their surroundings and the caption into one picture.

        Args:
            flags: Frames around tiles, their legend, and remarks.
        """
        filters, height, width, _ = self.tiles.shape
        (low, high), scale_line = scale_note(self.half_ranges, self.scale, self.noun)
        bar_ends = "0" if self.style.base == "bottom" else low, high
        frame = 0 if flags is None else max(1, min(FRAME, height // 16))
        tight = Layout(filters, self.columns, height, width, gap=self.gap + 2 * frame)
        below = () if flags is None else (flags.legend, flags.remarks)
        bar = colour_bar(self.style)
        pixels, layout = draw_caption(tight, [*self.lines, scale_line], bar, bar_ends, *below)
        canvas, colours = pixels.numpy(), [None] * filters if flags is None else flags.colours
        shape = height + 2 * frame, width + 2 * frame, 3
        frames = {colour: np.full(shape, colour, np.uint8) for colour in {*colours} - {None}}
        for i, tile in enumerate(self.tiles.numpy()):
            if colours[i] is not None:
                canvas[layout.box(i, margin=frame)] = frames[colours[i]]
            canvas[layout.box(i)] = tile
        return Picture(pixels, layout, self.half_ranges)


def paint_grid(
    chunks: Iterable[Tensor],
    shape: tuple[int, ...],
    *,
    style: TileStyle,
    shown: int,
    scale: Scale,
    largest_tile: int,
    lines: list[str],
    noun: str,
    has_frames: bool = False,
) -> PaintedGrid:
    """Paint filters chunk by chunk. A shared scale needs a second pass.

    Args:
        chunks: Planes of some filters each, see `as_planes`.
        shape: Shape of all chunks together, (N, C, H, W).
        style: How the filters are drawn.
        shown: Number of planes of each filter that are painted, from the first on. The scale and
            the notes on non-finite values are of all planes.
        scale: The option of `kernel_grid`.
        largest_tile: Planes are not enlarged beyond this height and width, in pixels.
        lines: The caption so far.
        noun: What is drawn, for the caption.
        has_frames: Whether tiles may have frames.
    """
    filters, _, height, width = shape
    pictures = shown // 3 if style.is_rgb else shown
    if style.is_curve:
        height = curve_height(filters, pictures, width, largest_tile)
        width = curve_width(width, height)
    if style.kind == "matrix":
        columns, zoom = arrange_matrix(filters, pictures * width, 3 if has_frames else 1)
    else:
        largest_zoom = largest_tile // max(height, width)
        columns, zoom = arrange_tiles(filters, height, pictures * width, largest_zoom)
    painted = _paint_chunks(chunks, style, scale, shown, (height, width), zoom)
    return PaintedGrid(
        painted.tiles,
        painted.half_ranges,
        style,
        columns,
        gap=1 if style.kind == "matrix" else GAP if pictures == 1 else 3 * GAP,
        lines=[line for line in lines if line] + non_finite_note(painted.non_finite, filters),
        scale=scale,
        noun=noun,
    )


class _Painted(NamedTuple):
    """The tiles of a grid, their half ranges, and the numbers of filters with NaN or infinity."""

    tiles: Tensor
    half_ranges: Tensor
    non_finite: list[int]


def _paint_chunks(
    chunks: Iterable[Tensor],
    style: TileStyle,
    scale: Scale,
    shown: int,
    curve_size: tuple[int, int],
    zoom: int,
) -> _Painted:
    common = None if scale == "filter" else _common_half_range(chunks, scale)
    painted, half_ranges = [], []
    is_non_finite: list[bool] = []
    for values in chunks:
        own = largest_magnitude(values) if common is None else common.expand(len(values))
        bad = _non_finite(values)
        drawn = values[:, :shown]
        if style.is_curve:
            height, width = curve_size
            drawn = draw_curves(drawn[:, :, 0], own, height=height, width=width, base=style.base)
        colours = paint_tiles(
            drawn,
            own,
            is_rgb=style.is_rgb,
            zoom=zoom,
            rule=style.rule,
            non_finite=None if bad is None else ~drawn.isfinite(),
        )
        painted.append(colours)
        half_ranges.append(own)
        is_non_finite += [False] * len(values) if bad is None else bad.flatten(1).any(1).tolist()
    return _Painted(
        to_host(torch.cat(painted)),
        torch.cat(half_ranges).cpu(),
        [i for i, is_bad in enumerate(is_non_finite) if is_bad],
    )


def _common_half_range(chunks: Iterable[Tensor], scale: Scale) -> Tensor:
    """The largest magnitude of all filters, and no less than ``scale`` if that is a number."""
    largest = torch.stack([largest_magnitude(values).amax() for values in chunks]).amax()
    return largest if scale == "layer" else largest.clamp(min=float(scale))


def _non_finite(values: Tensor) -> Tensor | None:
    """Where values are NaN or infinite, bool, same shape; None if all are finite."""
    # A finite sum proves that all are finite. The sum of finite numbers may overflow, so otherwise
    # each is checked.
    return None if values.sum().isfinite() else ~values.isfinite()

"""The frames of an animation: the background that they share, and the kernels of each snapshot."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from math import ceil, log1p
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from torch import Tensor

from kernelviz_callback.drawing.animation.caption import HEADER, Canvas, add_caption
from kernelviz_callback.drawing.animation.crop import Crop
from kernelviz_callback.drawing.animation.sampling import FilterSequence, Frame, SequenceScale
from kernelviz_callback.drawing.arrangement import GAP, square_columns
from kernelviz_callback.drawing.caption_layout import BACKGROUND
from kernelviz_callback.drawing.colour import STRIPE, diverging, to_levels
from kernelviz_callback.drawing.fonts import load_font, text_width
from kernelviz_callback.drawing.picture import Layout

SMALL_SIDE = 350  # pixels: height and width, about, of the kernels in an animation that is logged
LARGE_SIDE = 840  # pixels: the same in an animation that the command line makes
_FEWEST = 4  # kernels that have room side by side: fewer are not enlarged beyond that
_RULE = 2  # pixels between the pictures of a tile: an even number, for the sake of video
_TIME_LINE = 34  # pixels: height of the line below the kernels with step and epoch
_FONT_SIZE, _NUMBER_SIZE = 15, 11
_TEXT, _FAINT = np.array((232, 232, 236)), (150, 150, 160)
_TRACK = 90  # of 255: brightness of the part of the time line that is still to come


class PaintedKernels(NamedTuple):
    """The kernels of a snapshot in colours, not enlarged.

    Attributes:
        colours: Shape (filters, pictures, H, W, 3), or (filters, pictures, H, W) for indices into a
            palette.
        is_bad: Where a weight is NaN or infinite, shape (filters, pictures, H, W).
    """

    colours: Canvas
    is_bad: npt.NDArray[np.bool_]


class FrameRenderer:
    """Draws the frames of an animation on one background.

    Args:
        sequence: The layer through the training.
        steps: Steps of all frames, ascending.
        half_ranges: The magnitude at the ends of each filter's colour scale, shape (filters,).
        scale: Whether all filters share one scale.
        side: Height and width, about, that the kernels are enlarged to, in pixels.
        zoom: If given, the enlargement, instead of ``side``.
        is_even: Whether the enlargement must be even.

    Attributes:
        crop: The part of the layer that is drawn.
        zoom: Whole factor by which the kernels are enlarged.
        background: The picture without kernels, shape (H, W, 3), uint8.
        layout: Where the tile of each filter is.
        time_line: Rows and columns of the line with step and epoch.
    """

    def __init__(
        self,
        sequence: FilterSequence,
        steps: Sequence[int],
        half_ranges: Tensor,
        *,
        scale: SequenceScale,
        side: int = SMALL_SIDE,
        zoom: int | None = None,
        is_even: bool = False,
    ) -> None:
        self.crop = crop = sequence.crop
        count, pictures = len(crop.filters), crop.style.pictures
        height, width = crop.picture_size
        columns = square_columns(count, height, pictures * width)
        rows = ceil(count / columns)
        extent = max(columns * pictures * width, rows * height, _FEWEST * crop.usual_side)
        # A curve has many pixels before it is enlarged, so rounding down could halve the side.
        fitting = round(side / extent) if crop.style.is_curve else side // extent
        self.zoom = zoom or max(1, fitting)
        if is_even:
            self.zoom = max(2, self.zoom // 2 * 2)
        self._start, self._end = log1p(steps[0]), log1p(steps[-1])
        layout = Layout(
            count,
            columns,
            tile_height=height * self.zoom,
            tile_width=pictures * (width * self.zoom + _RULE) - _RULE,
            left=text_width(str(crop.shape[0]), _NUMBER_SIZE) + 6,
            top=HEADER,
            gap=GAP if pictures == 1 else 3 * GAP,
        )
        body = _numbered(layout, crop.filters)
        pixels, top, left = add_caption(
            body, sequence, "evolution", shown=len(steps), half_ranges=half_ranges, scale=scale
        )
        self.background: Canvas = pixels.numpy()
        self.layout = replace(layout, left=layout.left + left, top=layout.top + top)
        below = self.layout.height
        right = self.background.shape[1] - left
        self.time_line = slice(below, below + _TIME_LINE), slice(left, right)

    def draw_kernels(self, canvas: Canvas, painted: PaintedKernels, stripes: Canvas) -> None:
        """Draw the kernels of a snapshot on a copy of the background.

        Args:
            canvas: The copy, shape (H, W, 3) of colours, or (H, W) of indices into a palette.
            painted: The kernels, in colours or in indices, as the canvas.
            stripes: The two colours of stripes at bad weights, shape (2, 3), or their indices,
                shape (2,).
        """
        layout = self.layout
        enlarged = painted.colours.repeat(self.zoom, 2).repeat(self.zoom, 3)
        height, width = enlarged.shape[2:4]
        if painted.is_bad.any():
            diagonal = np.arange(height)[:, None] + np.arange(width)
            pattern = np.broadcast_to(stripes[diagonal // STRIPE % 2], enlarged.shape)
            mask = painted.is_bad.repeat(self.zoom, 2).repeat(self.zoom, 3)
            enlarged[mask] = pattern[mask]
        for index, pictures in enumerate(enlarged):
            rows, columns = layout.box(index)
            for number, picture in enumerate(pictures):
                left = columns.start + number * (width + _RULE)
                canvas[rows, left : left + width] = picture

    def draw_time(self, frame: Frame) -> Canvas:
        """Draw step and epoch, and a bar that shows how much of the training has passed.

        The bar is logarithmic, like the steps of the frames.

        Returns:
            Brightness of each pixel of ``time_line``, from 0, the background, to 255, the text:
            shape (H, W).
        """
        width = self.time_line[1].stop - self.time_line[1].start
        mask = Image.new("L", (width, _TIME_LINE))
        draw = ImageDraw.Draw(mask)
        epoch = "" if frame.epoch is None else f" · epoch {frame.epoch}"
        draw.text((0, 12), f"step {frame.step}{epoch}", 255, load_font(_FONT_SIZE), anchor="lm")
        span = self._end - self._start
        share = (log1p(frame.step) - self._start) / span if span else 1.0
        at = round(share * (width - 1))
        draw.rectangle((0, 26, width - 1, 28), fill=_TRACK)
        draw.rectangle((0, 26, at, 28), fill=255)
        return np.array(mask)


def paint_kernels(frame: Frame, crop: Crop, half_ranges: Tensor) -> PaintedKernels:
    """Colour the kernels of a snapshot.

    Args:
        frame: The drawn part of the layer in the snapshot.
        crop: The part of the layer that is drawn.
        half_ranges: The magnitude at the ends of each filter's colour scale, shape (filters,).

    Returns:
        Pictures of the size `Crop.picture_size`. NaN has the colour of zero.
    """
    planes = crop.to_pictures(frame.weights, half_ranges)
    levels = to_levels(planes, half_ranges[:, None, None, None])
    is_bad = ~planes.isfinite()
    if crop.style.is_rgb:
        in_threes = len(levels), crop.style.pictures, 3, *crop.picture_size
        colours, is_bad = levels.reshape(in_threes), is_bad.reshape(in_threes).any(2)
    else:
        colours = diverging(levels)
    return PaintedKernels(colours.movedim(2, -1).contiguous().numpy(), is_bad.numpy())


def text_colours(brightness: Canvas) -> Canvas:
    """Turn brightness into colours, from 0, the background, to 255, the text: shape (..., 3)."""
    return _text_ramp()[brightness]


def _numbered(layout: Layout, filters: Sequence[int]) -> Canvas:
    """Draw the numbers of the filters around empty tiles, with room for the time line below."""
    image = Image.new("RGB", (layout.width, layout.height + _TIME_LINE), BACKGROUND)
    draw = ImageDraw.Draw(image)
    font = load_font(_NUMBER_SIZE)
    every = ceil((_NUMBER_SIZE + 2) / (layout.tile_height + layout.gap))
    for row in range(0, layout.rows, every):
        rows, columns = layout.box(row * layout.columns)
        at = columns.start - 5, (rows.start + rows.stop) // 2
        draw.text(at, str(filters[row * layout.columns]), _FAINT, font, anchor="rm")
    if list(filters) == list(range(len(filters))):
        widest = text_width(f"+{layout.columns}", _NUMBER_SIZE) + 4
        every = ceil(widest / (layout.tile_width + layout.gap))
        for column in range(0, layout.columns, every):
            _, columns = layout.box(column)
            at = (columns.start + columns.stop) // 2, HEADER - 5
            draw.text(at, f"+{column}", _FAINT, font, anchor="ms")
    return np.array(image)


@cache
def _text_ramp() -> Canvas:
    share = np.linspace(0, 1, 256)[:, None]
    ramp: Canvas = ((1 - share) * BACKGROUND + share * _TEXT).round().astype(np.uint8)
    return ramp

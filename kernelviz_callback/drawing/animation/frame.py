"""An animation of kernels: what stands still in it, and what each snapshot puts there."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from math import ceil, log1p, sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from kernelviz_callback.drawing.animation.caption import HEADER, Canvas, captioned
from kernelviz_callback.drawing.animation.sampling import Cut, Reel, ReelScale, Shot
from kernelviz_callback.drawing.caption import BACKGROUND
from kernelviz_callback.drawing.colour import STRIPE, diverging, to_levels
from kernelviz_callback.drawing.picture import Layout

SMALL_SIDE = (
    350  # pixels: about as wide and high are the kernels of an animation that is logged, ...
)
LARGE_SIDE = 840  # ... and of one that is made for itself
_FEWEST = 4  # kernels that have room side by side: fewer are not enlarged beyond that
_GAP = 2  # pixels between tiles; three times as much where each is a row
_RULE = 2  # pixels between the kernels of a row; even, as video asks
_CLOCK = 34  # pixels: the line below the kernels that tells step and epoch
_FONT_SIZE, _NUMBER_SIZE = 15, 11
_TEXT, _FAINT = np.array((232, 232, 236)), (150, 150, 160)
_TRACK = 90  # of 255: how bright what is still to come is drawn in the clock


class Painted(NamedTuple):
    """The kernels of a snapshot in colours, not enlarged.

    Attributes:
        colours: Shape (filters, planes, H, W, 3), or, of numbers of colours, without the last.
        is_bad: Where a weight is NaN or infinite, shape (filters, planes, H, W).
    """

    colours: Canvas
    is_bad: npt.NDArray[np.bool_]


class Stage:
    """Where everything is in the frames of an animation.

    Args:
        reel: The layer.
        steps: Of all frames, ascending.
        half_ranges: The magnitude at the ends of each filter's colours.
        scale: Whether all filters share one.
        side: The kernels are enlarged to about this width and height, in pixels.
        zoom: Enlarge them so much instead.
        is_even: Enlarge them by an even factor.

    Attributes:
        cut: Which part of the layer is drawn.
        zoom: The enlargement of its kernels, whole.
        still: The picture without kernels, shape (H, W, 3), uint8.
        layout: Where the tile of each filter lies.
        clock: The rows and columns of the line that tells the time.
    """

    def __init__(
        self,
        reel: Reel,
        steps: Sequence[int],
        half_ranges: Tensor,
        *,
        scale: ReelScale,
        side: int = SMALL_SIDE,
        zoom: int | None = None,
        is_even: bool = False,
    ) -> None:
        count, planes = len(reel.cut.filters), reel.cut.planes
        height, width = reel.cut.picture_size
        columns = min(count, max(1, ceil(sqrt(count * height / (planes * width)) - 1e-9)))
        rows = ceil(count / columns)
        extent = max(columns * planes * width, rows * height, _FEWEST * max(height, width))
        # A curve has many pixels before it is enlarged: rounded down, it could be half of the side.
        fitting = round(side / extent) if reel.cut.is_curve else side // extent
        self.zoom = zoom or max(1, fitting)
        if is_even:
            self.zoom = max(2, self.zoom // 2 * 2)
        self.cut = reel.cut
        self._start, self._end = log1p(steps[0]), log1p(steps[-1])
        layout = Layout(
            count,
            columns,
            tile_height=height * self.zoom,
            tile_width=planes * (width * self.zoom + _RULE) - _RULE,
            left=_length(str(reel.cut.shape[0]), _NUMBER_SIZE) + 6,
            top=HEADER,
            gap=_GAP if planes == 1 else 3 * _GAP,
        )
        body = _empty(layout, reel.cut.filters)
        pixels, top, left = captioned(
            body, reel, "evolution", shown=len(steps), half_ranges=half_ranges, scale=scale
        )
        self.still: Canvas = pixels.numpy()
        self.layout = replace(layout, left=layout.left + left, top=layout.top + top)
        below = self.layout.height
        right = self.still.shape[1] - left
        self.clock = slice(below, below + _CLOCK), slice(left, right)

    def put(self, canvas: Canvas, painted: Painted, stripes: Canvas) -> None:
        """Draw the kernels of a snapshot.

        Args:
            canvas: A frame, shape (H, W) of numbers of colours or (H, W, 3) of colours.
            painted: The kernels, likewise.
            stripes: The two colours of stripes where weights are bad, shape (2,) or (2, 3).
        """
        layout = self.layout
        big = painted.colours.repeat(self.zoom, 2).repeat(self.zoom, 3)
        height, width = big.shape[2:4]
        if painted.is_bad.any():
            diagonal = np.arange(height)[:, None] + np.arange(width)
            pattern = np.broadcast_to(stripes[diagonal // STRIPE % 2], big.shape)
            mask = painted.is_bad.repeat(self.zoom, 2).repeat(self.zoom, 3)
            big[mask] = pattern[mask]
        for index, planes in enumerate(big):
            rows, columns = layout.box(index)
            for number, plane in enumerate(planes):
                left = columns.start + number * (width + _RULE)
                canvas[rows, left : left + width] = plane

    def time(self, shot: Shot) -> Canvas:
        """Draw the clock: step and epoch, and how much of the training has passed.

        The line is logarithmic, as the steps of the frames are.

        Returns:
            How bright each pixel of ``clock`` is, shape (H, W), from the background to the text.
        """
        width = self.clock[1].stop - self.clock[1].start
        mask = Image.new("L", (width, _CLOCK))
        draw = ImageDraw.Draw(mask)
        epoch = "" if shot.epoch is None else f" · epoch {shot.epoch}"
        draw.text((0, 12), f"step {shot.step}{epoch}", 255, _font(_FONT_SIZE), anchor="lm")
        span = self._end - self._start
        share = (log1p(shot.step) - self._start) / span if span else 1.0
        at = round(share * (width - 1))
        draw.rectangle((0, 26, width - 1, 28), fill=_TRACK)
        draw.rectangle((0, 26, at, 28), fill=255)
        return np.array(mask)


def paint_kernels(shot: Shot, cut: Cut, half_ranges: Tensor) -> Painted:
    """Colour the kernels of a snapshot.

    Args:
        shot: The snapshot.
        cut: Which part of the layer it shows.
        half_ranges: Shape (filters,): the magnitude at the ends of each filter's colours.

    Returns:
        Pictures of `Cut.picture_size`. NaN is neutral.
    """
    pictures = cut.pictures(shot.weights, half_ranges)
    levels = to_levels(pictures, half_ranges[:, None, None, None])
    is_bad = ~pictures.isfinite()
    if cut.is_rgb:
        in_threes = len(levels), cut.planes, 3, *cut.picture_size
        colours, is_bad = levels.reshape(in_threes), is_bad.reshape(in_threes).any(2)
    else:
        colours = diverging(levels)
    return Painted(colours.movedim(2, -1).contiguous().numpy(), is_bad.numpy())


def mixed(mask: Canvas) -> Canvas:
    """Colour brightness, 0 to 255, from the background to the text: shape (..., 3)."""
    return _mixtures()[mask]


def _empty(layout: Layout, filters: Sequence[int]) -> Canvas:
    """The tiles' places with the numbers of the filters around them, and the clock's below."""
    image = Image.new("RGB", (layout.width, layout.height + _CLOCK), BACKGROUND)
    draw = ImageDraw.Draw(image)
    font = _font(_NUMBER_SIZE)
    every = ceil((_NUMBER_SIZE + 2) / (layout.tile_height + layout.gap))
    for row in range(0, layout.rows, every):
        rows, columns = layout.box(row * layout.columns)
        at = columns.start - 5, (rows.start + rows.stop) // 2
        draw.text(at, str(filters[row * layout.columns]), _FAINT, font, anchor="rm")
    if list(filters) == list(range(len(filters))):
        widest = _length(f"+{layout.columns}", _NUMBER_SIZE) + 4
        every = ceil(widest / (layout.tile_width + layout.gap))
        for column in range(0, layout.columns, every):
            _, columns = layout.box(column)
            at = (columns.start + columns.stop) // 2, HEADER - 5
            draw.text(at, f"+{column}", _FAINT, font, anchor="ms")
    return np.array(image)


@cache
def _mixtures() -> Canvas:
    share = np.linspace(0, 1, 256)[:, None]
    mixtures: Canvas = ((1 - share) * BACKGROUND + share * _TEXT).round().astype(np.uint8)
    return mixtures


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _length(text: str, size: int) -> int:
    return ceil(_font(size).getlength(text))

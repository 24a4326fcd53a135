"""The film strip of a layer: a row a filter, a column a snapshot, from the first to the latest.

Source: Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, fig. 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import ceil, log, sqrt

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from kernelviz_callback.drawing.animation.caption import HEADER, Canvas, captioned
from kernelviz_callback.drawing.animation.sampling import WIDEST_ROW, Cut, Reel, ReelScale
from kernelviz_callback.drawing.caption import BACKGROUND
from kernelviz_callback.drawing.picture import Layout, Picture
from kernelviz_callback.drawing.tiles import paint_tiles

MOST_COLUMNS = 12
MOST_BYTES = 1_000_000  # of a film strip or an animation that is logged
_BYTES_A_PIXEL = 4  # of a kernel of noise in a PNG, at most, however enlarged
_MOST_BLOCKS = 4  # side by side, of a film that would be a thin strip otherwise
_AREA = 750_000  # pixels: what the tiles of a film cover, about, ...
_SMALLEST_TILE, _LARGEST_TILE = 20, 48  # pixels: ... if they are no smaller and no larger
_RULE = 2  # pixels between tiles; between those of a strip three times as much where each is a row
_BETWEEN = 20  # pixels between blocks
_STAGGER = 12  # pixels between two lines of step numbers
_LEAST_PITCH = 12  # pixels between filter numbers
_FONT_SIZE = 11
_TEXT, _FAINT = (200, 200, 208), (150, 150, 160)


@dataclass(frozen=True)
class FilmLayout(Layout):
    """Where the strips of a film lie: down a block, then down the next beside it.

    ``columns`` are the blocks. A strip, the tile of its filter, is a row of frames.

    Attributes:
        frames: Of a strip, one a snapshot.
        frame_width: Of one, in pixels.
        rule: Pixels between two.
        between: Pixels from the strips of a block to those of the next.
    """

    frames: int = 1
    frame_width: int = 1
    rule: int = _RULE
    between: int = _BETWEEN

    @property
    def width(self) -> int:
        """Width of the strips and the left margin."""
        return self.left + self.columns * (self.tile_width + self.between) - self.between

    def box(self, index: int, *, margin: int = 0) -> tuple[slice, slice]:
        """The rows and columns of strip ``index``, to index an (H, W, 3) array with."""
        block, row = divmod(index, self.rows)
        top = self.top + row * (self.tile_height + self.gap)
        left = self.left + block * (self.tile_width + self.between)
        return (
            slice(top - margin, top + self.tile_height + margin),
            slice(left - margin, left + self.tile_width + margin),
        )

    def frame(self, index: int, column: int) -> tuple[slice, slice]:
        """The rows and columns of one frame of a strip."""
        rows, columns = self.box(index)
        left = columns.start + column * (self.frame_width + self.rule)
        return rows, slice(left, left + self.frame_width)


def film_strip(
    reel: Reel, *, scale: ReelScale = "layer", most_columns: int = MOST_COLUMNS
) -> Picture:
    """Picture how each filter of a layer came to be what it is: when it took form, or lost it.

    A row is a filter, its number at its left; a column is a snapshot, its step on top: the first,
    the last, and between them steps in equal ratios, for early changes are the large ones. One
    scale holds for all columns: what looks weak is weak. Of three channels a tile is an RGB
    picture, grey where a weight is zero; up to four others stand side by side, of more it is the
    principal plane, red positive, blue negative, white zero. NaN and infinity are striped magenta
    and black. Many rows are folded into blocks side by side.

    The kernels of a 1-D layer are curves, whatever their channels; those of a 3-D layer stand slice
    by slice in a row: the first, if there are more than have room.

    Args:
        reel: The layer through the training.
        scale: See `Reel.half_ranges`.
        most_columns: Of the reel's shots, see `film_steps`. Of kernels of more than 144x144 there
            are fewer, so that the picture is no more than a megabyte as a PNG.

    Returns:
        A picture whose tiles are the strips, its layout a `FilmLayout`.

    Example:
        >>> from torch import randn
        >>> from kernelviz_callback.drawing.animation.sampling import Reading, gather_reels
        >>> weights = randn(64, 3, 7, 7)
        >>> [reel] = gather_reels(range(9), lambda s: Reading(0, {"conv": s * weights})).values()
        >>> picture = film_strip(reel)
        >>> picture.layout.frames, picture.layout.rows, picture.tile(63).shape
        (9, 22, torch.Size([35, 331, 3]))
    """
    fitting = max(1, MOST_BYTES // (_BYTES_A_PIXEL * reel.cut.pixels))
    shots = reel.thinned(min(most_columns, fitting)).shots
    half_ranges = reel.half_ranges(scale)
    zoom = _zoom(reel, len(shots))
    tiles = [_painted(reel.cut, shot.weights, half_ranges, zoom) for shot in shots]
    steps = [str(shot.step) for shot in shots]
    rule = _RULE if reel.cut.planes == 1 else 3 * _RULE
    body, layout = _body(tiles, steps, list(map(str, reel.cut.filters)), rule)

    pixels, top, left = captioned(
        body, reel, "film", shown=len(shots), half_ranges=half_ranges, scale=scale
    )
    layout = replace(layout, left=layout.left + left, top=layout.top + top)
    return Picture(pixels, layout, half_ranges)


def _zoom(reel: Reel, columns: int) -> int:
    """Whole, so that the film is of a size to look at."""
    tile = sqrt(_AREA / (columns * len(reel.cut.filters)))
    tile = min(max(tile, _SMALLEST_TILE), _LARGEST_TILE)
    planes, (height, width) = reel.cut.planes, reel.cut.picture_size
    zoom = round(tile / sqrt(planes) / max(height, width))
    return max(1, min(zoom, WIDEST_ROW // (planes * width)))


def _painted(cut: Cut, weights: Tensor, half_ranges: Tensor, zoom: int) -> Canvas:
    """Shape (filters, 3, H, W)."""
    pictures = cut.pictures(weights, half_ranges)
    bad = ~pictures.isfinite()
    painted = paint_tiles(
        pictures,
        half_ranges,
        is_rgb=cut.is_rgb,
        zoom=zoom,
        rule=2 if cut.is_rgb else 1,
        non_finite=bad if bad.any() else None,
    )
    return painted.numpy()


def _body(
    tiles: Sequence[Canvas], steps: Sequence[str], labels: Sequence[str], rule: int
) -> tuple[Canvas, FilmLayout]:
    """Put tiles and numbers in their places."""
    filters, _, height, width = tiles[0].shape
    room = max(map(_length, labels)) + 6
    pitch = width + rule
    in_two_lines = max(map(_length, steps)) > pitch - 3
    header = HEADER + _STAGGER * in_two_lines
    strip = len(tiles) * pitch - rule
    layout = FilmLayout(
        filters=filters,
        columns=_blocks(filters, (height + _RULE, strip + room + _BETWEEN)),
        tile_height=height,
        tile_width=strip,
        left=room,
        top=header,
        gap=_RULE,
        frames=len(tiles),
        frame_width=width,
        rule=rule,
        between=_BETWEEN + room,
    )
    overhang = max(0, _length(steps[-1]) - width) // 2 + 1
    canvas = Image.new("RGB", (layout.width + overhang, layout.height), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    every = ceil(_LEAST_PITCH / (height + _RULE))
    for block in range(layout.columns):
        for row in range(0, min(layout.rows, filters - block * layout.rows), every):
            rows, columns = layout.box(block * layout.rows + row)
            at = columns.start - 5, (rows.start + rows.stop) // 2
            draw.text(at, labels[block * layout.rows + row], _FAINT, _font(), anchor="rm")
        for column, step in enumerate(steps):
            text = _fitted(step, (1 + in_two_lines) * pitch - 3)
            _, columns = layout.frame(block * layout.rows, column)
            lower = _STAGGER * (column % 2) if in_two_lines else 0
            at = (columns.start + columns.stop) // 2, HEADER - 5 + lower
            draw.text(at, text, _TEXT, _font(), anchor="ms")
    body = np.array(canvas)
    for block in range(layout.columns):
        of_block = slice(block * layout.rows, (block + 1) * layout.rows)
        for column, painted in enumerate(tiles):
            _paste(body, layout, of_block.start, column, painted[of_block])
    return body, layout


def _paste(body: Canvas, layout: FilmLayout, first: int, column: int, tiles: Canvas) -> None:
    """Paste the tiles of one column of one block, all at once."""
    rows, columns = layout.frame(first, column)
    pitch = layout.tile_height + layout.gap
    below = body[rows.start : rows.start + len(tiles) * pitch, columns]
    places = below.reshape(len(tiles), pitch, *below.shape[1:])  # a view
    places[:, : layout.tile_height] = tiles.transpose(0, 2, 3, 1)


def _blocks(filters: int, strip: tuple[int, int]) -> int:
    """How many blocks side by side make a film that is about as wide as high."""

    def lopsidedness(blocks: int) -> float:
        height = ceil(filters / blocks) * strip[0]
        return abs(log(blocks * strip[1] / height))

    # No block is empty: of 5 filters in 4 blocks the last would be.
    possible = [b for b in range(1, _MOST_BLOCKS + 1) if (b - 1) * ceil(filters / b) < filters]
    return min(possible, key=lopsidedness)


def _fitted(step: str, room: int) -> str:
    """A step, with three digits and a unit if it is too long.

    Example:
        >>> _fitted("1234567", room=40)
        '1.23M'
    """
    if _length(step) <= room:
        return step
    thousands = (len(step) - 1) // 3
    return f"{int(step) / 1000**thousands:.3g}{' kMGTPE'[thousands]}"


def _length(text: str) -> int:
    return ceil(_font().getlength(text))


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_FONT_SIZE)

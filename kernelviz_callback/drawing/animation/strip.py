"""The film strip of a layer: a row for each filter, a column for each snapshot.

Source: Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, fig. 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, log, sqrt

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from kernelviz_callback.drawing.animation.caption import HEADER, Canvas, add_caption
from kernelviz_callback.drawing.animation.crop import WIDEST_ROW, Crop
from kernelviz_callback.drawing.animation.sampling import FilterSequence, SequenceScale
from kernelviz_callback.drawing.caption_layout import BACKGROUND
from kernelviz_callback.drawing.fonts import load_font, text_width
from kernelviz_callback.drawing.picture import Layout, Picture
from kernelviz_callback.drawing.tiles import paint_tiles

MOST_COLUMNS = 12  # snapshots in one film strip
MOST_BYTES = 1_000_000  # of a film strip or an animation that is logged
_BYTES_PER_PIXEL = 4  # of a noisy kernel in a PNG, at most, at any enlargement
_MOST_BLOCKS = 4  # side by side; with one block, a film of many filters would be high and narrow
_AREA = 750_000  # pixels that the tiles of a film cover, about, ...
_SMALLEST_TILE, _LARGEST_TILE = 20, 48  # pixels: ... within these heights and widths of a tile
_WIDEST_STRIP = 900  # pixels: strips of kernels such as 1x64 are not wider, ...
_FEWEST_COLUMNS = 3  # ... unless they had fewer columns
_RULE = 2  # pixels between frames; three times as much in a strip if each frame is a row
_BLOCK_GAP = 20  # pixels between blocks
_STAGGER = 12  # pixels between two lines of step numbers
_LEAST_PITCH = 12  # pixels between filter numbers
_FONT_SIZE = 11
_TEXT, _FAINT = (200, 200, 208), (150, 150, 160)


@dataclass(frozen=True)
class FilmLayout(Layout):
    """Where the strips of a film are: down one block, then down the next block beside it.

    ``columns`` is the number of blocks. A strip, which is the tile of its filter, is a row of
    frames.

    Attributes:
        frames: Number of frames in a strip, one for each snapshot.
        frame_width: Width of a frame, in pixels.
        rule: Pixels between two frames.
        block_gap: Pixels between the strips of a block and those of the next.
    """

    frames: int = 1
    frame_width: int = 1
    rule: int = _RULE
    block_gap: int = _BLOCK_GAP

    @property
    def width(self) -> int:
        """Width of the strips and the left margin."""
        return self.left + self.columns * (self.tile_width + self.block_gap) - self.block_gap

    def box(self, index: int, *, margin: int = 0) -> tuple[slice, slice]:
        """Return the rows and columns of a strip, as the index of an (H, W, 3) array."""
        block, row = divmod(index, self.rows)
        top = self.top + row * (self.tile_height + self.gap)
        left = self.left + block * (self.tile_width + self.block_gap)
        return (
            slice(top - margin, top + self.tile_height + margin),
            slice(left - margin, left + self.tile_width + margin),
        )

    def frame(self, index: int, column: int) -> tuple[slice, slice]:
        """Return the rows and columns of one frame of a strip."""
        rows, columns = self.box(index)
        left = columns.start + column * (self.frame_width + self.rule)
        return rows, slice(left, left + self.frame_width)


def film_strip(
    sequence: FilterSequence, *, scale: SequenceScale = "layer", most_columns: int = MOST_COLUMNS
) -> Picture:
    """Picture the development of each filter of a layer: when its pattern appeared or vanished.

    A row is a filter, with its number at the left. A column is a snapshot, with its step on top.
    The columns are the first snapshot, the last one, and between them steps in equal ratios,
    because early changes are large. All columns share one scale, so pale tiles have small weights.
    Kernels such as 1x64 have fewer columns, so that TensorBoard need not shrink the strip too much.
    Filters are drawn as `kernel_grid` draws them, except that a 1x1 convolution with more
    than four input channels shows only the first four. If there is no room for all slices of a 3-D
    filter, the first slices are drawn. NaN and infinity are striped magenta and black. Many rows
    are folded into blocks side by side.

    Args:
        sequence: The layer through the training.
        scale: The option of `FilterSequence.half_ranges`.
        most_columns: Number of frames that are drawn, see `choose_steps`. For kernels larger than
            144x144 there are fewer, so that the PNG is no larger than a megabyte.

    Returns:
        A picture whose tiles are the strips, its layout a `FilmLayout`.

    Example:
        >>> from torch import randn
        >>> from kernelviz_callback.drawing.animation.sampling import Reading, read_sequences
        >>> weights = randn(64, 3, 7, 7)
        >>> sequences = read_sequences(range(9), lambda s: Reading(0, {"conv": s * weights}))
        >>> picture = film_strip(sequences["conv"])
        >>> picture.layout.frames, picture.layout.rows, picture.tile(63).shape
        (9, 22, torch.Size([35, 331, 3]))
    """
    crop = sequence.crop
    fitting = max(1, MOST_BYTES // (_BYTES_PER_PIXEL * crop.pixels))
    most = min(most_columns, fitting)
    if crop.is_stretched:
        most = min(most, _legible_columns(crop, most))
    frames = sequence.thin_out(most).frames
    half_ranges = sequence.half_ranges(scale)
    zoom = _zoom(crop, len(frames))
    columns = [_paint_frame(crop, frame.weights, half_ranges, zoom) for frame in frames]
    steps = [str(frame.step) for frame in frames]
    rule = _RULE if crop.style.pictures == 1 else 3 * _RULE
    body, layout = _assemble(columns, steps, list(map(str, crop.filters)), rule)

    pixels, top, left = add_caption(
        body, sequence, "film", shown=len(frames), half_ranges=half_ranges, scale=scale
    )
    layout = replace(layout, left=layout.left + left, top=layout.top + top)
    return Picture(pixels, layout, half_ranges)


def _zoom(crop: Crop, columns: int) -> int:
    """Choose the whole factor at which the tiles cover about `_AREA`."""
    tile = sqrt(_AREA / (columns * len(crop.filters)))
    tile = min(max(tile, _SMALLEST_TILE), _LARGEST_TILE)
    pictures, width = crop.style.pictures, crop.picture_size[1]
    zoom = round(tile / sqrt(pictures) / crop.usual_side)
    return max(1, min(zoom, WIDEST_ROW // (pictures * width)))


def _legible_columns(crop: Crop, most: int) -> int:
    """Return the number of columns at which a strip of wide kernels has about `_WIDEST_STRIP`."""
    pitch = crop.style.pictures * crop.picture_size[1] * _zoom(crop, most) + _RULE
    return max(_FEWEST_COLUMNS, _WIDEST_STRIP // pitch)


def _paint_frame(crop: Crop, weights: Tensor, half_ranges: Tensor, zoom: int) -> Canvas:
    """Paint all filters of one frame: shape (filters, H, W, 3)."""
    planes = crop.to_pictures(weights, half_ranges)
    bad = ~planes.isfinite()
    painted = paint_tiles(
        planes,
        half_ranges,
        is_rgb=crop.style.is_rgb,
        zoom=zoom,
        rule=crop.style.rule,
        non_finite=bad if bad.any() else None,
    )
    return painted.numpy()


def _assemble(
    columns: Sequence[Canvas], steps: Sequence[str], labels: Sequence[str], rule: int
) -> tuple[Canvas, FilmLayout]:
    """Put frames and numbers in their places.

    Args:
        columns: The frames of each snapshot, shape (filters, H, W, 3) each.
        steps: Step of each snapshot.
        labels: Number of each filter.
        rule: Pixels between two frames of a strip.

    Returns:
        The picture without a caption, and its layout.
    """
    filters, height, width, _ = columns[0].shape
    room = max(text_width(label, _FONT_SIZE) for label in labels) + 6
    pitch = width + rule
    in_two_lines = max(text_width(step, _FONT_SIZE) for step in steps) > pitch - 3
    header = HEADER + _STAGGER * in_two_lines
    strip = len(columns) * pitch - rule
    layout = FilmLayout(
        filters=filters,
        columns=_blocks(filters, (height + _RULE, strip + room + _BLOCK_GAP)),
        tile_height=height,
        tile_width=strip,
        left=room,
        top=header,
        gap=_RULE,
        frames=len(columns),
        frame_width=width,
        rule=rule,
        block_gap=_BLOCK_GAP + room,
    )
    overhang = max(0, text_width(steps[-1], _FONT_SIZE) - width) // 2 + 1
    canvas = Image.new("RGB", (layout.width + overhang, layout.height), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    every = ceil(_LEAST_PITCH / (height + _RULE))
    for block in range(layout.columns):
        for row in range(0, min(layout.rows, filters - block * layout.rows), every):
            down, across = layout.box(block * layout.rows + row)
            at = across.start - 5, (down.start + down.stop) // 2
            draw.text(
                at, labels[block * layout.rows + row], _FAINT, load_font(_FONT_SIZE), anchor="rm"
            )
        for column, step in enumerate(steps):
            text = _shorten(step, (1 + in_two_lines) * pitch - 3)
            _, across = layout.frame(block * layout.rows, column)
            lower = _STAGGER * (column % 2) if in_two_lines else 0
            at = (across.start + across.stop) // 2, HEADER - 5 + lower
            draw.text(at, text, _TEXT, load_font(_FONT_SIZE), anchor="ms")
    body = np.array(canvas)
    for block in range(layout.columns):
        of_block = slice(block * layout.rows, (block + 1) * layout.rows)
        for column, painted in enumerate(columns):
            _paste(body, layout, of_block.start, column, painted[of_block])
    return body, layout


def _paste(body: Canvas, layout: FilmLayout, first: int, column: int, tiles: Canvas) -> None:
    """Paste the frames of one column of one block in one assignment."""
    rows, columns = layout.frame(first, column)
    pitch = layout.tile_height + layout.gap
    below = body[rows.start : rows.start + len(tiles) * pitch, columns]
    places = below.reshape(len(tiles), pitch, *below.shape[1:])  # a view
    places[:, : layout.tile_height] = tiles


def _blocks(filters: int, strip: tuple[int, int]) -> int:
    """Choose the number of blocks for a film that is about as wide as high.

    Args:
        filters: Number of strips.
        strip: Height and width of a strip with its margins, in pixels.
    """

    def distance_from_square(blocks: int) -> float:
        height = ceil(filters / blocks) * strip[0]
        return abs(log(blocks * strip[1] / height))

    # No block may be empty: with 5 filters in 4 blocks of 2, the last block would be.
    possible = [b for b in range(1, _MOST_BLOCKS + 1) if (b - 1) * ceil(filters / b) < filters]
    return min(possible, key=distance_from_square)


def _shorten(step: str, room: int) -> str:
    """Shorten a step to three digits and a unit if it is wider than ``room`` pixels.

    Example:
        >>> _shorten("1234567", room=40)
        '1.23M'
    """
    if text_width(step, _FONT_SIZE) <= room:
        return step
    thousands = (len(step) - 1) // 3
    return f"{int(step) / 1000**thousands:.3g}{' kMGTPE'[thousands]}"

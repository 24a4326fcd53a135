"""What stands around the tiles: the caption with its colour bar, and the numbers of the filters."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from kernelviz_callback.picture import Layout

BACKGROUND = (28, 28, 34)  # neither the grey of zero nor an end of a scale
_TEXT = (232, 232, 236)
_FAINT = (150, 150, 160)
_FONT_SIZE = 13
_LINE = 19
_MARGIN = 8
_NARROWEST = 420  # pixels: room to read a caption over a grid of one small tile
_BAR = (140, 11)  # width and height, pixels


def framed(
    layout: Layout, lines: Sequence[str], bar: Tensor, bar_ends: tuple[str, str]
) -> tuple[Tensor, Layout]:
    """Draw an empty picture: caption on top, filter numbers at the sides, room for the tiles.

    Args:
        layout: Of the tiles alone.
        lines: The caption; the colour bar stands before the last line. Long lines are wrapped.
        bar: The colours of the scale from its low to its high end, shape (L, 3), uint8.
        bar_ends: The numbers at the two ends of the bar.

    Returns:
        The picture, shape (H, W, 3), uint8, and the layout moved to where the tiles belong in it.
    """
    font = ImageFont.load_default(_FONT_SIZE)
    left = _MARGIN + 6 + int(font.getlength(str(layout.filters)))
    width = max(layout.width + left + _MARGIN, _NARROWEST)
    bar_room = _BAR[0] + 18 + int(sum(font.getlength(end) for end in bar_ends)) + 12
    wrapped = [part for line in lines[:-1] for part in _wrap(line, font, width - 2 * _MARGIN)]
    *above, last = [*wrapped, lines[-1]]
    beside = _wrap(last, font, width - 2 * _MARGIN - bar_room)
    caption = _MARGIN + _LINE * (len(above) + len(beside))
    placed = replace(layout, left=left, top=caption + _LINE)

    image = Image.new("RGB", (width, placed.height + _MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(image)
    for i, line in enumerate(above):
        draw.text((_MARGIN, _MARGIN - 2 + i * _LINE), line, _TEXT, font)
    y = _MARGIN - 2 + len(above) * _LINE
    _draw_bar(image, draw, bar, bar_ends, y, font)
    for i, line in enumerate(beside):
        draw.text((_MARGIN + bar_room, y + i * _LINE), line, _TEXT, font)
    _number_tiles(draw, placed, font)
    return torch.from_numpy(np.array(image)), placed


def _draw_bar(
    image: Image.Image,
    draw: ImageDraw.ImageDraw,
    bar: Tensor,
    ends: tuple[str, str],
    y: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    draw.text((_MARGIN, y), ends[0], _TEXT, font)
    x = _MARGIN + int(font.getlength(ends[0])) + 6
    strip = Image.fromarray(np.ascontiguousarray(bar.cpu().numpy()[None]))
    image.paste(strip.resize(_BAR, Image.Resampling.NEAREST), (x, y + 3))
    draw.text((x + _BAR[0] + 6, y), ends[1], _TEXT, font)


def _number_tiles(
    draw: ImageDraw.ImageDraw, layout: Layout, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> None:
    """Write the first filter of each row at the left, and "+column" above, where there is room."""
    every_row = -(-_LINE // (layout.tile_height + layout.gap))
    for row in range(0, layout.rows, every_row):
        rows, _ = layout.box(row * layout.columns)
        middle = (rows.start + rows.stop) // 2
        at = (layout.left - 6, middle)
        draw.text(at, str(row * layout.columns), _FAINT, font, anchor="rm")
    widest = font.getlength(f"+{layout.columns}") + 4
    every_column = int(-(-widest // (layout.tile_width + layout.gap)))
    for column in range(0, min(layout.columns, layout.filters), every_column):
        _, columns = layout.box(column)
        middle = (columns.start + columns.stop) // 2
        draw.text((middle, layout.top - 3), f"+{column}", _FAINT, font, anchor="ms")


def _wrap(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> list[str]:
    lines: list[str] = []
    for word in line.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines

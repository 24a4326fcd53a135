"""What stands around the tiles: the caption with its colour bar, and the numbers of the filters."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, lru_cache
from math import ceil

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
_NARROWEST = 560  # pixels: room to read a caption over a grid of one small tile
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
    left = _MARGIN + 6 + _length(str(layout.filters))
    width = max(layout.width + left + _MARGIN, _NARROWEST)
    bar_room = _BAR[0] + 30 + sum(map(_length, bar_ends))
    above = [part for line in lines[:-1] for part in _wrap(line, width - 2 * _MARGIN)]
    beside = _wrap(lines[-1], width - 2 * _MARGIN - bar_room)
    caption = _MARGIN + _LINE * (len(above) + len(beside))
    placed = replace(layout, left=left, top=caption + _LINE)

    image = _numbered(placed, width).copy()
    for i, line in enumerate(above):
        _write(image, line, _MARGIN, _MARGIN + i * _LINE)
    y = _MARGIN + len(above) * _LINE
    _draw_bar(image, bar, bar_ends, y)
    for i, line in enumerate(beside):
        _write(image, line, _MARGIN + bar_room, y + i * _LINE)
    return torch.from_numpy(np.array(image)), placed


def _draw_bar(image: Image.Image, bar: Tensor, ends: tuple[str, str], y: int) -> None:
    low, high = ends
    x = _MARGIN + _length(low) + 6
    strip = Image.fromarray(np.ascontiguousarray(bar.cpu().numpy()[None]))
    _write(image, low, _MARGIN, y)
    image.paste(strip.resize(_BAR, Image.Resampling.NEAREST), (x, y + 1))
    _write(image, high, x + _BAR[0] + 6, y)


def _write(image: Image.Image, text: str, x: int, y: int) -> None:
    image.paste(_TEXT, (x, y - 2), _drawn(text))


@lru_cache(maxsize=256)
def _drawn(text: str) -> Image.Image:
    """A line of text as a mask: most lines are the same in every snapshot of a layer."""
    mask = Image.new("L", (_length(text) + 1, _LINE))
    ImageDraw.Draw(mask).text((0, 0), text, 255, _font())
    return mask


@lru_cache(maxsize=32)
def _numbered(layout: Layout, width: int) -> Image.Image:
    """Number the tiles: the first filter of each row at the left, "+column" above.

    Numbers that would overlap are left out. The same for every snapshot of a layer, hence cached.
    """
    image = Image.new("RGB", (width, layout.height + _MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(image)
    every_row = -(-_LINE // (layout.tile_height + layout.gap))
    for row in range(0, layout.rows, every_row):
        rows, _ = layout.box(row * layout.columns)
        at = (layout.left - 6, (rows.start + rows.stop) // 2)
        draw.text(at, str(row * layout.columns), _FAINT, _font(), anchor="rm")
    widest = _length(f"+{layout.columns}") + 4
    every_column = -(-widest // (layout.tile_width + layout.gap))
    for column in range(0, layout.columns, every_column):
        _, columns = layout.box(column)
        at = ((columns.start + columns.stop) // 2, layout.top - 3)
        draw.text(at, f"+{column}", _FAINT, _font(), anchor="ms")
    return image


def _wrap(line: str, width: int) -> list[str]:
    if _length(line) <= width:
        return [line]
    lines: list[str] = []
    for word in line.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _length(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_FONT_SIZE)


@lru_cache(maxsize=1024)
def _length(text: str) -> int:
    """Width of a line of text in pixels, rounded up."""
    return ceil(_font().getlength(text))

"""The surroundings of the tiles: caption, colour bar, legend, and the numbers of the filters."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from kernelviz_callback.drawing.fonts import load_font, text_width
from kernelviz_callback.drawing.picture import Layout

BACKGROUND = (28, 28, 34)  # not a colour of zero and not an end of a scale
_TEXT = (232, 232, 236)
_FAINT = (150, 150, 160)
_FONT_SIZE = 13
_LINE = 19
_SPACE = 4  # pixels between words
_MARGIN = 8
_NARROWEST = 560  # pixels: a narrower picture has no room for a caption that can be read
_BAR = (140, 11)  # width and height, pixels
_SWATCH = 11  # side, pixels

LegendEntry: TypeAlias = tuple[tuple[int, int, int] | None, str]


def draw_caption(
    layout: Layout,
    lines: Sequence[str],
    bar: Tensor,
    bar_ends: tuple[str, str],
    legend: Sequence[LegendEntry] | None = None,
    remarks: Sequence[str] = (),
) -> tuple[Tensor, Layout]:
    """Draw a picture without its tiles: the caption on top, the filter numbers at the sides.

    Args:
        layout: Layout of the tiles alone.
        lines: Lines of the caption. The colour bar is at the left of the last line. Long lines are
            wrapped.
        bar: Colours of the scale from its low to its high end, shape (L, 3), uint8.
        bar_ends: Words at the low and at the high end of the bar.
        legend: Colours of frames and their meaning. None takes no row.
        remarks: Lines below the legend. Long lines are wrapped.

    Returns:
        The picture, shape (H, W, 3), uint8, and the layout of the tiles in this picture.
    """
    left = _MARGIN + 6 + _length(str(layout.filters))
    width = max(layout.width + left + _MARGIN, _NARROWEST)
    bar_room = _BAR[0] + 30 + sum(map(_length, bar_ends))
    above = [part for line in lines[:-1] for part in _wrap(line, width - 2 * _MARGIN)]
    beside = _wrap(lines[-1], width - 2 * _MARGIN - bar_room)
    rows = [] if legend is None else _legend_rows(legend, width - 2 * _MARGIN)
    rows += [[(None, part)] for line in remarks for part in _wrap(line, width - 2 * _MARGIN)]
    caption = _MARGIN + _LINE * (len(above) + len(beside) + len(rows))
    placed = replace(layout, left=left, top=caption + _LINE)

    above_tiles, beside_tiles = _numbers(placed, width)
    top = above_tiles.copy()
    for i, line in enumerate(above):
        _write(top, line, _MARGIN, _MARGIN + i * _LINE)
    y = _MARGIN + len(above) * _LINE
    _draw_bar(top, bar, bar_ends, y)
    for i, line in enumerate(beside):
        _write(top, line, _MARGIN + bar_room, y + i * _LINE)
    for i, entries in enumerate(rows):
        _draw_legend(top, entries, y + (len(beside) + i) * _LINE)
    row = torch.tensor(BACKGROUND, dtype=torch.uint8, device="cpu").repeat(width, 1)
    pixels = row.expand(placed.height + _MARGIN, -1, -1).contiguous()
    pixels[: placed.top] = torch.from_numpy(np.array(top))
    pixels[placed.top : placed.height, :left] = torch.from_numpy(np.array(beside_tiles))
    return pixels, placed


def _draw_bar(image: Image.Image, bar: Tensor, ends: tuple[str, str], y: int) -> None:
    low, high = ends
    x = _MARGIN + _length(low) + 6
    strip = Image.fromarray(np.ascontiguousarray(bar.cpu().numpy()[None]))
    _write(image, low, _MARGIN, y)
    image.paste(strip.resize(_BAR, Image.Resampling.NEAREST), (x, y + 1))
    _write(image, high, x + _BAR[0] + 6, y)


def _legend_rows(legend: Sequence[LegendEntry], width: int) -> list[list[LegendEntry]]:
    rows: list[list[LegendEntry]] = [[]]
    used = 0
    for colour, text in legend:
        needed = _entry_width(text)
        if rows[-1] and used + needed > width:
            rows.append([])
            used = 0
        rows[-1].append((colour, text))
        used += needed
    return rows


def _draw_legend(image: Image.Image, entries: Sequence[LegendEntry], y: int) -> None:
    x = _MARGIN
    for colour, text in entries:
        if colour is not None:
            # A frame, drawn like the frame around a tile.
            ImageDraw.Draw(image).rectangle(
                (x, y + 1, x + _SWATCH - 1, y + _SWATCH), outline=colour, width=3
            )
            _write(image, text, x + _SWATCH + 6, y)
        else:
            _write(image, text, x, y)
        x += _entry_width(text)


def _entry_width(text: str) -> int:
    return _SWATCH + 6 + _length(text) + 18


def _write(image: Image.Image, text: str, x: int, y: int) -> None:
    for phrase in _phrases(text):
        image.paste(_TEXT, (x, y - 2), _mask(phrase))
        x += _length(phrase) + _SPACE


def _phrases(text: str) -> list[str]:
    """Divide a line into its numbers and what is between them. Snapshots differ in numbers only."""
    phrases: list[str] = []
    joins = False
    for word in text.split(" "):
        is_number = any(map(str.isdigit, word))
        if joins and not is_number:
            phrases[-1] += f" {word}"
        else:
            phrases.append(word)
        joins = not is_number
    return phrases


@lru_cache(maxsize=512)
def _mask(phrase: str) -> Image.Image:
    """Draw words as a mask. Cached: drawing is slow, and snapshots share most of their phrases."""
    mask = Image.new("L", (_length(phrase) + 1, _LINE))
    draw, x = ImageDraw.Draw(mask), 0
    for word in phrase.split(" "):
        draw.text((x, 0), word, 255, load_font(_FONT_SIZE))
        x += _word_length(word) + _SPACE
    return mask


@lru_cache(maxsize=32)
def _numbers(layout: Layout, width: int) -> tuple[Image.Image, Image.Image]:
    """Number the tiles: "+column" above them, and the first filter of each row at the left.

    Numbers that would overlap are left out. Cached, because all snapshots of a layer have the same.
    """
    top = Image.new("RGB", (width, layout.top), BACKGROUND)
    draw = ImageDraw.Draw(top)
    widest = _length(f"+{layout.columns}") + 4
    every_column = -(-widest // (layout.tile_width + layout.gap))
    for column in range(0, layout.columns, every_column):
        _, columns = layout.box(column)
        at = ((columns.start + columns.stop) // 2, layout.top - 3)
        draw.text(at, f"+{column}", _FAINT, load_font(_FONT_SIZE), anchor="ms")

    side = Image.new("RGB", (layout.left, layout.height - layout.top), BACKGROUND)
    draw = ImageDraw.Draw(side)
    every_row = -(-_LINE // (layout.tile_height + layout.gap))
    for row in range(0, layout.rows, every_row):
        rows, _ = layout.box(row * layout.columns)
        at = (layout.left - 6, (rows.start + rows.stop) // 2 - layout.top)
        draw.text(at, str(row * layout.columns), _FAINT, load_font(_FONT_SIZE), anchor="rm")
    return top, side


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


def _length(text: str) -> int:
    """Width of a line of text, in pixels."""
    words = text.split(" ")
    return sum(map(_word_length, words)) + _SPACE * (len(words) - 1)


@lru_cache(maxsize=1024)
def _word_length(word: str) -> int:
    return text_width(word, _FONT_SIZE)

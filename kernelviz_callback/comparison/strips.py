"""Strips: each filter of a layer in several checkpoints side by side, and their difference."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from string import ascii_uppercase
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from kernelviz_callback.comparison.shared_plane import mix_channels
from kernelviz_callback.drawing.arrangement import square_columns
from kernelviz_callback.drawing.caption_layout import BACKGROUND, draw_caption
from kernelviz_callback.drawing.caption_text import kernel_note
from kernelviz_callback.drawing.cells import stretch, stretch_note, usual_side
from kernelviz_callback.drawing.curves import curve_width, draw_curves
from kernelviz_callback.drawing.picture import Layout, Picture
from kernelviz_callback.drawing.tile_style import TileStyle, colour_bar, tile_style
from kernelviz_callback.drawing.tiles import paint_tiles
from kernelviz_callback.filters.measures import largest_magnitude
from kernelviz_callback.filters.planes import MOST_CHANNELS, as_planes, why_no_image
from kernelviz_callback.filters.responses import channel_responses, response_size, summed_responses
from kernelviz_callback.filters.words import count_filters
from kernelviz_callback.model.convolutions import Geometry
from kernelviz_callback.probe.probe import Probe

StripScale: TypeAlias = Literal["layer", "filter"]

# The largest number of filters in one picture. Of more filters, those that changed most are drawn.
MOST_STRIPS = 256
_KERNEL_SIDE = 49  # a kernel is enlarged to about this many pixels on each side
_CURVE_HEIGHT = 48  # pixels
_RESPONSE_SIDE = 96  # a response is shrunk to about this many pixels on its longer side
_GAP = 10  # pixels between strips
_RULE = 2  # pixels between the tiles of a strip
_WIDE_RULE = 6  # pixels between the tiles of a strip if each tile is a row of pictures
_HEADER = 19  # height in pixels of the line of letters above the strips
_TEXT = (200, 200, 208)


@dataclass(frozen=True, eq=False)
class StripColumn:
    """One checkpoint of a picture of strips.

    Attributes:
        label: Name of the checkpoint.
        values: Weights or responses of the filters that are drawn, shape (N, C, ...). They have the
            order of the filters in the first checkpoint. NaN for a filter without a partner.
    """

    label: str
    values: Tensor


class _Place(NamedTuple):
    """What one place of each strip shows: a checkpoint, or the difference of two.

    Attributes:
        letter: Name of the place in the line above the strips.
        values: Weights or responses that are drawn there, shape (N, C, ...).
    """

    letter: str
    values: Tensor


def draw_strips(
    columns: Sequence[StripColumn],
    *,
    title: str,
    filters: Sequence[int],
    partners: Sequence[int],
    shape: Sequence[int],
    scale: StripScale = "layer",
    responses_to: str | None = None,
    hidden: int = 0,
) -> Picture:
    """Draw a strip for each filter: its tile in each checkpoint, then the last minus the first.

    Args:
        columns: The checkpoints, in their order.
        title: Name of the layer.
        filters: Numbers of the filters that are drawn, in the first checkpoint.
        partners: For every filter of the first checkpoint, drawn or not, the number of its partner
            in the last checkpoint; -1 without a partner.
        shape: Shape of the weights of the layer in the first checkpoint.
        scale: Which magnitude the ends of the colour scale have: "layer" for the largest one in all
            tiles, "filter" for the largest one in the strip of each filter.
        responses_to: Name of the probe if the values are responses to it; None for weights.
        hidden: Number of checkpoints between the first and the last that are not drawn.
    """
    values = [column.values for column in columns]
    mixed = mix_channels(values) if responses_to is None else None
    letters = ascii_uppercase[: len(columns)]
    drawn = mixed.layers if mixed else values
    places = [_Place(*place) for place in zip(letters, drawn, strict=True)]
    first, last = places[0], places[-1]
    if values[0].shape == values[-1].shape:
        places.append(_Place(f"{last.letter}-{first.letter}", last.values - first.values))
    half_ranges = torch.stack([largest_magnitude(p.values.nan_to_num(0.0)) for p in places]).amax(0)
    if scale == "layer":
        half_ranges = half_ranges.amax().expand(len(filters))
    paint = _paint_kernels if responses_to is None else _paint_responses
    painted = [paint(place.values, half_ranges) for place in places]
    labels = [_strip_label(i, partners[i]) for i in filters]
    style = _style(first.values)
    strips, starts = _join_tiles(painted, labels, _WIDE_RULE if style.pictures > 1 else _RULE)
    count, height, width, _ = strips.shape
    across = square_columns(count, height + _GAP, width + _GAP)
    layout = Layout(count, across, height, width, gap=_GAP)
    what = "kernels" if responses_to is None else f"responses to {responses_to}"
    lines = _caption_lines(f"{title} {what}", columns, first.values, shape, hidden)
    if mixed is not None:
        stretched = None if style.is_curve else stretch_note(*as_planes(first.values).shape[2:])
        lines += [note for note in (mixed.note(last.letter), stretched) if note is not None]
    if any(partner != i for i, partner in enumerate(partners)):
        lines.append(f"i:j is filter i of A and its partner j in {last.letter}")
    scale_line, bar_ends = _scale_note(half_ranges, scale)
    pixels, layout = draw_caption(layout, [*lines, scale_line], colour_bar(style), bar_ends)
    _clear_numbers(pixels, layout)
    for i, strip in enumerate(strips):
        pixels[layout.box(i)] = strip
    names = [place.letter for place in places]
    _write_header(pixels, layout, names, starts, [tiles.shape[2] for tiles in painted])
    return Picture(pixels, layout, half_ranges)


def strip_responses(
    weights: Tensor, partners: Tensor, geometry: Geometry, probe: Probe, *, label: str
) -> Tensor:
    """Compute the responses of a checkpoint's filters, shrunk to the size of a strip's tiles.

    Args:
        weights: Weights of the layer, shape (M, C, kH, kW).
        partners: For each filter of the first checkpoint, the number of its partner in this one; -1
            without a partner. Shape (N,).
        geometry: Dilation and groups of the layer.
        probe: The image.
        label: Name of the checkpoint in the error message.

    Returns:
        Shape (N, planes, H, W), NaN for a filter without a partner.

    Raises:
        ValueError: If the layer is 1-D or 3-D: its filters have no response to a single image.
    """
    reason = why_no_image(weights.shape)
    if reason is not None:
        raise ValueError(f"{label} has no responses: {reason}")
    _, channels, height, width = weights.shape
    probe = probe.covering((height, width), geometry.plane_dilation)
    full = response_size(probe.size, (height, width), geometry.plane_dilation)
    respond = channel_responses if channels == 3 and geometry.groups == 1 else summed_responses
    own = respond(
        probe.for_channels(channels * geometry.groups),
        weights,
        dilation=geometry.plane_dilation,
        groups=geometry.groups,
        shrink=max(1, round(max(full) / _RESPONSE_SIDE)),
    )
    ordered = own[partners.clamp(min=0)]
    return ordered.masked_fill((partners < 0)[:, None, None, None], torch.nan)


def _style(values: Tensor) -> TileStyle:
    """Return how values are drawn. Of more than four channels, only the first four are drawn."""
    count, channels, *size = values.shape
    return tile_style((count, min(channels, MOST_CHANNELS), *size))


def _paint_kernels(values: Tensor, half_ranges: Tensor) -> Tensor:
    """Paint the kernels of one place, enlarged to about 49 pixels: (N, H, W, 3), uint8."""
    style = _style(values)
    shown = values[:, : style.channels]
    if style.is_curve:
        width = curve_width(values.shape[2], _CURVE_HEIGHT)
        curves = draw_curves(shown, half_ranges, height=_CURVE_HEIGHT, width=width)
        return _paint(curves, half_ranges, style, zoom=1)
    planes = as_planes(shown)
    slices = planes.shape[1] // style.channels
    zoom = max(1, round(_KERNEL_SIDE / sqrt(slices) / usual_side(*planes.shape[2:])))
    return _paint(stretch(planes), half_ranges, style, zoom)


def _paint_responses(values: Tensor, half_ranges: Tensor) -> Tensor:
    """Paint the responses of one place, enlarged to about 96 pixels: (N, H, W, 3), uint8."""
    style = _style(values)
    zoom = max(1, round(_RESPONSE_SIDE / max(values.shape[2:])))
    return _paint(values[:, : style.channels], half_ranges, style, zoom)


def _paint(drawn: Tensor, half_ranges: Tensor, style: TileStyle, zoom: int) -> Tensor:
    bad = ~drawn.isfinite()
    return paint_tiles(
        drawn,
        half_ranges,
        is_rgb=style.is_rgb,
        zoom=zoom,
        non_finite=bad if bad.any() else None,
    )


def _strip_label(index: int, partner: int) -> str:
    return str(index) if partner == index else f"{index}:{partner if partner >= 0 else '-'}"


def _join_tiles(
    painted: Sequence[Tensor], labels: Sequence[str], rule: int
) -> tuple[Tensor, list[int]]:
    """Put the number and the tiles of each strip in a row.

    Args:
        painted: The tiles of each column, shape (N, H, W, 3) each.
        labels: The number of each strip.
        rule: Pixels after each tile.

    Returns:
        The strips, shape (N, H, W, 3), and the left edge of each column in a strip.
    """
    font = ImageFont.load_default(12)
    room = ceil(max(font.getlength(label) for label in labels)) + 6
    height = max(max(tiles.shape[1] for tiles in painted), 14)
    starts, width = [], room
    for tiles in painted:
        starts.append(width)
        width += tiles.shape[2] + rule
    strips = torch.tensor(BACKGROUND, dtype=torch.uint8, device="cpu").repeat(
        len(labels), height, width, 1
    )
    for tiles, start in zip(painted, starts, strict=True):
        top = (height - tiles.shape[1]) // 2
        at = slice(top, top + tiles.shape[1]), slice(start, start + tiles.shape[2])
        strips[:, at[0], at[1]] = tiles
    for strip, label in zip(strips, labels, strict=True):
        number = Image.new("RGB", (room, height), BACKGROUND)
        ImageDraw.Draw(number).text((room - 4, height // 2), label, _TEXT, font, anchor="rm")
        strip[:, :room] = torch.from_numpy(np.array(number))
    return strips, starts


def _clear_numbers(pixels: Tensor, layout: Layout) -> None:
    """Erase the numbers above and beside the grid, because each strip has its own number."""
    background = pixels.new_tensor(BACKGROUND)
    pixels[layout.top - _HEADER : layout.top] = background
    pixels[layout.top :, : layout.left] = background


def _write_header(
    pixels: Tensor,
    layout: Layout,
    letters: Sequence[str],
    starts: Sequence[int],
    widths: Sequence[int],
) -> None:
    header = Image.new("RGB", (pixels.shape[1], _HEADER), BACKGROUND)
    draw = ImageDraw.Draw(header)
    for column in range(layout.columns):
        left = layout.box(column)[1].start
        for letter, start, width in zip(letters, starts, widths, strict=True):
            at = (left + start + width // 2, _HEADER - 4)
            draw.text(at, letter, _TEXT, ImageFont.load_default(12), anchor="ms")
    pixels[layout.top - _HEADER : layout.top] = torch.from_numpy(np.array(header))


def _caption_lines(
    title: str,
    columns: Sequence[StripColumn],
    drawn: Tensor,
    shape: Sequence[int],
    hidden: int,
) -> list[str]:
    """Write the lines about the layer, about the checkpoints, and about how to read a tile.

    Args:
        title: What the picture shows.
        columns: The checkpoints.
        drawn: What the first place shows, all channels.
        shape: Shape of the weights of the layer in the first checkpoint.
        hidden: Number of checkpoints that are not drawn.
    """
    count, channels, *size = drawn.shape
    total, *filter_shape = shape
    some = count_filters(count)
    if count < total:
        some = f"the {count} of {count_filters(total)} that changed most"
    letters = zip(ascii_uppercase, columns, strict=False)
    lines = [
        f"{title} · {some} {'x'.join(map(str, filter_shape))}",
        " · ".join(f"{letter} = {column.label}" for letter, column in letters),
    ]
    if hidden:
        lines.append(f"{hidden} checkpoints between them are not shown")
    style = _style(drawn)
    if len(size) != 2:
        lines.append(kernel_note(style, style.channels * (style.slices or 1)))
    if channels not in (1, 3) and (len(size) == 2 or style.channels < channels):
        lines.append(f"each tile: input channels 0 to {style.channels - 1} of {channels}")
    return lines


def _scale_note(half_ranges: Tensor, scale: StripScale) -> tuple[str, tuple[str, str]]:
    """Write the line beside the colour bar, and the words at the bar's ends."""
    high, low = half_ranges.max().item(), half_ranges.min().item()
    if scale == "layer":
        return "one scale for all tiles; zero in the middle", (f"-{high:.3g}", f"+{high:.3g}")
    note = f"each strip by its own largest magnitude, max = {low:.3g} to {high:.3g}"
    return note, ("-max", "+max")

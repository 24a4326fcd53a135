"""Checkpoints beside each other: a strip of tiles a filter, and in its last tile the difference."""

from collections.abc import Sequence
from math import ceil, sqrt
from string import ascii_uppercase
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from kernelviz_callback.comparison.comparison import Column, Comparison
from kernelviz_callback.comparison.shared_plane import mix_channels
from kernelviz_callback.drawing.caption import BACKGROUND, framed
from kernelviz_callback.drawing.colour import diverging
from kernelviz_callback.drawing.curves import curve_width, draw_curves
from kernelviz_callback.drawing.notes import kernel_note
from kernelviz_callback.drawing.picture import Layout, Picture
from kernelviz_callback.drawing.tiles import paint_tiles
from kernelviz_callback.filters.measures import largest_magnitude
from kernelviz_callback.filters.planes import MOST_CHANNELS, as_planes, why_no_image
from kernelviz_callback.filters.responses import channel_responses, response_size, summed_responses
from kernelviz_callback.probe.probe import Probe

StripScale: TypeAlias = Literal["layer", "filter"]

MOST_STRIPS = 256  # filters in one picture; of more, those that changed most
_KERNEL_SIDE = 49  # pixels that a kernel is enlarged to, about
_CURVE_HEIGHT = 48  # pixels
_RESPONSE_SIDE = 96  # pixels that a response is shrunk to, about
_GAP = 10  # pixels between strips
_RULE = 2  # pixels between the tiles of a strip, ...
_WIDE_RULE = 6  # ... if each is a row of curves or slices
_HEADER = 19  # pixels: the letters above the strips
_TEXT = (200, 200, 208)


class _Tiles(NamedTuple):
    """What stands in one place of every strip."""

    letter: str
    values: Tensor


def comparison_picture(
    comparison: Comparison, *, scale: StripScale = "layer", responses_to: Probe | None = None
) -> Picture:
    """Picture each filter in all checkpoints, side by side: what grew, faded, turned or stayed.

    A strip is one filter, its number (and where it differs that of its partner in the last
    checkpoint) at its left. From left to right: the checkpoints A, B, ..., then the last minus the
    first. Zero is grey (or white, where red is positive and blue negative), and one scale holds for
    all tiles of a strip, the difference too: what looks weak is weak. The kernels of a 1-D layer
    are curves, those of a 3-D layer stand slice by slice in a row. Of more than four input channels
    a tile is one mixture, see `mix_channels`.

    Args:
        comparison: Of which the pictured checkpoints are shown.
        scale: "layer", the largest magnitude of all tiles; "filter", that of each strip.
        responses_to: Show what the filters make of this probe instead of their weights.

    Returns:
        A picture whose tiles are the strips, in the order of the first checkpoint's filters. Of
        more than 256 only those that changed most.

    Raises:
        ValueError: If responses are asked for of filters that respond to no image.
    """
    shown = [c for c in comparison.columns if c.weights is not None]
    chosen = sorted(comparison.most_changed()[:MOST_STRIPS])
    values = [_values(column, responses_to)[chosen] for column in shown]
    mixed = mix_channels(values) if responses_to is None else None
    places = [
        _Tiles(letter, drawn)
        for letter, drawn in zip(
            _letters(len(shown)), mixed.layers if mixed else values, strict=True
        )
    ]
    first, last = places[0], places[-1]
    if values[0].shape == values[-1].shape:
        places.append(_Tiles(f"{last.letter}-{first.letter}", last.values - first.values))
    half_ranges = torch.stack([largest_magnitude(p.values.nan_to_num(0.0)) for p in places]).amax(0)
    if scale == "layer":
        half_ranges = half_ranges.amax().expand(len(chosen))
    target = _RESPONSE_SIDE if responses_to else _KERNEL_SIDE
    painted = [_painted(place.values, half_ranges, target) for place in places]
    labels = [_label(comparison, i) for i in chosen]
    is_row = first.values.ndim == 5 or (first.values.ndim == 3 and first.values.shape[1] > 1)
    strips, starts = _strips(painted, labels, _WIDE_RULE if is_row else _RULE)
    count, height, width, _ = strips.shape
    columns = min(count, max(1, ceil(sqrt(count * (height + _GAP) / (width + _GAP)) - 1e-9)))
    layout = Layout(count, columns, height, width, gap=_GAP)
    is_rgb = _is_rgb(first.values)
    ramp = torch.arange(1, 256, dtype=torch.uint8)
    bar = ramp[:, None].expand(-1, 3) if is_rgb else diverging(ramp[None])[:, 0].T
    note = mixed.note(last.letter) if mixed else None
    lines, ends = _caption(comparison, shown, places, half_ranges, scale, responses_to, note)
    pixels, layout = framed(layout, lines, bar, ends)
    _clear_numbers(pixels, layout)
    for i, strip in enumerate(strips):
        pixels[layout.box(i)] = strip
    letters = [place.letter for place in places]
    _write_header(pixels, layout, letters, starts, [p.shape[3] for p in painted])
    return Picture(pixels, layout, half_ranges)


def _letters(count: int) -> Sequence[str]:
    return ascii_uppercase[:count]


def _values(column: Column, probe: Probe | None) -> Tensor:
    """The weights of a checkpoint, or its responses, in the order of the first's filters."""
    weights = column.matched_weights()
    assert weights is not None
    if probe is None:
        return weights
    reason = why_no_image(column.shape)
    if reason is not None:
        raise ValueError(f"{column.label} has no responses: {reason}")
    geometry, (_, channels, height, width) = column.geometry, column.shape
    full = response_size(probe.size, (height, width), geometry.plane_dilation)
    respond = channel_responses if channels == 3 and geometry.groups == 1 else summed_responses
    own = respond(
        probe.for_channels(channels * geometry.groups),
        column.weights,  # type: ignore[arg-type]
        dilation=geometry.plane_dilation,
        groups=geometry.groups,
        shrink=max(1, round(max(full) / _RESPONSE_SIDE)),
    )
    ordered = own[column.partner.clamp(min=0)]
    return ordered.masked_fill((column.partner < 0)[:, None, None, None], torch.nan)


def _painted(values: Tensor, half_ranges: Tensor, target: int) -> Tensor:
    """Shape (N, 3, H, W), uint8."""
    shown = values[:, :MOST_CHANNELS]
    if values.ndim == 3:
        width = curve_width(values.shape[2], _CURVE_HEIGHT)
        drawn, zoom = draw_curves(shown, half_ranges, height=_CURVE_HEIGHT, width=width), 1
    else:
        drawn = as_planes(shown)
        beside = drawn.shape[1] // shown.shape[1]
        zoom = max(1, round(target / sqrt(beside) / max(drawn.shape[2:])))
    bad = ~drawn.isfinite()
    return paint_tiles(
        drawn,
        half_ranges,
        is_rgb=_is_rgb(values),
        zoom=zoom,
        non_finite=bad if bad.any() else None,
    )


def _is_rgb(values: Tensor) -> bool:
    return values.shape[1] == 3 and values.ndim > 3


def _label(comparison: Comparison, index: int) -> str:
    partner = int(comparison.last.partner[index])
    return str(index) if partner == index else f"{index}:{partner if partner >= 0 else '-'}"


def _strips(
    painted: Sequence[Tensor], labels: Sequence[str], rule: int
) -> tuple[Tensor, list[int]]:
    """Put number and tiles in a row: (N, H, W, 3), and where each tile begins."""
    font = ImageFont.load_default(12)
    room = ceil(max(font.getlength(label) for label in labels)) + 6
    height = max(max(tiles.shape[2] for tiles in painted), 14)
    starts, width = [], room
    for tiles in painted:
        starts.append(width)
        width += tiles.shape[3] + rule
    strips = torch.tensor(BACKGROUND, dtype=torch.uint8).repeat(len(labels), height, width, 1)
    for tiles, start in zip(painted, starts, strict=True):
        top = (height - tiles.shape[2]) // 2
        at = slice(top, top + tiles.shape[2]), slice(start, start + tiles.shape[3])
        strips[:, at[0], at[1]] = tiles.permute(0, 2, 3, 1)
    for strip, label in zip(strips, labels, strict=True):
        number = Image.new("RGB", (room, height), BACKGROUND)
        ImageDraw.Draw(number).text((room - 4, height // 2), label, _TEXT, font, anchor="rm")
        strip[:, :room] = torch.from_numpy(np.array(number))
    return strips, starts


def _clear_numbers(pixels: Tensor, layout: Layout) -> None:
    """Tiles of a grid are numbered at its sides; strips have their numbers in them."""
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


def _caption(
    comparison: Comparison,
    shown: Sequence[Column],
    places: Sequence[_Tiles],
    half_ranges: Tensor,
    scale: StripScale,
    probe: Probe | None,
    note: str | None,
) -> tuple[list[str], tuple[str, str]]:
    first, count = comparison.first, len(half_ranges)
    what = f"responses to {probe.name}" if probe else "kernels"
    total = first.shape[0]
    some = (
        f"the {count} of {total} filters that changed most" if count < total else f"{count} filters"
    )
    lines = [f"{first.layer} {what} · {some} {'x'.join(map(str, first.shape[1:]))}"]
    letters = zip(_letters(len(shown)), shown, strict=True)
    lines.append(" · ".join(f"{letter} = {column.label}" for letter, column in letters))
    hidden = len(comparison.columns) - len(shown)
    if hidden:
        lines.append(f"{hidden} checkpoints between them are not shown")
    _, channels, *kernel = places[0].values.shape
    drawn = min(channels, MOST_CHANNELS)
    if len(kernel) != 2:
        slices = kernel[0] if len(kernel) == 3 else 1
        lines.append(kernel_note((count, drawn, *kernel), drawn * slices))
    if channels not in (1, 3) and (len(kernel) == 2 or drawn < channels):
        lines.append(f"each tile: input channels 0 to {drawn - 1} of {channels}")
    if note is not None:
        lines.append(note)
    if any(int(p) != i for i, p in enumerate(comparison.last.partner.tolist())):
        lines.append(f"i:j is filter i of A and its partner j in {places[len(shown) - 1].letter}")
    high = half_ranges.max().item()
    if scale == "layer":
        return [*lines, "one scale for all tiles; zero in the middle"], (
            f"-{high:.3g}",
            f"+{high:.3g}",
        )
    low = half_ranges.min().item()
    return [
        *lines,
        f"each strip by its own largest magnitude, max = {low:.3g} to {high:.3g}",
    ], ("-max", "+max")

"""A comparison as one HTML page: a file that holds everything it shows and needs no network."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod, sqrt
from string import Template
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kernelviz_callback.comparison.comparison import FILTER_NUMBERS, Column, Comparison, Likeness
from kernelviz_callback.comparison.shared_plane import mix_channels
from kernelviz_callback.drawing.cells import stretch_note, stretched_size
from kernelviz_callback.drawing.colour import ZERO_LEVEL, to_levels
from kernelviz_callback.drawing.curves import curve_width
from kernelviz_callback.drawing.tile_style import tile_style
from kernelviz_callback.filters.measures import largest_magnitude
from kernelviz_callback.filters.planes import as_planes
from kernelviz_callback.filters.words import count_filters
from kernelviz_callback.health.kernel_health import or_none
from kernelviz_callback.health.verdict_names import VERDICT_COLOURS, VERDICT_NAMES
from kernelviz_callback.html_page import (
    as_base64,
    as_script_data,
    bundled_modules,
    package_text,
    whole_page,
)

# A tile shows at most so many channels of a filter.
MOST_CHANNELS = 16
# Weights in a page; each takes about 1.6 bytes.
MOST_WEIGHTS = 1_500_000
# Digits of the numbers of a filter, and of the magnitude at the ends of a tile's colours.
_NUMBER_DIGITS = 4
_RANGE_DIGITS = 7
_THEME = "tensorboard_plugin/static/theme.css"
_NOT_FINITE_LEVEL = 0
_MOST_STACKED = 4  # curves of one filter, below each other
_CURVE_HEIGHT = 96  # pixels


def comparison_page(comparison: Comparison) -> str:
    """Show what changed as a page to read, sort and search: filters, numbers and curves.

    Returns:
        HTML that needs no network and no other file. It holds the weights with 8 bits. In a layer
        with more than `MOST_WEIGHTS` weights, only the filters that changed most have tiles, and
        the page says so.

    Example:
        >>> from torch import nn
        >>> from kernelviz_callback.comparison.compare import compare
        >>> page = comparison_page(compare(nn.Conv2d(3, 8, 5), nn.Conv2d(3, 8, 5)))
        >>> page.splitlines()[0]
        '<!doctype html>'
    """
    body = Template(package_text("comparison/page.html"))
    return whole_page(
        body.substitute(data=as_script_data(_page_data(comparison))),
        title=f"{comparison.first.layer} in {len(comparison.columns)} checkpoints",
        style=package_text(_THEME) + package_text("comparison/page.css"),
        script=bundled_modules("comparison/page.js"),
        sources="img-src data:",
    )


def _page_data(comparison: Comparison) -> dict[str, Any]:
    order = comparison.most_changed()
    pictured = [i for i, c in enumerate(comparison.columns) if c.weights is not None]
    plates, tiled, notes = _plates(comparison, pictured, order)
    return {
        "layer": comparison.first.layer,
        "statements": list(comparison.statements),
        "checkpoints": [_checkpoint(comparison, c) for c in comparison.columns],
        "order": order,
        "tiled": tiled,
        "plates": plates,
        "notes": notes,
        "verdict_names": list(VERDICT_NAMES),
        "verdict_colours": VERDICT_COLOURS,
    }


def _checkpoint(comparison: Comparison, column: Column) -> dict[str, Any]:
    """Describe a checkpoint. Without tiles it has only the filter numbers that the chart needs."""
    is_end = column in (comparison.first, comparison.last)
    has_tiles = column.weights is not None
    names = FILTER_NUMBERS if is_end or has_tiles else ("change_from_first",)
    numbers = {name: _rounded(getattr(column, name)) for name in (*names, "correlation")}
    counts = {name: len(column.health.flagged(name)) for name in VERDICT_NAMES}
    return {
        "name": column.name,
        "label": column.label,
        "layer": column.layer,
        "step": column.step,
        "epoch": column.epoch,
        "shape": column.shape,
        "match": column.match,
        "partner": None if column.match == "index" else column.partner.tolist(),
        "numbers": {n: or_none(x) for n, x in comparison.numbers(column).items()},
        "verdict_counts": counts,
        "weights_alike": _likeness(column.weights_alike),
        "responses_alike": _likeness(column.responses_alike),
        "filters": numbers | {"norm": _rounded(_partner_norms(column))},
        "verdicts": _verdicts(column, with_reasons=is_end),
    }


def _verdicts(column: Column, *, with_reasons: bool) -> list[list[Any]]:
    """List verdicts by filter of the first checkpoint: [filter, index of the name, reason]."""
    filter_of = {p: i for i, p in enumerate(column.partner.tolist()) if p >= 0}
    return [
        [
            filter_of[verdict.filter],
            VERDICT_NAMES.index(verdict.name),
            *([verdict.reason] if with_reasons else []),
        ]
        for verdict in column.health.verdicts
        if verdict.filter in filter_of
    ]


def _partner_norms(column: Column) -> Tensor:
    norms = column.health.filters.norm[column.partner.clamp(min=0)]
    return norms.masked_fill(column.partner < 0, torch.nan)


def _plates(
    comparison: Comparison, pictured: Sequence[int], order: Sequence[int]
) -> tuple[list[dict[str, Any]], int, list[str]]:
    """Make the tiles of each pictured checkpoint, and of the last minus the first.

    Args:
        comparison: The comparison.
        pictured: Indices of the checkpoints with weights.
        order: All filters, most changed first.

    Returns:
        The plates; how many filters of ``order`` have tiles; and notes about what was left out.
    """
    notes = _notes(comparison, pictured)
    layers = [
        weights for weights in map(_matched_weights, comparison.columns) if weights is not None
    ]
    if not layers:
        return [], 0, notes
    has_difference = layers[0].shape == layers[-1].shape and len(layers) > 1
    mixed = mix_channels(layers)
    layers = mixed.layers
    first, last = layers[0], layers[-1]
    difference = last - first if has_difference else None
    drawn = layers if difference is None else [*layers, difference]
    # The height of a curve is compared before its colour, so its difference has the same scale.
    is_curve = tile_style(first.shape, "all").is_curve
    sharing = drawn if is_curve else layers
    half_range = max(largest_magnitude(weights).amax().item() for weights in sharing)

    room = MOST_WEIGHTS // sum(prod(w.shape[2:]) for w in drawn)
    channels = [_shown_channels(w, room // len(order)) for w in drawn]
    area = sum(c * prod(w.shape[2:]) for c, w in zip(channels, drawn, strict=True))
    tiled = min(len(order), max(1, MOST_WEIGHTS // area))
    kept = torch.tensor(order[:tiled], device="cpu", dtype=torch.long)
    plates = [
        {"checkpoint": index, "mixed": mixes, **_plate(weights[kept], shown, half_range)}
        for index, weights, mixes, shown in zip(
            pictured, layers, mixed.counts, channels, strict=False
        )
    ]
    if difference is not None:
        largest = half_range if is_curve else largest_magnitude(difference).amax().item()
        plate = _plate(difference[kept], channels[-1], largest)
        plates.append({"checkpoint": None, "mixed": mixed.counts[-1], **plate})
    note = mixed.note(comparison.columns[pictured[-1]].label)
    stretched = None if is_curve else stretch_note(*as_planes(first).shape[2:])
    notes += [f"{text[0].upper()}{text[1:]}." for text in (note, stretched) if text is not None]
    fewest = min(zip(channels, (w.shape[1] for w in drawn), strict=True), key=lambda c: c[0] - c[1])
    if fewest[0] < fewest[1]:
        notes.append(f"Of {fewest[1]} input channels, tiles show the first {fewest[0]}.")
    if tiled < len(order):
        notes.append(
            f"Only the {count_filters(tiled)} that changed most "
            f"{'has a tile' if tiled == 1 else 'have tiles'}, to keep this file small; "
            f"all {len(order)} have numbers."
        )
    return plates, tiled, notes


def _notes(comparison: Comparison, pictured: Sequence[int]) -> list[str]:
    count = len(comparison.columns)
    notes = []
    if len(pictured) < count:
        notes.append(f"{len(pictured)} of {count} checkpoints are pictured; all are in the curve.")
    if pictured and pictured[-1] != count - 1:
        shown = comparison.columns[pictured[-1]].label
        notes.append(f"The last that is pictured is {shown}; the difference is to that.")
    return notes


def _matched_weights(column: Column) -> Tensor | None:
    weights = column.matched_weights()
    return None if weights is None else weights.detach().cpu().float()


@dataclass(frozen=True)
class _TileLayout:
    """How the pictures of one filter are arranged in its tile.

    Attributes:
        kind: What a picture shows: taps as a curve, a slice of a 3-D kernel, or a 2-D kernel.
        is_rgb: Whether three channels are one colour picture.
        across: Pictures in a row.
    """

    kind: Literal["curve", "volume", "plane"]
    is_rgb: bool
    across: int


def _tile_layout(shape: Sequence[int], channels: int) -> _TileLayout:
    """Decide how the filters of a layer are drawn.

    The slices of a 3-D kernel are in one row, with its channels below each other unless they are
    colours. A few curves are below each other. All other pictures make a square.

    Args:
        shape: Shape of the weights, (N, C, kH, kW), (N, C, k) or (N, C, kD, kH, kW).
        channels: How many channels of a filter are drawn.
    """
    style = tile_style(shape, "all")
    if style.slices is not None:
        return _TileLayout("volume", style.is_rgb, across=style.slices)
    if style.is_curve:
        is_stacked = channels <= _MOST_STACKED
        return _TileLayout("curve", is_rgb=False, across=1 if is_stacked else ceil(sqrt(channels)))
    return _TileLayout("plane", style.is_rgb, across=1 if style.is_rgb else ceil(sqrt(channels)))


def _shown_channels(weights: Tensor, room: int) -> int:
    if tile_style(weights.shape).is_rgb:
        return 3
    return max(1, min(weights.shape[1], MOST_CHANNELS, room))


def _plate(weights: Tensor, shown: int, common: float) -> dict[str, Any]:
    """Encode the tiles of one checkpoint: for each weight 8 bits, and a fifth of a byte more.

    The levels have a scale of their own for each filter, so that weak filters keep their detail:
    127 levels on each side of zero. The levels on the scale of all filters follow from them, apart
    from rounding. ``mend`` corrects the rounding by -1, 0 or 1.

    Args:
        weights: Filters in the order of the tiles, shape (N, C, ...).
        shown: How many channels are drawn.
        common: The magnitude at the ends of the colours on the scale of all filters.
    """
    layout = _tile_layout(weights.shape, shown)
    values = weights[:, :shown]
    is_row_a_channel = layout.kind == "volume" and not layout.is_rgb
    values = values.flatten(1, 2) if is_row_a_channel else as_planes(values)
    _, planes, height, width = values.shape
    own = largest_magnitude(weights)
    levels = to_levels(values, own[:, None, None, None])
    exact = to_levels(values, torch.tensor(common, device="cpu", dtype=torch.float32))
    rounded = [_shortened(x, _RANGE_DIGITS) for x in own.tolist()]
    ratio = np.array(rounded) / (common or 1)
    shares = (levels.numpy().astype(float) - ZERO_LEVEL) * ratio[:, None, None, None]
    estimate = np.floor(shares + 0.5) + ZERO_LEVEL
    mend = (exact.numpy() - estimate + 1).clip(0, 2).astype(np.uint8)
    return {
        "height": height,
        "width": width,
        "planes": planes,
        "across": layout.across,
        "picture": _picture_size(layout, height, width),
        "kind": layout.kind,
        "rgb": layout.is_rgb,
        "common": common,
        "own": rounded,
        "levels": _base64(levels.masked_fill(~values.isfinite(), _NOT_FINITE_LEVEL)),
        "mend": _base64(_pack_five(mend)),
    }


def _picture_size(layout: _TileLayout, height: int, width: int) -> tuple[int, int]:
    """Return the height and the width of one picture of a tile on its canvas, in pixels."""
    if layout.kind == "curve":
        return _CURVE_HEIGHT, curve_width(width, _CURVE_HEIGHT)
    return stretched_size(height, width)


def _pack_five(digits: "np.ndarray[Any, Any]") -> Tensor:
    """Pack five numbers 0, 1, 2 into a byte, as digits of base three, the first one lowest."""
    flat = np.pad(digits.ravel(), (0, -digits.size % 5)).reshape(-1, 5)
    return torch.from_numpy(flat @ (3 ** np.arange(5)).astype(np.uint8))


def _base64(values: Tensor) -> str:
    return as_base64(values.contiguous().numpy().tobytes())


def _likeness(likeness: Likeness | None) -> list[float | None] | None:
    return None if likeness is None else [or_none(likeness.mean), or_none(likeness.chance)]


def _rounded(values: Tensor) -> list[float | None]:
    return [or_none(_shortened(x, _NUMBER_DIGITS)) for x in values.tolist()]


def _shortened(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")

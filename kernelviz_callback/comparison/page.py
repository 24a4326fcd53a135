"""A comparison as one HTML page: it opens from a disk, offline, and holds all that it shows."""

from collections.abc import Sequence
from math import ceil, prod, sqrt
from string import Template
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernelviz_callback.comparison.comparison import FILTER_NUMBERS, Column, Comparison, Likeness
from kernelviz_callback.comparison.shared_plane import mix_channels
from kernelviz_callback.drawing.colour import ZERO_LEVEL, to_levels
from kernelviz_callback.filters.measures import largest_magnitude
from kernelviz_callback.filters.planes import as_planes
from kernelviz_callback.health.kernel_health import or_none
from kernelviz_callback.health.verdict_names import VERDICT_COLOURS, VERDICT_NAMES
from kernelviz_callback.html_page import (
    as_base64,
    as_html_text,
    as_script_data,
    bundled_modules,
    package_text,
    script_digest,
)

# More channels than this are not told apart in a tile.
MOST_CHANNELS = 16
# Weights in the page, about 1.6 bytes each.
MOST_WEIGHTS = 1_500_000
# Of the numbers of a filter, and of the magnitude at the ends of its tile's colours.
_DIGITS = 4
_RANGE_DIGITS = 7
_NOT_FINITE_LEVEL = 0
_MOST_STACKED = 4  # curves below each other


def comparison_page(comparison: Comparison) -> str:
    """Show what changed as a page to look at, sort and search: filters, numbers, curves.

    Returns:
        HTML that needs nothing else: no network, no other file. Weights are in it with 8 bits, of
        layers beyond `MOST_WEIGHTS` those that changed most; the page says so.

    Example:
        >>> from torch import nn
        >>> from kernelviz_callback.comparison.compare import compare
        >>> page = comparison_page(compare(nn.Conv2d(3, 8, 5), nn.Conv2d(3, 8, 5)))
        >>> page.splitlines()[0]
        '<!doctype html>'
    """
    script = bundled_modules("comparison/page.js")
    return Template(package_text("comparison/page.html")).substitute(
        title=as_html_text(f"{comparison.first.layer} in {len(comparison.columns)} checkpoints"),
        style=package_text("comparison/page.css"),
        script=script,
        digest=script_digest(script),
        data=as_script_data(_page_data(comparison)),
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
    """What is told of one; of those that are not pictured no more than a curve needs."""
    is_end = column in (comparison.first, comparison.last)
    told = FILTER_NUMBERS if is_end or column.weights is not None else ("change_from_first",)
    numbers = {name: _rounded(getattr(column, name)) for name in (*told, "correlation")}
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
        "filters": numbers | {"norm": _rounded(_norms(column))},
        "verdicts": _verdicts(column, with_reasons=is_end),
    }


def _verdicts(column: Column, *, with_reasons: bool) -> list[list[Any]]:
    """The verdicts on each filter of the first: [filter, index of the name, reason]."""
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


def _norms(column: Column) -> Tensor:
    own = column.health.filters.norm[column.partner.clamp(min=0)]
    return own.masked_fill(column.partner < 0, torch.nan)


def _plates(
    comparison: Comparison, pictured: Sequence[int], order: Sequence[int]
) -> tuple[list[dict[str, Any]], int, list[str]]:
    """The tiles of each pictured checkpoint and of the last minus the first.

    Returns:
        The plates; how many filters have tiles in them, in ``order``; and what was left out.
    """
    notes = _notes(comparison, pictured)
    layers = [weights for weights in map(_matched, comparison.columns) if weights is not None]
    if not layers:
        return [], 0, notes
    is_alike = layers[0].shape == layers[-1].shape and len(layers) > 1
    mixed = mix_channels(layers)
    layers = mixed.layers
    drawn = list(zip(pictured, layers, strict=True))
    first, last = layers[0], layers[-1]
    difference = last - first if is_alike else None
    every = layers if difference is None else [*layers, difference]
    # The height of a curve is looked at before its colour, so all curves share a scale.
    sharing = every if first.ndim == 3 else layers
    half_range = max(largest_magnitude(weights).amax().item() for weights in sharing)

    room = MOST_WEIGHTS // sum(prod(w.shape[2:]) for w in every)
    channels = [_shown(w, room // len(order)) for w in every]
    area = sum(c * prod(w.shape[2:]) for c, w in zip(channels, every, strict=True))
    tiled = min(len(order), max(1, MOST_WEIGHTS // area))
    kept = torch.tensor(order[:tiled])
    plates = [
        {"checkpoint": index, "mixed": mixes, **_plate(weights[kept], shown, half_range)}
        for (index, weights), mixes, shown in zip(drawn, mixed.counts, channels, strict=False)
    ]
    if difference is not None:
        widest = largest_magnitude(difference).amax().item() if first.ndim > 3 else half_range
        plate = _plate(difference[kept], channels[-1], widest)
        plates.append({"checkpoint": None, "mixed": mixed.counts[-1], **plate})
    note = mixed.note(comparison.columns[pictured[-1]].label)
    if note is not None:
        notes.append(f"{note[0].upper()}{note[1:]}.")
    fewest = min(zip(channels, (w.shape[1] for w in every), strict=True), key=lambda c: c[0] - c[1])
    if fewest[0] < fewest[1]:
        notes.append(f"Of {fewest[1]} input channels, tiles show the first {fewest[0]}.")
    if tiled < len(order):
        notes.append(
            f"The {tiled} filters that changed most have tiles, to keep this file small; "
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


def _matched(column: Column) -> Tensor | None:
    weights = column.matched_weights()
    return None if weights is None else weights.detach().cpu().float()


def _shown(weights: Tensor, room: int) -> int:
    return 3 if _is_rgb(weights) else max(1, min(weights.shape[1], MOST_CHANNELS, room))


def _is_rgb(weights: Tensor) -> bool:
    return weights.shape[1] == 3 and weights.ndim > 3


def _plate(weights: Tensor, shown: int, common: float) -> dict[str, Any]:
    """Tiles of one checkpoint as 8-bit levels of each tile's own scale, exact on the common one.

    Weak filters keep their detail: 127 levels a side, whatever the strongest of the layer is. The
    level on the common scale follows from that but for rounding, which a fifth of a byte mends.

    The slices of a 3-D layer stand in a row, and its channels below each other where they are no
    colours.
    """
    own, is_rgb, is_volume = largest_magnitude(weights), _is_rgb(weights), weights.ndim == 5
    values = weights[:, :shown]
    values = values.flatten(1, 2) if is_volume and not is_rgb else as_planes(values)
    _, planes, height, width = values.shape
    panels = planes // 3 if is_rgb else planes
    across = 1 if weights.ndim == 3 and panels <= _MOST_STACKED else ceil(sqrt(panels))
    levels = to_levels(values, own[:, None, None, None])
    exact = to_levels(values, torch.tensor(common))
    told = [_shortened(x, _RANGE_DIGITS) for x in own.tolist()]
    ratio = np.array(told) / (common or 1)
    shares = (levels.numpy().astype(float) - ZERO_LEVEL) * ratio[:, None, None, None]
    estimate = np.floor(shares + 0.5) + ZERO_LEVEL
    mend = (exact.numpy() - estimate + 1).clip(0, 2).astype(np.uint8)
    return {
        "height": height,
        "width": width,
        "planes": planes,
        "across": weights.shape[2] if is_volume else across,
        "kind": "curve" if weights.ndim == 3 else "volume" if is_volume else "plane",
        "rgb": is_rgb,
        "common": common,
        "own": told,
        "levels": _base64(levels.masked_fill(~values.isfinite(), _NOT_FINITE_LEVEL)),
        "mend": _base64(_five_in_a_byte(mend)),
    }


def _five_in_a_byte(digits: "np.ndarray[Any, Any]") -> Tensor:
    """Pack numbers 0, 1, 2, the first as the lowest digit of a number of base three."""
    flat = np.pad(digits.ravel(), (0, -digits.size % 5)).reshape(-1, 5)
    return torch.from_numpy(flat @ (3 ** np.arange(5)).astype(np.uint8))


def _base64(values: Tensor) -> str:
    return as_base64(values.contiguous().numpy().tobytes())


def _likeness(likeness: Likeness | None) -> list[float | None] | None:
    return None if likeness is None else [or_none(likeness.mean), or_none(likeness.chance)]


def _rounded(values: Tensor) -> list[float | None]:
    return [or_none(_shortened(x, _DIGITS)) for x in values.tolist()]


def _shortened(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")

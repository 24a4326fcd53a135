"""Plot the health of filters: four numbers of every filter, coloured by verdict."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from kernelviz_callback.health.verdict_names import (
    VERDICT_COLOURS,
    VERDICT_NAMES,
    Colour,
    VerdictName,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NO_VERDICT = (60, 90, 140)
_PANELS = (
    ("relative_norm", "norm / median of the layer"),
    ("concentration", "spectral concentration (1: flat)"),
    ("nearest_cosine", "cosine to the nearest other filter"),
    ("frequency", "dominant frequency, cycles a pixel"),
)


def draw_health(
    title: str, numbers: Mapping[str, Tensor], worst: Sequence[VerdictName | None]
) -> "tuple[Figure, Any]":
    """Draw bar charts of four numbers, with one bar per filter in the colour of its worst verdict.

    Args:
        title: Title of the figure.
        numbers: Name to tensor of shape (N,), as in `FilterMeasures`.
        worst: The most serious verdict of each filter, see `KernelHealth.gravest`.

    Returns:
        The figure and its axes, an array of shape (2, 2). A filter without a number has no bar.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    filters = len(worst)
    colours = [_to_unit_range(VERDICT_COLOURS[v] if v else _NO_VERDICT) for v in worst]
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    for ax, (name, label) in zip(axes.flat, _PANELS, strict=True):
        ax.bar(np.arange(filters), numbers[name].numpy(), 0.9, color=colours)
        ax.set_ylabel(label)
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_xlim(-0.6, filters - 0.4)
    for ax in axes[1]:
        ax.set_xlabel("filter")
    seen = [("no verdict", _NO_VERDICT)] if None in worst else []
    seen += [(name, VERDICT_COLOURS[name]) for name in VERDICT_NAMES if name in worst]
    figure.legend(
        handles=[Patch(color=_to_unit_range(colour), label=name) for name, colour in seen],
        loc="outside lower center",
        ncols=len(seen),
        frameon=False,
    )
    figure.suptitle(title, parse_math=False)
    return figure, axes


def _to_unit_range(colour: Colour) -> tuple[float, float, float]:
    red, green, blue = colour
    return red / 255, green / 255, blue / 255

"""A comparison as a chart: how far the layer and its filters went, and which went farthest."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kernelviz_callback.comparing.comparison import Comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREY = "#3c5a8c", "#d55e00", "#9a9aa4"
_MOST_BARS = 24


def draw_comparison(comparison: Comparison) -> "tuple[Figure, Any]":
    """Draw a comparison; see `Comparison.plot`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    axes = figure.subplots(1, 2)
    if len(comparison.columns) > 2:
        _draw_drift(axes[0], comparison)
    else:
        _draw_similarities(axes[0], comparison)
    _draw_most_changed(axes[1], comparison)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    first, last = comparison.first, comparison.last
    figure.suptitle(f"{first.layer}: {first.label} and {last.label}")
    return figure, axes


def _draw_drift(ax: Any, comparison: Comparison) -> None:
    columns = comparison.columns
    steps = [column.step for column in columns]
    known = None not in steps and len(set(steps)) > 1
    at = steps if known else list(range(len(columns)))
    filters = torch.stack([column.change_from_first for column in columns])
    filters[0] = 0.0
    ax.plot(at, filters.numpy(), color=_GREY, alpha=0.25, linewidth=0.8)
    layer = [0.0, *(column.drift for column in columns[1:])]
    ax.plot(at, layer, color=_BLUE, linewidth=2.5, marker="o", markersize=3, label="the layer")
    ax.plot([], [], color=_GREY, linewidth=0.8, label="each filter")
    ax.set_xlabel("step" if known else "checkpoint")
    ax.set_ylabel("change from the first, in its lengths")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)


def _draw_similarities(ax: Any, comparison: Comparison) -> None:
    last = comparison.last
    weights_differ = bool(last.cosine_to_first.isnan().all())
    values = last.correlation if weights_differ else last.cosine_to_first
    alike = last.responses_alike if weights_differ else last.weights_alike
    ax.hist(values[~values.isnan()].numpy(), bins=24, range=(-1, 1), color=_BLUE)
    if alike is not None:
        ax.axvline(alike.chance, color=_ORANGE, linestyle="--", label="random filters, mean")
        ax.legend(frameon=False)
    ax.set_xlim(-1, 1)
    ax.set_xlabel(f"{'correlation of responses' if weights_differ else 'cosine'} of partners")
    ax.set_ylabel("filters")


def _draw_most_changed(ax: Any, comparison: Comparison) -> None:
    last = comparison.last
    order = [i for i in comparison.most_changed() if last.partner[i] >= 0][:_MOST_BARS]
    by_weights = not last.change_from_first.isnan().all()
    amount: Tensor = last.change_from_first if by_weights else 1 - last.correlation
    new = comparison.new_verdicts()
    colours = [_ORANGE if new[i] else _BLUE for i in order]
    ax.barh(range(len(order)), amount[order].numpy(), color=colours)
    ax.set_yticks(range(len(order)), [str(i) for i in order], fontsize=8)
    ax.invert_yaxis()
    ax.set_ylabel("filter")
    ax.set_xlabel(
        "change from the first, in its lengths" if by_weights else "1 - correlation of responses"
    )
    if any(new[i] for i in order):
        ax.barh([], [], color=_ORANGE, label="with a new verdict")
        ax.legend(frameon=False, loc="lower right")

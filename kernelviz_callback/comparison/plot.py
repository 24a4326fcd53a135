"""A comparison as a chart: how far the layer and its filters went, and which went farthest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREY = "#3c5a8c", "#d55e00", "#9a9aa4"
_MOST_BARS = 24


@dataclass(frozen=True, eq=False)
class ChartData:
    """What is drawn of a comparison.

    Attributes:
        title: Of the figure.
        at: Step of each of K checkpoints, or its place.
        at_name: "step" or "checkpoint".
        layer_change: Of the layer from the first, K numbers.
        filter_change: Likewise of each filter, shape (K, N).
        likeness: Of each filter to its partner in the first, shape (N,), in [-1, 1].
        likeness_name: What that is.
        chance: The mean that random filters reach, if it is known.
        order: The filters that have a partner, the most changed first.
        change: By what they are ordered, shape (N,).
        change_name: What that is.
        is_flagged: Whether each filter has a new verdict.
    """

    title: str
    at: Sequence[float]
    at_name: str
    layer_change: Sequence[float]
    filter_change: Tensor
    likeness: Tensor
    likeness_name: str
    chance: float | None
    order: Sequence[int]
    change: Tensor
    change_name: str
    is_flagged: Sequence[bool]


def draw_comparison(data: ChartData) -> "tuple[Figure, Any]":
    """Draw the way of the layer and its filters (or, of two, their likeness), and the most changed.

    Returns:
        The figure and its axes, shape (2,).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    axes = figure.subplots(1, 2)
    if len(data.at) > 2:
        _draw_way(axes[0], data)
    else:
        _draw_likeness(axes[0], data)
    _draw_most_changed(axes[1], data)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    figure.suptitle(data.title)
    return figure, axes


def _draw_way(ax: Any, data: ChartData) -> None:
    ax.plot(data.at, data.filter_change.numpy(), color=_GREY, alpha=0.25, linewidth=0.8)
    ax.plot(
        data.at, data.layer_change, "o-", color=_BLUE, linewidth=2.5, markersize=3, label="layer"
    )
    ax.plot([], [], color=_GREY, linewidth=0.8, label="each filter")
    ax.set_xlabel(data.at_name)
    ax.set_ylabel("change from the first, in its lengths")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)


def _draw_likeness(ax: Any, data: ChartData) -> None:
    known = data.likeness[~data.likeness.isnan()]
    ax.hist(known.numpy(), bins=24, range=(-1, 1), color=_BLUE)
    if data.chance is not None:
        ax.axvline(data.chance, color=_ORANGE, linestyle="--", label="random filters, mean")
        ax.legend(frameon=False)
    ax.set_xlim(-1, 1)
    ax.set_xlabel(data.likeness_name)
    ax.set_ylabel("filters")


def _draw_most_changed(ax: Any, data: ChartData) -> None:
    from matplotlib.patches import Patch

    order = data.order[:_MOST_BARS]
    colours = [_ORANGE if data.is_flagged[i] else _BLUE for i in order]
    ax.barh(range(len(order)), data.change[order].numpy(), color=colours)
    ax.set_yticks(range(len(order)), [str(i) for i in order], fontsize=8)
    ax.invert_yaxis()
    ax.set_ylabel("filter")
    ax.set_xlabel(data.change_name)
    if _ORANGE in colours:
        patch = Patch(color=_ORANGE, label="with a new verdict")
        ax.legend(handles=[patch], frameon=False, loc="lower right")

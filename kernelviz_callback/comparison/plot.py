"""The chart of a comparison: the changes of the layer and its filters, and the largest ones."""

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
    """The values in the chart of a comparison of K checkpoints with N filters.

    Attributes:
        title: Title of the figure.
        at: Step or index of each checkpoint, K numbers.
        at_name: "step" or "checkpoint", the label of the x axis.
        layer_change: Change of the layer from the first checkpoint, K numbers.
        filter_change: Change of each filter from the first checkpoint, shape (K, N).
        likeness: Similarity of each filter to its partner, shape (N,), in [-1, 1].
        likeness_name: Name of the similarity.
        chance: Mean similarity of random filters, None if it is unknown.
        order: Indices of the filters that have a partner, the most changed first.
        change: Change by which the filters are ordered, shape (N,).
        change_name: Name of the change.
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
    """Draw two charts.

    The first shows the changes of the layer and its filters; for two checkpoints, it shows the
    similarity of the filters instead. The second shows the filters that changed most.

    Returns:
        The figure and its axes, shape (2,).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    axes = figure.subplots(1, 2)
    if len(data.at) > 2:
        _draw_changes(axes[0], data)
    else:
        _draw_likeness(axes[0], data)
    _draw_most_changed(axes[1], data)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    figure.suptitle(data.title, parse_math=False)  # a name may have a dollar sign
    return figure, axes


def _draw_changes(ax: Any, data: ChartData) -> None:
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

"""The result of a comparison: numbers for each checkpoint and filter, also as plain values."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor

from kernelviz_callback.checkpoints.stored_layers import Shape
from kernelviz_callback.comparison.plot import ChartData, draw_comparison
from kernelviz_callback.comparison.strips import (
    MOST_STRIPS,
    StripColumn,
    StripScale,
    draw_strips,
    strip_responses,
)
from kernelviz_callback.drawing.encode import EncodedImage
from kernelviz_callback.drawing.picture import Picture
from kernelviz_callback.health.kernel_health import KernelHealth, or_none
from kernelviz_callback.health.verdict_names import VerdictName
from kernelviz_callback.model.convolutions import Geometry
from kernelviz_callback.probe.probe import Probe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Match: TypeAlias = Literal["index", "weights", "responses"]

SCHEMA_VERSION = 1
# Names of the numbers of a filter, in JSON and CSV.
FILTER_NUMBERS = (
    "cosine_to_first",
    "change_from_first",
    "cosine_to_previous",
    "change_from_previous",
    "correlation",
)


@dataclass(frozen=True)
class Likeness:
    """The similarity of two layers when their filters are matched best.

    Attributes:
        mean: Mean similarity of the matched filters, in [-1, 1].
        chance: The same number for two layers of random filters of these shapes.
    """

    mean: float
    chance: float


@dataclass(frozen=True, eq=False)
class Column:
    """One checkpoint in a comparison.

    Tensors of shape (N,) are in the order of the filters of the first checkpoint. They are NaN
    where there is no number. The partner of a filter is the filter of this checkpoint that it was
    matched with.

    Attributes:
        name: Path, URL or model name of the checkpoint.
        label: A short name, distinct within the comparison.
        layer: Name of the layer in this checkpoint.
        step: Number of optimizer steps, None if the checkpoint does not state it.
        epoch: Epoch, counted from 0, None if the checkpoint does not state it.
        geometry: Geometry of the layer.
        shape: Shape of the weights: (M, C, kH, kW), (M, C, k) or (M, C, kD, kH, kW).
        match: How filters were matched with those of the first checkpoint: by the same "index", by
            the most similar "weights" or by the most correlated "responses".
        partner: Index of the partner of each filter, shape (N,), -1 for no partner.
        cosine_to_first: Cosine of the weights of filter and partner, shape (N,).
        change_from_first: Distance of filter and partner, divided by the norm of the filter in the
            first checkpoint, shape (N,).
        cosine_to_previous: Cosine of the partner to the partner in the checkpoint before.
        change_from_previous: Distance of the partner to the partner in the checkpoint before,
            divided by the norm of the latter.
        correlation: Correlation of the responses to the probe of filter and partner, shape (N,).
        drift: Distance of the layer from the first checkpoint, divided by the norm of the layer
            there. NaN if the shapes differ.
        weights_alike: Similarity to the first checkpoint when filters are matched by weights; None
            if the shapes differ.
        responses_alike: Similarity to the first checkpoint when filters are matched by responses.
        health: Health of the layer, in the layer's own order of filters.
        weights: Weights of the layer, in its own order of filters; None for some checkpoints if
            there are many.
        notes: What could not be compared, and why.
    """

    name: str
    label: str
    layer: str
    step: int | None
    epoch: int | None
    geometry: Geometry
    shape: Shape
    match: Match
    partner: Tensor
    cosine_to_first: Tensor
    change_from_first: Tensor
    cosine_to_previous: Tensor
    change_from_previous: Tensor
    correlation: Tensor
    drift: float
    weights_alike: Likeness | None
    responses_alike: Likeness | None
    health: KernelHealth
    weights: Tensor | None
    notes: tuple[str, ...] = ()

    def verdicts(self) -> list[frozenset[VerdictName]]:
        """Return the verdicts on the partner of each filter of the first checkpoint."""
        own: list[set[VerdictName]] = [set() for _ in range(self.shape[0])]
        for verdict in self.health.verdicts:
            own[verdict.filter].add(verdict.name)
        return [frozenset(own[p]) if p >= 0 else frozenset() for p in self.partner.tolist()]

    def matched_weights(self) -> Tensor | None:
        """Return the weights of the partners, NaN for a filter without partner."""
        if self.weights is None:
            return None
        ordered = self.weights[self.partner.clamp(min=0)]
        ordered[self.partner < 0] = torch.nan
        return ordered


@dataclass(frozen=True, eq=False)
class Comparison:
    """One layer in two or more checkpoints.

    Attributes:
        columns: The checkpoints. The others are compared with the first.
        statements: Sentences: how filters were matched, what cannot be compared, and why.
    """

    columns: tuple[Column, ...]
    statements: tuple[str, ...]

    @property
    def first(self) -> Column:
        """The first checkpoint: the others are compared with it."""
        return self.columns[0]

    @property
    def last(self) -> Column:
        """The last checkpoint."""
        return self.columns[-1]

    def most_changed(self) -> list[int]:
        """Sort the filters of the first checkpoint by their change up to the last, largest first.

        The change is that of the weights. If weights cannot be compared, it is 1 minus the
        correlation of the responses. Filters without a partner come first.

        Returns:
            Indices of all filters of the first checkpoint.
        """
        last = self.last
        change = last.change_from_first
        amount = 1 - last.correlation if change.isnan().all() else change
        lost = last.partner < 0
        amount = amount.nan_to_num(nan=torch.inf, posinf=torch.inf).masked_fill(lost, torch.inf)
        return amount.argsort(descending=True, stable=True).tolist()

    def new_verdicts(self, column: Column | None = None) -> list[frozenset[VerdictName]]:
        """Return, for each filter, the verdicts that it has now but not in the first checkpoint.

        Args:
            column: The checkpoint to compare with the first, None for the last.
        """
        now = (column or self.last).verdicts()
        return [b - a for a, b in zip(self.first.verdicts(), now, strict=True)]

    def gone_verdicts(self, column: Column | None = None) -> list[frozenset[VerdictName]]:
        """Return, for each filter, the verdicts that it has in the first checkpoint but not now.

        Args:
            column: The checkpoint to compare with the first, None for the last.
        """
        now = (column or self.last).verdicts()
        return [a - b for a, b in zip(self.first.verdicts(), now, strict=True)]

    def numbers(self, column: Column | None = None) -> dict[str, float]:
        """Return the numbers of a checkpoint by name, for conditions and curves.

        They are ``drift``, ``mean_cosine``, ``min_cosine``, ``mean_change``, ``max_change``,
        ``mean_correlation``, ``new_verdicts`` and ``gone_verdicts`` (both count filters), and the
        numbers of its health, see `KernelHealth.to_scalars`. A number is NaN if it does not exist.

        Args:
            column: The checkpoint, None for the last.
        """
        column = column or self.last
        health = {n: x for n, x in column.health.to_scalars().items() if n != "drift"}
        return {
            "drift": column.drift,
            "mean_cosine": _nan_mean(column.cosine_to_first),
            "min_cosine": _nan_largest(-column.cosine_to_first, sign=-1),
            "mean_change": _nan_mean(column.change_from_first),
            "max_change": _nan_largest(column.change_from_first),
            "mean_correlation": _nan_mean(column.correlation),
            "new_verdicts": float(sum(map(bool, self.new_verdicts(column)))),
            "gone_verdicts": float(sum(map(bool, self.gone_verdicts(column)))),
            **health,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the weights as JSON values. The documentation has the schema."""
        return {
            "schema_version": SCHEMA_VERSION,
            "statements": list(self.statements),
            "checkpoints": [
                {
                    "name": column.name,
                    "label": column.label,
                    "layer": column.layer,
                    "step": column.step,
                    "epoch": column.epoch,
                    "shape": list(column.shape),
                    "match": column.match,
                    "weights_alike": _likeness(column.weights_alike),
                    "responses_alike": _likeness(column.responses_alike),
                    "numbers": {n: or_none(x) for n, x in self.numbers(column).items()},
                    "filters": list(self._filters(column)),
                    "health": column.health.to_dict(),
                }
                for column in self.columns
            ],
        }

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one row for each filter in each checkpoint, as in the CSV file."""
        return [
            {
                "checkpoint": column.name,
                "layer": column.layer,
                "step": column.step,
                "epoch": column.epoch,
                **row,
                **{k: " ".join(row[k]) for k in ("verdicts", "new_verdicts", "gone_verdicts")},
            }
            for column in self.columns
            for row in self._filters(column)
        ]

    def plot(self) -> "tuple[Figure, Any]":
        """Draw the change of the layer and of each filter, and the filters that changed most.

        Returns:
            A matplotlib figure, which is not registered with pyplot, and its axes, shape (2,).
        """
        first, last = self.first, self.last
        steps = [column.step for column in self.columns if column.step is not None]
        has_steps = len(steps) == len(self.columns) and len(set(steps)) > 1
        compares_weights = not last.change_from_first.isnan().all()
        alike = last.weights_alike if compares_weights else last.responses_alike
        change = torch.stack([column.change_from_first for column in self.columns])
        change[0] = 0.0
        return draw_comparison(
            ChartData(
                title=f"{first.layer}: {first.label} and {last.label}",
                at=steps if has_steps else range(len(self.columns)),
                at_name="step" if has_steps else "checkpoint",
                layer_change=[0.0, *(column.drift for column in self.columns[1:])],
                filter_change=change,
                likeness=last.cosine_to_first if compares_weights else last.correlation,
                likeness_name="cosine of partners"
                if compares_weights
                else "correlation of the partners' responses",
                chance=None if alike is None else alike.chance,
                order=[i for i in self.most_changed() if last.partner[i] >= 0],
                change=last.change_from_first if compares_weights else 1 - last.correlation,
                change_name="change from the first, in its lengths"
                if compares_weights
                else "1 - correlation of responses",
                is_flagged=[bool(new) for new in self.new_verdicts()],
            )
        )

    def _filters(self, column: Column) -> Iterator[dict[str, Any]]:
        verdicts = zip(
            column.verdicts(), self.new_verdicts(column), self.gone_verdicts(column), strict=True
        )
        for i, (now, new, gone) in enumerate(verdicts):
            yield {
                "filter": i,
                "partner": int(column.partner[i]),
                **{name: or_none(getattr(column, name)[i].item()) for name in FILTER_NUMBERS},
                "verdicts": sorted(now),
                "new_verdicts": sorted(new),
                "gone_verdicts": sorted(gone),
            }

    def _repr_html_(self) -> str:
        """The sentences and the strips, for a notebook."""
        picture = EncodedImage.png(comparison_picture(self).pixels)
        return f"<pre>{escape(repr(self))}</pre>{picture.to_html('comparison')}"

    def __repr__(self) -> str:
        lines = [f"Comparison of {self.first.layer} in {len(self.columns)} checkpoints"]
        for column in self.columns[1:]:
            numbers = self.numbers(column)
            shown = ("drift", "mean_cosine", "mean_correlation", "new_verdicts")
            texts = [f"{n} {numbers[n]:.3g}" for n in shown if isfinite(numbers[n])]
            lines.append(f"  {column.label}: {', '.join(texts)}")
        return "\n".join([*lines, *(f"  {statement}" for statement in self.statements)])


def comparison_picture(
    comparison: Comparison, *, scale: StripScale = "layer", responses_to: Probe | None = None
) -> Picture:
    """Picture each filter in all checkpoints, side by side: what grew, faded, turned or stayed.

    A strip is one filter. Its number is at the left, and its partner's number in the last
    checkpoint if that differs. From left to right: the checkpoints A, B, ..., then the last minus
    the first. Zero is grey in RGB tiles, and white in red and blue ones. One scale holds for all
    tiles of a strip and the difference, so pale tiles have small weights. The kernels of a 1-D
    layer are bars. The slices of a 3-D layer stand in a row. With more than four input channels,
    a tile is one mixture of them, see `mix_channels`.

    Args:
        comparison: The comparison; its checkpoints with weights are drawn.
        scale: "layer" for the largest magnitude of all tiles, "filter" for that of each strip.
        responses_to: If given, draw the filters' responses to this probe instead of their weights.

    Returns:
        A picture whose tiles are the strips, in the order of the first checkpoint's filters. With
        more than 256 filters, only those that changed most are drawn.

    Raises:
        ValueError: If responses are asked for, and the filters do not respond to one image.
    """
    filters = sorted(comparison.most_changed()[:MOST_STRIPS])
    columns = []
    for column in comparison.columns:
        values = column.matched_weights()
        if values is None or column.weights is None:
            continue
        if responses_to is not None:
            values = strip_responses(
                column.weights,
                column.partner,
                column.geometry,
                responses_to,
                label=column.label,
            )
        columns.append(StripColumn(column.label, values[filters]))
    return draw_strips(
        columns,
        title=comparison.first.layer,
        filters=filters,
        partners=comparison.last.partner.tolist(),
        shape=comparison.first.shape,
        scale=scale,
        responses_to=None if responses_to is None else responses_to.name,
        hidden=len(comparison.columns) - len(columns),
    )


def _likeness(likeness: Likeness | None) -> dict[str, float | None] | None:
    if likeness is None:
        return None
    return {"mean": or_none(likeness.mean), "chance": or_none(likeness.chance)}


def _nan_mean(values: Tensor) -> float:
    return values.nanmean().item()


def _nan_largest(values: Tensor, sign: int = 1) -> float:
    known = values[~values.isnan()]
    return sign * known.max().item() if len(known) else torch.nan

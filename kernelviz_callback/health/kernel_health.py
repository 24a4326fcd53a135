"""The health of a layer at one snapshot: its numbers, its verdicts, and what is missing."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import isfinite, isnan
from typing import TYPE_CHECKING, Any

from torch import Tensor

from kernelviz_callback.filters.words import describe_filters
from kernelviz_callback.health.null_model import FALSE_ALARM_RATE
from kernelviz_callback.health.verdict_names import VERDICT_NAMES, VerdictName
from kernelviz_callback.health.verdicts import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_NAMED = 8  # filters, or numbers, in a line of the repr


@dataclass(frozen=True, eq=False)
class FilterMeasures:
    """The numbers of all filters: tensors of shape (N,), float32, NaN if there is no number.

    Attributes:
        norm: Euclidean norm, in units of the weights.
        rms: Root mean square of the weights: norm / sqrt(C kH kW).
        relative_norm: Norm divided by the layer's median norm; see `measures.relative_norms`.
        sparsity: Share of the filter's kernels that are near zero.
        autocorrelation: Correlation of neighbouring weights: 0 for noise, 1 if smooth.
        roughness: Energy of differences of neighbouring weights: 0 if constant, 1 for noise, 2 for
            a checkerboard.
        concentration: Concentration of the power spectrum: 1 if flat, more for stripes and blobs.
        frequency: Frequency of the dominant wave, in cycles per pixel.
        orientation: Direction of the stripes, in degrees [0, 180): 0 is horizontal, 90 vertical.
            NaN for 1-D layers.
        bandwidth: Bandwidth of the dominant wave, in cycles per pixel: the size of the region of
            frequencies with at least half of its power, see `spectrum.Stripes`. It is smaller if
            the kernel has more periods of the wave.
        colour: Share of the energy off the grey axis. Only for 2-D layers with 3 input channels.
        opponent_axis: Colour axis, in degrees [0, 180): 0 is red-green, 90 blue-yellow. Only for
            2-D layers with 3 input channels.
        nearest: Index of the most similar other filter that is not near zero, -1 for none.
        nearest_cosine: Cosine between the filter and the filter ``nearest``.
        antiphase: Index of the most opposite other filter that is not near zero, -1 for none.
        antiphase_cosine: Cosine between the filter and the filter ``antiphase``.
        cosine_to_first: Cosine between the filter and itself in the first snapshot.
        change_from_first: Norm of the difference from the first snapshot, divided by the norm of
            the filter in the first snapshot.
        cosine_to_previous: Cosine between the filter and itself in the previous snapshot.
        change_from_previous: Norm of the difference from the previous snapshot, divided by the norm
            of the filter in the previous snapshot.
        response_rms: Root mean square of the response to the probe, summed over the channels.
    """

    norm: Tensor
    rms: Tensor
    relative_norm: Tensor
    sparsity: Tensor
    autocorrelation: Tensor
    roughness: Tensor
    concentration: Tensor
    frequency: Tensor
    orientation: Tensor
    bandwidth: Tensor
    colour: Tensor
    opponent_axis: Tensor
    nearest: Tensor
    nearest_cosine: Tensor
    antiphase: Tensor
    antiphase_cosine: Tensor
    cosine_to_first: Tensor
    change_from_first: Tensor
    cosine_to_previous: Tensor
    change_from_previous: Tensor
    response_rms: Tensor


@dataclass(frozen=True)
class LayerMeasures:
    """The numbers of a layer, computed from its finite filters. NaN if there is no number.

    Attributes:
        sparsity: Share of the kernels that are near zero.
        effective_rank: Number of directions that the filters span, weighted by their strength.
        variance_entropy: Variety of the kernels.
        orthogonality: 1 if all filters are orthogonal, 0 if all are equal.
        edge_share: Share of filters that are stripes or edges.
        colour_share: Share of filters that respond to colour. Only for 2-D layers with 3 input
            channels.
        blob_share: Share of filters that are grey blobs.
        noise_share: Share of filters that are like noise.
        drift: Norm of the difference from the first snapshot, divided by the norm of the first
            snapshot.
        update_ratio: Norm of the difference from the previous snapshot, divided by the norm of the
            previous snapshot, if it was taken one optimizer step ago. About 1e-3 is healthy (rule
            of thumb by A. Karpathy, CS231n, "Babysitting the learning process").
    """

    sparsity: float
    effective_rank: float
    variance_entropy: float
    orthogonality: float
    edge_share: float
    colour_share: float
    blob_share: float
    noise_share: float
    drift: float
    update_ratio: float


@dataclass(frozen=True, eq=False)
class KernelHealth:
    """The health of the filters of a layer: numbers, verdicts, and what is missing.

    Attributes:
        layer: Name of the layer.
        shape: Shape of the weights: (N, C, kH, kW), (N, C, k) or (N, C, kD, kH, kW).
        filters: Numbers of all filters.
        totals: Numbers of the layer.
        verdicts: Faults of filters, the most serious first. A filter may have several verdicts.
        absent: Name of a number, or "<name> verdict", that this layer cannot have, to the reason.
        false_alarm_rate: Share of healthy layers that have a duplicate, dominating or near-zero
            filter by chance.
    """

    layer: str
    shape: tuple[int, ...]
    filters: FilterMeasures
    totals: LayerMeasures
    verdicts: tuple[Verdict, ...] = ()
    absent: Mapping[str, str] = field(default_factory=dict)
    false_alarm_rate: float = FALSE_ALARM_RATE

    def flagged(self, *names: VerdictName) -> list[int]:
        """Return the indices of the filters with any of these verdicts, in ascending order.

        Example:
            >>> from torch import randn
            >>> from kernelviz_callback import kernel_health
            >>> weights = randn(8, 3, 5, 5)
            >>> weights[3] = 0
            >>> kernel_health(weights).flagged("near-zero")
            [3]
        """
        return sorted({v.filter for v in self.verdicts if v.name in names})

    def gravest(self) -> list[VerdictName | None]:
        """Return the most serious verdict of each filter, None for a filter without one."""
        found: list[VerdictName | None] = [None] * self.shape[0]
        for verdict in reversed(self.verdicts):
            found[verdict.filter] = verdict.name
        return found

    def to_scalars(self) -> dict[str, float]:
        """Return the numbers to log: counts of verdicts and the layer's numbers, if they exist."""
        counts: dict[str, tuple[VerdictName, ...]] = {
            "dead_filters": ("near-zero", "silent"),
            "duplicates": ("duplicate",),
            "dominating": ("dominating",),
            "frozen": ("frozen",),
            "non_finite": ("non-finite",),
        }
        numbers = {
            count: float(len(self.flagged(*names)))
            for count, names in counts.items()
            if f"{names[0]} verdict" not in self.absent
        }
        return numbers | {name: x for name, x in vars(self.totals).items() if isfinite(x)}

    def to_dict(self, *, with_filters: bool = True) -> dict[str, Any]:
        """Return everything as JSON-able values. A number that does not exist is None.

        Args:
            with_filters: Whether to include the numbers of the filters.
        """
        filters = {}
        if with_filters:
            for f in fields(self.filters):
                values = getattr(self.filters, f.name).tolist()
                filters[f.name] = [or_none(value) for value in values]
        return {
            "layer": self.layer,
            "shape": list(self.shape),
            **({"filters": filters} if with_filters else {}),
            "totals": {name: or_none(x) for name, x in vars(self.totals).items()},
            "verdicts": [{**vars(verdict)} for verdict in self.verdicts],
            "absent": dict(self.absent),
            "false_alarm_rate": self.false_alarm_rate,
        }

    @classmethod
    def from_dict(cls, described: Mapping[str, Any], filters: FilterMeasures) -> "KernelHealth":
        """Rebuild the health from the result of `to_dict`, read from JSON.

        Args:
            described: The result of `to_dict`.
            filters: Numbers of the filters.

        Raises:
            ValueError: If a verdict is unknown, or the numbers are not one for each filter.
            TypeError: If a value has another type.
            LookupError: If a value is missing.
        """
        count, *rest = described["shape"]
        if any(values.shape != (count,) for values in vars(filters).values()):
            raise ValueError(f"expected numbers of {count} filters")
        numbers = described["totals"].items()
        return cls(
            layer=_checked(described["layer"], str),
            shape=(count, *rest),
            filters=filters,
            totals=LayerMeasures(
                **{n: float("nan") if x is None else _checked(x, int | float) for n, x in numbers}
            ),
            verdicts=tuple(_verdict_of(verdict, count) for verdict in described["verdicts"]),
            absent={_checked(n, str): _checked(w, str) for n, w in described["absent"].items()},
            false_alarm_rate=_checked(described["false_alarm_rate"], int | float),
        )

    def plot(self) -> "tuple[Figure, Any]":
        """Draw four bar charts, with one bar per filter in the colour of its worst verdict.

        Returns:
            A matplotlib figure that no window shows, and its axes, shape (2, 2): norm, spectral
            concentration, cosine to the nearest other filter, dominant frequency.
        """
        from kernelviz_callback.health.plot import draw_health

        title = f"{self.layer}: {describe_filters(self.shape)}"
        return draw_health(title, vars(self.filters), self.gravest())

    def __repr__(self) -> str:
        lines = [f"KernelHealth of {self.layer}: {describe_filters(self.shape)}"]
        for name in VERDICT_NAMES:
            found = self.flagged(name)
            if found:
                named = ", ".join(map(str, found[:_MOST_NAMED]))
                more = ", ..." if len(found) > _MOST_NAMED else ""
                lines.append(f"  {name}: {len(found)} of {self.shape[0]} ({named}{more})")
        if not self.verdicts:
            lines.append("  no filter has a verdict")
        numbers = vars(self.totals).items()
        known = [f"{name} {value:.3g}" for name, value in numbers if not isnan(value)]
        lines.append(f"  {', '.join(known)}")
        for reason in dict.fromkeys(self.absent.values()):
            missing = [name for name, why in self.absent.items() if why == reason]
            more = ", ..." if len(missing) > _MOST_NAMED else ""
            lines.append(f"  no {', '.join(missing[:_MOST_NAMED])}{more}: {reason}")
        return "\n".join(lines)


def _verdict_of(described: Mapping[str, Any], filters: int) -> Verdict:
    verdict = Verdict(**described)
    is_known = isinstance(verdict.name, str) and verdict.name in VERDICT_NAMES
    if not is_known or not 0 <= _checked(verdict.filter, int) < filters:
        raise ValueError(f"expected a known verdict on one of {filters} filters")
    _checked(verdict.reason, str)
    return verdict


def _checked(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind}; found {type(value).__name__}")
    return value


def or_none(value: float) -> float | None:
    """Return a number for JSON: None for NaN and infinity."""
    return value if isfinite(value) else None

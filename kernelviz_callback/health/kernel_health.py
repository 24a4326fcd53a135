"""The health of one layer at one time: its numbers, its verdicts, and what could not be told."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import isfinite, isnan
from typing import TYPE_CHECKING, Any

from torch import Tensor

from kernelviz_callback.health.null_model import FALSE_ALARM_RATE
from kernelviz_callback.health.verdict_names import VERDICT_NAMES, VerdictName
from kernelviz_callback.health.verdicts import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_NAMED = 8  # filters in a line of the repr


@dataclass(frozen=True, eq=False)
class FilterMeasures:
    """The numbers of every filter: tensors of shape (N,), float32, NaN where there is no number.

    Attributes:
        norm: Euclidean norm, in units of the weights.
        rms: The same per weight: norm / sqrt(C kH kW).
        relative_norm: Norm over the layer's median; see `measures.relative_norms`.
        sparsity: Share of its kernels that are near zero.
        autocorrelation: Of neighbouring weights: 0 noise, 1 smooth.
        roughness: Energy of neighbours' differences: 0 flat, 1 noise, 2 checkerboard.
        concentration: Of its power spectrum: 1 flat, more for stripes and blobs.
        frequency: Of the dominant wave, cycles a pixel.
        orientation: Of its stripes, degrees [0, 180), 0 horizontal, 90 vertical; not of 1-D layers.
        bandwidth: Of the dominant wave, cycles a pixel: how far the frequencies of at least half
            its power reach, see `spectrum.Stripes`. The longer a wave lasts, the narrower.
        colour: Share of its energy off the grey axis; only with 3 input channels.
        opponent_axis: Degrees [0, 180), 0 red-green, 90 blue-yellow; likewise.
        nearest: Index of the most similar other filter that is not near zero, -1 for none.
        nearest_cosine: Its cosine.
        antiphase: Index of the most opposite other filter that is not near zero, -1 for none.
        antiphase_cosine: Its cosine.
        cosine_to_first: Cosine to itself in the first snapshot.
        change_from_first: Distance to itself there, in lengths of that.
        cosine_to_previous: Cosine to itself in the snapshot before.
        change_from_previous: Distance to itself there, in lengths of that.
        response_rms: Root mean square of its response to the probe, summed over the channels.
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
    """The numbers of a layer, of its finite filters; NaN where there is no number.

    Attributes:
        sparsity: Share of its kernels that are near zero.
        effective_rank: Directions that the filters span.
        variance_entropy: Variety of its kernels' patterns.
        orthogonality: 1 if no filter repeats another.
        edge_share: Share of filters that are stripes or edges.
        colour_share: Share of filters that look at colour; only with 3 input channels.
        blob_share: Share of filters that are grey blobs.
        noise_share: Share of filters that cannot be told from noise.
        drift: Distance to the first snapshot, in lengths of that.
        update_ratio: Distance to the snapshot before, in lengths of that, if it was one optimizer
            step ago. About 1e-3 is healthy (A. Karpathy's rule of thumb, CS231n, "Babysitting the
            learning process").
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
    """How the filters of a layer are: numbers, verdicts, and what could not be told.

    Attributes:
        layer: Name of the layer.
        shape: Of its weights: (N, C, kH, kW), (N, C, k) or (N, C, kD, kH, kW).
        filters: Numbers of every filter.
        totals: Numbers of the layer.
        verdicts: What is wrong, gravest first; a filter may have several.
        absent: Number, or "<name> verdict", that does not exist for this layer, to the reason.
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
        """Which filters have any of these verdicts, in ascending order.

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
        """The gravest verdict of every filter, None for a healthy one."""
        found: list[VerdictName | None] = [None] * self.shape[0]
        for verdict in reversed(self.verdicts):
            found[verdict.filter] = verdict.name
        return found

    def to_scalars(self) -> dict[str, float]:
        """The numbers worth a curve: counts of verdicts and the layer's numbers, if they exist."""
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
        return numbers | {name: x for name, x in asdict(self.totals).items() if isfinite(x)}

    def to_dict(self, *, with_filters: bool = True) -> dict[str, Any]:
        """Return everything as JSON-able values; None where there is no number.

        Args:
            with_filters: Whether to include the numbers of every filter.
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
            "totals": {name: or_none(x) for name, x in asdict(self.totals).items()},
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
            "absent": dict(self.absent),
            "false_alarm_rate": self.false_alarm_rate,
        }

    @classmethod
    def from_dict(cls, described: Mapping[str, Any], filters: FilterMeasures) -> "KernelHealth":
        """Rebuild from `to_dict`, after a trip through JSON, and the numbers of the filters."""
        return cls(
            layer=described["layer"],
            shape=tuple(described["shape"]),
            filters=filters,
            totals=LayerMeasures(
                **{n: float("nan") if x is None else x for n, x in described["totals"].items()}
            ),
            verdicts=tuple(Verdict(**verdict) for verdict in described["verdicts"]),
            absent=described["absent"],
            false_alarm_rate=described["false_alarm_rate"],
        )

    def plot(self) -> "tuple[Figure, Any]":
        """Draw four numbers of every filter, a bar each, coloured by its gravest verdict.

        Returns:
            A matplotlib figure, that no window manager knows of, and its axes, shape (2, 2): norm,
            spectral concentration, cosine to the nearest other filter, dominant frequency.
        """
        from kernelviz_callback.health.plot import draw_health

        count, *shape = self.shape
        title = f"{self.layer}: {count} filters {'x'.join(map(str, shape))}"
        return draw_health(title, vars(self.filters), self.gravest())

    def __repr__(self) -> str:
        count, *shape = self.shape
        lines = [f"KernelHealth of {self.layer}: {count} filters {'x'.join(map(str, shape))}"]
        for name in VERDICT_NAMES:
            found = self.flagged(name)
            if found:
                named = ", ".join(map(str, found[:_MOST_NAMED]))
                more = ", ..." if len(found) > _MOST_NAMED else ""
                lines.append(f"  {name}: {len(found)} of {count} ({named}{more})")
        if not self.verdicts:
            lines.append("  no filter has a verdict against it")
        numbers = asdict(self.totals).items()
        said = [f"{name} {value:.3g}" for name, value in numbers if not isnan(value)]
        lines.append(f"  {', '.join(said)}")
        for reason in dict.fromkeys(self.absent.values()):
            lacking = [name for name, why in self.absent.items() if why == reason]
            more = ", ..." if len(lacking) > _MOST_NAMED else ""
            lines.append(f"  no {', '.join(lacking[:_MOST_NAMED])}{more}: {reason}")
        return "\n".join(lines)


def or_none(value: float) -> float | None:
    """A number as JSON may hold it: None for NaN and infinity."""
    return value if isfinite(value) else None

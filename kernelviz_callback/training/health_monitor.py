"""The health of all watched layers through one training, snapshot by snapshot."""

from collections.abc import Iterable, Mapping
from math import nan

from torch import Tensor

from kernelviz_callback.health.alerts import Alarm
from kernelviz_callback.health.examine import kernel_health
from kernelviz_callback.health.kernel_health import KernelHealth
from kernelviz_callback.health.verdict_names import VERDICT_NAMES
from kernelviz_callback.model.convolutions import Geometry
from kernelviz_callback.model.host import to_host
from kernelviz_callback.probe.probe import Probe
from kernelviz_callback.probe.probe_energy import ProbeEnergy, energy_under
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.training.failures import Failures


class HealthMonitor:
    """Examines snapshots in their order, each beside the first and the one before.

    Args:
        probe: The fixed image.

    Attributes:
        news: What the user should be told since it was last emptied.
    """

    def __init__(self, probe: Probe) -> None:
        self.news: list[str] = []
        self._probe = probe
        self._energies: dict[str, ProbeEnergy | str] = {}
        self._first: dict[str, Tensor] = {}
        self._previous: dict[str, Tensor] = {}
        self._previous_step: int | None = None
        self._alarms: dict[str, Alarm] = {}
        self._last: dict[str, KernelHealth] = {}
        self._known: dict[str, set[str]] = {}

    def recall(self, snapshots: Iterable[Snapshot], failures: Failures) -> None:
        """Take in what an earlier attempt recorded, in its order; it is no news."""
        for snapshot in snapshots:
            if snapshot.health:
                self._follow(snapshot.health, snapshot.step)
                self._keep(_host(snapshot), snapshot.step)
                self.numbers(snapshot.health)
            else:
                self.observe(snapshot, failures)
        self.news.clear()

    def observe(self, snapshot: Snapshot, failures: Failures) -> dict[str, KernelHealth]:
        """Examine the next snapshot.

        Returns:
            Layer name to health, without the layers that cannot be examined: ``failures`` has why.
        """
        weights = _host(snapshot)
        steps = None if self._previous_step is None else snapshot.step - self._previous_step
        losing = "its health is not known; snapshot files and pictures are kept"
        found = {}
        for name, weight in weights.items():
            with failures.survive(f"examine the filters of {name}", losing):
                found[name] = self._examine(name, weight, snapshot.geometry[name], steps)
        self._keep(weights, snapshot.step)
        self.news += self._follow(found, snapshot.step)
        return found

    def numbers(self, found: Mapping[str, KernelHealth]) -> dict[str, float]:
        """The curves of a snapshot that was observed, ``<layer>/<number>`` to the value.

        A number that was there before and is no more is NaN: whoever goes by it must not go on
        with its last value.
        """
        numbers: dict[str, float] = {}
        for layer, health in found.items():
            now = health.to_scalars()
            known = self._known.setdefault(layer, set())
            gone = known - now.keys()
            known.update(now)
            if not health.filters.norm.isnan().all():
                gone -= {"update_ratio"}  # known only of snapshots that are one step apart
            now |= dict.fromkeys(sorted(gone), nan)
            numbers |= {f"{layer}/{name}": value for name, value in now.items()}
        return numbers

    def summary(self) -> str:
        """How the layers were in the end, in a sentence; empty if none was examined."""
        return "; ".join(_in_short(health) for health in self._last.values())

    def _examine(
        self, name: str, weights: Tensor, geometry: Geometry, steps: int | None
    ) -> KernelHealth:
        if name not in self._energies:
            self._energies[name] = energy_under(
                self._probe, weights.shape, dilation=geometry.plane_dilation, groups=geometry.groups
            )
        return kernel_health(
            weights,
            name,
            first=_same_shape(self._first.get(name), weights),
            previous=_same_shape(self._previous.get(name), weights),
            steps_since_previous=steps,
            energy=self._energies[name],
            groups=geometry.groups,
        )

    def _keep(self, weights: dict[str, Tensor], step: int) -> None:
        for name, weight in weights.items():
            if _same_shape(self._first.get(name), weight) is None:
                self._first[name] = weight
        self._previous, self._previous_step = weights, step

    def _follow(self, found: Mapping[str, KernelHealth], step: int) -> list[str]:
        said = []
        for name, health in found.items():
            said += self._alarms.setdefault(name, Alarm()).observe(health, step)
            self._last[name] = health
        return said


def _host(snapshot: Snapshot) -> dict[str, Tensor]:
    return {name: to_host(weight.detach()).float() for name, weight in snapshot.weights.items()}


def _same_shape(reference: Tensor | None, weights: Tensor) -> Tensor | None:
    """A layer may be replaced by another of its name."""
    return reference if reference is not None and reference.shape == weights.shape else None


def _in_short(health: KernelHealth) -> str:
    counts = [(name, len(health.flagged(name))) for name in VERDICT_NAMES]
    said = [f"{count} {name}" for name, count in counts if count] or ["none with a verdict"]
    drift = health.totals.drift
    moved = f", drift {drift:.2g}" if drift == drift else ""
    return f"{health.layer}: of {health.shape[0]} filters {', '.join(said)}{moved}"

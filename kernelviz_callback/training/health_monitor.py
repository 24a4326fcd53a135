"""Examine the health of all watched layers of one training, snapshot by snapshot."""

from collections.abc import Iterable, Mapping
from math import isnan, nan

from torch import Tensor

from kernelviz_callback.filters.words import count_filters
from kernelviz_callback.health.alerts import LayerAlerts
from kernelviz_callback.health.examine import kernel_health
from kernelviz_callback.health.kernel_health import KernelHealth
from kernelviz_callback.health.missing_numbers import (
    NO_FIRST_SNAPSHOT,
    NO_PREVIOUS_SNAPSHOT,
    withheld_verdicts,
)
from kernelviz_callback.health.verdict_names import VERDICT_NAMES
from kernelviz_callback.model.convolutions import Geometry
from kernelviz_callback.model.host import to_host
from kernelviz_callback.probe.probe import Probe
from kernelviz_callback.probe.probe_energy import ProbeEnergy, energy_for_layer
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.training.failures import Failures

PREFIX = "kernelviz/"  # of the tags of health numbers
# Numbers that are 0 if they do not exist for lack of an earlier snapshot: the number, its name in
# `KernelHealth.absent`, and the reason there.
_ZERO_AT_START = (
    ("drift", "drift", NO_FIRST_SNAPSHOT),
    ("frozen", "frozen verdict", NO_PREVIOUS_SNAPSHOT),
)


class HealthMonitor:
    """Examines snapshots in order. Each is compared with the first and with the previous one.

    Args:
        probe: The fixed image.

    Attributes:
        news: Warnings for the user. The caller empties the list after reporting them.
    """

    def __init__(self, probe: Probe) -> None:
        self.news: list[str] = []
        self._probe = probe
        self._energies: dict[str, ProbeEnergy | str] = {}
        self._first: dict[str, Tensor] = {}
        self._previous: dict[str, Tensor] = {}
        self._previous_step: int | None = None
        self._alerts: dict[str, LayerAlerts] = {}
        self._last: dict[str, KernelHealth] = {}
        self._logged: dict[str, set[str]] = {}

    def recall(self, snapshots: Iterable[Snapshot], failures: Failures) -> None:
        """Continue after the snapshots of earlier attempts, without warnings.

        Args:
            snapshots: The snapshots in order. Those that have no recorded health are examined.
            failures: Receives the failures.
        """
        for snapshot in snapshots:
            if snapshot.health:
                self._update_alerts(snapshot.health, snapshot.step)
                self._keep(_weights_on_host(snapshot), snapshot.step)
                self.numbers(snapshot.health)
            else:
                self.observe(snapshot, failures)
        self.news.clear()

    def observe(self, snapshot: Snapshot, failures: Failures) -> dict[str, KernelHealth]:
        """Examine the next snapshot.

        Args:
            snapshot: The snapshot, which must be later than the previous one.
            failures: Receives the reason for each layer that cannot be examined.

        Returns:
            A mapping from layer name to health, without the layers that cannot be examined.
        """
        weights = _weights_on_host(snapshot)
        steps = None if self._previous_step is None else snapshot.step - self._previous_step
        consequence = "the health of these filters is unknown; snapshot files and pictures are kept"
        found = {}
        for name, weight in weights.items():
            with failures.survive(f"examine the filters of {name}", consequence):
                found[name] = self._examine(name, weight, snapshot.geometry[name], steps)
        self._keep(weights, snapshot.step)
        self.news += self._update_alerts(found, snapshot.step)
        return found

    def numbers(self, found: Mapping[str, KernelHealth]) -> dict[str, float]:
        """Return the numbers of an examined snapshot, as ``<layer>/<number>`` and the value.

        At the first snapshot of a layer, and at the first one after its shape changed, the drift is
        0 and no filter is frozen, although neither can be measured: a callback that monitors such a
        number ends the training if the number does not exist.

        If an earlier snapshot had a number that this snapshot does not have, the value is NaN.
        Otherwise `EarlyStopping` and similar callbacks would still use the earlier value. An update
        ratio is NaN only if all filters are non-finite: most snapshots have no update ratio, so
        Lightning's metrics keep the last one. They also keep the numbers of a layer that could not
        be read or examined: its NaN could end a training because of a fault in reading.
        """
        numbers: dict[str, float] = {}
        for layer, health in found.items():
            values = health.to_scalars()
            for name, absent, reason in _ZERO_AT_START:
                if health.absent.get(absent) == reason:
                    values[name] = 0.0
            logged = self._logged.setdefault(layer, set())
            missing = logged - values.keys()
            logged.update(values)
            if not health.filters.norm.isnan().all():
                # An update ratio exists only if the previous snapshot is one step earlier.
                missing -= {"update_ratio"}
            values |= dict.fromkeys(sorted(missing), nan)
            numbers |= {f"{layer}/{name}": value for name, value in values.items()}
        return numbers

    def summary(self) -> str:
        """Describe the last health of each layer in one line; empty if no layer was examined."""
        return "; ".join(_summary_of(health) for health in self._last.values())

    def _examine(
        self, name: str, weights: Tensor, geometry: Geometry, steps: int | None
    ) -> KernelHealth:
        if name not in self._energies:
            self._energies[name] = energy_for_layer(
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

    def _update_alerts(self, found: Mapping[str, KernelHealth], step: int) -> list[str]:
        """Keep the health of each layer, and return a warning for each new verdict."""
        warnings = []
        for name, health in found.items():
            warnings += self._alerts.setdefault(name, LayerAlerts()).update(health, step)
            self._last[name] = health
        return warnings


def _weights_on_host(snapshot: Snapshot) -> dict[str, Tensor]:
    return {name: to_host(weight.detach()).float() for name, weight in snapshot.weights.items()}


def _same_shape(reference: Tensor | None, weights: Tensor) -> Tensor | None:
    """Return the reference, or None if its shape differs because the layer was replaced."""
    return reference if reference is not None and reference.shape == weights.shape else None


def _summary_of(health: KernelHealth) -> str:
    counts = [(name, len(health.flagged(name))) for name in VERDICT_NAMES]
    verdicts = [f"{count} {name}" for name, count in counts if count] or ["none with a verdict"]
    withheld = [name for names in withheld_verdicts(health).values() for name in names]
    unknown = f" ({', '.join(withheld)} not judged)" if withheld else ""
    drift = health.totals.drift
    drifted = "" if isnan(drift) else f", drift {drift:.2g}"
    filters = count_filters(health.shape[0])
    return f"{health.layer}: {filters}, {', '.join(verdicts)}{unknown}{drifted}"

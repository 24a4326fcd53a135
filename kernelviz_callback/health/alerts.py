"""Decide when to warn the user of verdicts: once when they begin, not at every snapshot."""

from kernelviz_callback.health.kernel_health import KernelHealth
from kernelviz_callback.health.verdict_names import VERDICT_NAMES, VerdictName

# A verdict on a filter begins after this many snapshots in a row with it, and ends after as many
# without it. One snapshot is not enough: a filter near a limit crosses it back and forth from
# snapshot to snapshot. With more than two, a warning comes later, and the end of a short training
# would often come first. The verdict "non-finite" begins at once, because it never ends by itself.
SNAPSHOTS_TO_CHANGE = 2
_MOST_NAMED = 8  # filters in a warning

_CAUSES: dict[VerdictName, str] = {
    "non-finite": "a learning rate that is too high, an overflow in half precision, a division by "
    "zero in the loss",
    "near-zero": "ReLU units after them that are never active, a weight decay that is too strong, "
    "more filters than the task needs",
    "silent": "weights that cancel each other, input channels that are zero in the probe",
    "duplicate": "an initialization that copies filters, far more filters than the task needs",
    "dominating": "a learning rate that is too high, no weight decay, no normalization after the "
    "layer",
    "frozen": "units after them that pass no gradient any more, parameters that are not in the "
    "optimizer, updates below the precision of the weights",
    "noise-like": "a learning rate that is too high, gradients that are mostly noise",
}
_ADJECTIVES: dict[VerdictName, str] = {
    "duplicate": "duplicates",
    "silent": "silent on the probe",
}


class LayerAlerts:
    """Follows the verdicts on one layer, and returns a warning when a verdict begins.

    A verdict on a filter begins when the filter has had it at `SNAPSHOTS_TO_CHANGE` snapshots in a
    row, and ends when the filter has not had it at as many snapshots in a row. There is a warning
    when the verdict begins for the first filter of the layer, and again when the number of filters
    has doubled since that warning. After the verdict has ended for all filters, it can begin anew.

    Filters that are noise at the first snapshot cause no warning, because training starts from
    noise. There is a warning when the number of filters that are noise has doubled since it was
    smallest.
    """

    def __init__(self) -> None:
        # For each verdict: index of a filter to the steps in a row at which it had the verdict.
        self._starting: dict[VerdictName, dict[int, list[int]]] = {n: {} for n in VERDICT_NAMES}
        # For each verdict: index of a filter to the step since when it has the verdict.
        self._active: dict[VerdictName, dict[int, int]] = {name: {} for name in VERDICT_NAMES}
        # Index of a filter to the number of snapshots in a row without the verdict.
        self._ending: dict[VerdictName, dict[int, int]] = {name: {} for name in VERDICT_NAMES}
        # Number of filters that the present one is compared with.
        self._known: dict[VerdictName, int] = dict.fromkeys(VERDICT_NAMES, 0)
        # Verdicts with a warning since they began.
        self._warned: set[VerdictName] = set()
        self._is_first = True

    def update(self, health: KernelHealth, step: int) -> list[str]:
        """Record the health at a step, and return the warnings for the user."""
        warnings = [
            warning
            for name in VERDICT_NAMES
            if (warning := self._update(name, set(health.flagged(name)), health, step))
        ]
        self._is_first = False
        return warnings

    def _update(
        self, name: VerdictName, flagged: set[int], health: KernelHealth, step: int
    ) -> str | None:
        self._begin_and_end(name, flagged, step)
        if name == "noise-like" and self._is_first:
            self._active[name] = dict.fromkeys(flagged, step)
            self._known[name] = len(flagged)
            return None
        active = self._active[name]
        if not active:
            self._warned.discard(name)
        if name not in self._warned:
            self._known[name] = min(self._known[name], len(active))
        known = self._known[name]
        if len(active) < max(1, 2 * known):
            return None
        self._known[name] = len(active)
        self._warned.add(name)
        return _warning(name, active, known, health)

    def _begin_and_end(self, name: VerdictName, flagged: set[int], step: int) -> None:
        starting, ending, active = self._starting[name], self._ending[name], self._active[name]
        needed = 1 if name == "non-finite" else SNAPSHOTS_TO_CHANGE
        for i in flagged:
            ending.pop(i, None)
            if i in active:
                continue
            steps = starting.setdefault(i, [])
            if step not in steps:  # a snapshot that is examined again counts once
                steps.append(step)
            if len(steps) >= needed:
                active[i] = starting.pop(i)[0]
        for i in starting.keys() - flagged:
            del starting[i]
        for i in active.keys() - flagged:
            ending[i] = ending.get(i, 0) + 1
            if ending[i] >= SNAPSHOTS_TO_CHANGE:
                del active[i], ending[i]


def _warning(name: VerdictName, active: dict[int, int], known: int, health: KernelHealth) -> str:
    filters = sorted(active)
    named = ", ".join(map(str, filters[:_MOST_NAMED]))
    more = ", ..." if len(filters) > _MOST_NAMED else ""
    was = f" (was {known})" if known else ""
    first, last = min(active.values()), max(active.values())
    since = f"step {first}" if first == last else f"steps {first} to {last}"
    verb = "is" if len(filters) == 1 else "are"
    return (
        f"{health.layer}: {len(filters)} of {health.shape[0]} filters {verb} "
        f"{_ADJECTIVES.get(name, name)} since {since}{was}: {named}{more}. "
        f"Common causes: {_CAUSES[name]}"
    )

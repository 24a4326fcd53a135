"""When to tell the user of a verdict: when it begins and stays, not at every snapshot."""

from kernelviz_callback.health.kernel_health import KernelHealth
from kernelviz_callback.health.verdict_names import VERDICT_NAMES, VerdictName

# Snapshots in a row that a verdict must hold to begin, and must be gone to end. What is not finite
# is said at once.
PATIENCE = 2
_MOST_NAMED = 8

_CAUSES: dict[VerdictName, str] = {
    "non-finite": "a learning rate that is too high, an overflow in half precision, a loss that "
    "divides by zero",
    "near-zero": "units behind them that never open, a weight decay that is too strong, more "
    "filters than the task needs",
    "silent": "weights that cancel each other, input channels that are empty in the probe",
    "duplicate": "an initialization that copies filters, far more filters than the task needs",
    "dominating": "a learning rate that is too high, no weight decay, no normalization behind the "
    "layer",
    "frozen": "units behind them that no longer pass a gradient, parameters that the optimizer "
    "does not have, updates below the precision of the weights",
    "noise-like": "a learning rate that is too high, gradients that are mostly noise",
}
_IS: dict[VerdictName, str] = {
    "duplicate": "duplicates",
    "frozen": "frozen while the layer moves",
    "silent": "silent on the probe",
}


class Alarm:
    """Follows the verdicts on one layer and says when something begins.

    A verdict begins for a filter when it has held for two snapshots, and ends when it has been gone
    for two. The user is told when a layer has the first such filter, and again when their number
    has doubled since. Filters that are noise at the first snapshot are what training starts from.
    """

    def __init__(self) -> None:
        self._held: dict[VerdictName, dict[int, int]] = {name: {} for name in VERDICT_NAMES}
        self._gone: dict[VerdictName, dict[int, int]] = {name: {} for name in VERDICT_NAMES}
        self._begun: dict[VerdictName, dict[int, int]] = {name: {} for name in VERDICT_NAMES}
        self._told: dict[VerdictName, int] = dict.fromkeys(VERDICT_NAMES, 0)
        self._is_new = True

    def observe(self, health: KernelHealth, step: int) -> list[str]:
        """Take in the health at a step, and return what the user should now be told."""
        said = [
            sentence
            for name in VERDICT_NAMES
            if (sentence := self._observe(name, set(health.flagged(name)), health, step))
        ]
        self._is_new = False
        return said

    def _observe(
        self, name: VerdictName, flagged: set[int], health: KernelHealth, step: int
    ) -> str | None:
        self._follow(name, flagged, step)
        begun, told = self._begun[name], self._told[name]
        if name == "noise-like" and self._is_new:
            self._begun[name] = dict.fromkeys(flagged, step)
            self._told[name] = len(flagged)
            return None
        if len(begun) <= told // 2:
            self._told[name] = told = len(begun)
        if not begun or len(begun) < max(1, 2 * told):
            return None
        self._told[name] = len(begun)
        return _sentence(name, begun, told, health)

    def _follow(self, name: VerdictName, flagged: set[int], step: int) -> None:
        held, gone, begun = self._held[name], self._gone[name], self._begun[name]
        patience = 1 if name == "non-finite" else PATIENCE
        for i in flagged:
            gone.pop(i, None)
            if i in begun:
                continue
            since = held.setdefault(i, step)
            if since != step or patience == 1:
                begun[i] = held.pop(i)
        for i in held.keys() - flagged:
            del held[i]
        for i in begun.keys() - flagged:
            gone[i] = gone.get(i, 0) + 1
            if gone[i] >= PATIENCE:
                del begun[i], gone[i]


def _sentence(name: VerdictName, begun: dict[int, int], told: int, health: KernelHealth) -> str:
    filters = sorted(begun)
    named = ", ".join(map(str, filters[:_MOST_NAMED]))
    more = ", ..." if len(filters) > _MOST_NAMED else ""
    was = f" (was {told})" if told else ""
    verb = "is" if len(filters) == 1 else "are"
    return (
        f"{health.layer}: {len(filters)} of {health.shape[0]} filters {verb} {_IS.get(name, name)} "
        f"since step {max(begun.values())}{was}: {named}{more}. Common causes: {_CAUSES[name]}"
    )

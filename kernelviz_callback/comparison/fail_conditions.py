"""Conditions on the numbers of a comparison, for ``--fail-if``, such as ``drift>0.5``."""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isnan

# Names of the numbers that a condition can use, see `Comparison.numbers`.
NUMBERS = (
    "drift",
    "mean_cosine",
    "min_cosine",
    "mean_change",
    "max_change",
    "mean_correlation",
    "new_verdicts",
    "gone_verdicts",
    "dead_filters",
    "duplicates",
    "dominating",
    "frozen",
    "non_finite",
    "sparsity",
    "effective_rank",
    "variance_entropy",
    "orthogonality",
    "edge_share",
    "colour_share",
    "blob_share",
    "noise_share",
)
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
_FORM = re.compile(r"\s*(\w+)\s*(<=|>=|==|!=|<|>)\s*(\S+)\s*")


@dataclass(frozen=True)
class Condition:
    """A comparison of a number with a limit.

    Attributes:
        number: Name of the number, one of `NUMBERS`.
        sign: The comparison, for example ">".
        limit: The limit.
    """

    number: str
    sign: str
    limit: float

    def __str__(self) -> str:
        return f"{self.number}{self.sign}{self.limit:g}"

    def holds(self, numbers: Mapping[str, float]) -> bool:
        """Check whether the condition is true.

        Args:
            numbers: Name to number.

        Raises:
            ValueError: If the number is missing or NaN.
        """
        value = numbers.get(self.number, float("nan"))
        if isnan(value):
            raise ValueError(f"{self} cannot be checked: it has no {self.number}")
        return _COMPARISONS[self.sign](value, self.limit)


def parse_condition(text: str) -> Condition:
    """Parse a condition.

    Raises:
        ValueError: If the text is not a condition, or the number is unknown. The message lists the
            known numbers.

    Example:
        >>> parse_condition("drift > 0.5").holds({"drift": 0.7})
        True
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"expected a condition such as drift>0.5; found {text!r}")
    number, sign, limit = match.groups()
    if number not in NUMBERS:
        raise ValueError(f"unknown number {number!r}; expected one of {', '.join(NUMBERS)}")
    try:
        return Condition(number, sign, float(limit))
    except ValueError:
        raise ValueError(f"expected a number after {sign} in {text!r}; found {limit!r}") from None

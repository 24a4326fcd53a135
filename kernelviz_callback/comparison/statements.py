"""Sentences about a comparison: how filters were matched, and what cannot be compared."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from kernelviz_callback.comparison.comparison import Column
from kernelviz_callback.filters.words import count_filters

# Note about a checkpoint for which the order of the filters cannot be determined from the weights.
ORDER_ASSUMED = "filter order could not be verified; it is assumed to be unchanged"


def make_statements(columns: Sequence[Column], *, is_chosen: bool) -> tuple[str, ...]:
    """Write sentences about how the filters were matched, and which numbers exist as a result.

    Args:
        columns: The checkpoints.
        is_chosen: Whether the user chose how filters are matched, instead of `compare`.
    """
    first, last = columns[0], columns[-1]
    statements: list[str] = []
    is_known = is_chosen or not any(ORDER_ASSUMED in column.notes for column in columns)
    common = [note for note in first.notes if all(note in c.notes for c in columns)]
    if is_known and all(column.match == "index" for column in columns):
        similar = "each checkpoint is similar to the first one or to the one before it"
        reason = "as you chose" if is_chosen else similar
        statements.append(f"Filters with the same index are compared: {reason}.")
    statements += [f"{first.label}: {note}." for note in first.notes if note not in common]
    statements += _merge(
        remark for column in columns[1:] for remark in _remarks(column, first, common, is_chosen)
    )
    if len({column.layer for column in columns}) > 1:
        statements.append(
            f"The layer is {first.layer} in {first.label} and {last.layer} in {last.label}."
        )
    statements += [f"Every checkpoint: {note}." for note in common]
    return tuple(dict.fromkeys(statements))


class _Remark(NamedTuple):
    """What is said about a checkpoint, and the similarity of its filters that is stated with it."""

    column: Column
    text: str
    alike: Literal["cosine", "correlation"] | None = None


def _remarks(
    column: Column, first: Column, common: Sequence[str], is_chosen: bool
) -> Iterator[_Remark]:
    if column.match == "weights":
        text = f"{_why_by_weights(column, first, is_chosen)}each filter was matched with the "
        yield _Remark(column, f"{text}filter whose weights are most similar.", "cosine")
    if column.shape[1:] != first.shape[1:]:
        yield _Remark(
            column,
            f"the weights of filters {_size(column.shape[1:])} and {_size(first.shape[1:])} cannot "
            "be compared, so there is no cosine, change or drift. Responses to the same probe, "
            "spectra, colours and verdicts can be compared.",
            "correlation",
        )
    elif column.match == "responses":
        text = "each filter was matched with the filter whose response is most correlated."
        yield _Remark(column, text, "correlation")
    for note in column.notes:
        if note not in common:
            yield _Remark(column, f"{note}.")
    missing = first.shape[0] - column.shape[0]
    verb = "has" if abs(missing) == 1 else "have"
    if missing > 0:
        text = f"{count_filters(missing)} of {first.label} {verb} no partner here."
        yield _Remark(column, text)
    if missing < 0:
        text = f"{-missing} of its filters {verb} no partner in {first.label}."
        yield _Remark(column, text)


def _merge(remarks: Iterable[_Remark]) -> Iterator[str]:
    """Make one statement of the equal remarks about several checkpoints."""
    merged: dict[tuple[str, str | None], list[Column]] = {}
    for remark in remarks:
        merged.setdefault((remark.text, remark.alike), []).append(remark.column)
    for (text, alike), columns in merged.items():
        more = f" and {len(columns) - 1} more" if len(columns) > 1 else ""
        yield f"{columns[0].label}{more}: {text}{_mean_and_chance(alike, columns)}"


def _why_by_weights(column: Column, first: Column, is_chosen: bool) -> str:
    """Say why filters were not matched by index; nothing if the user chose how to match them."""
    if is_chosen:
        return ""
    if column.shape[0] == first.shape[0]:
        return (
            f"filters with the same index as in {first.label} are no more similar to them than "
            "other filters, as after a separate training; "
        )
    return f"it has {count_filters(column.shape[0])} and {first.label} has {first.shape[0]}; "


def _mean_and_chance(alike: str | None, columns: Sequence[Column]) -> str:
    found = [c.weights_alike if alike == "cosine" else c.responses_alike for c in columns]
    known = [each for each in found if each is not None]
    if alike is None or not known:
        return ""
    means = _range([each.mean for each in known])
    chances = _range([each.chance for each in known])
    return f" Mean {alike} of partners {means}; random filters reach {chances}."


def _range(values: Sequence[float]) -> str:
    ends = dict.fromkeys(f"{value:.2f}" for value in (min(values), max(values)))
    return " to ".join(ends)


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))

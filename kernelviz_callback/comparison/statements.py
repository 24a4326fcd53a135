"""Sentences about a comparison: how filters were matched, and what cannot be compared."""

from collections.abc import Sequence

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
        reason = "as you chose" if is_chosen else "all checkpoints are of one training"
        statements.append(f"Filters with the same index are compared: {reason}.")
    statements += [f"{first.label}: {note}." for note in first.notes if note not in common]
    for column in columns[1:]:
        if column.match == "weights":
            statements.append(
                f"{column.label}: {_why_by_weights(column, first, is_chosen)}each filter was "
                f"matched with the filter whose weights are most similar."
                f"{_mean_and_chance('cosine', column)}"
            )
        if column.shape[1:] != first.shape[1:]:
            statements.append(
                f"{column.label}: the weights of filters {_size(column.shape[1:])} and "
                f"{_size(first.shape[1:])} cannot be compared, so there is no cosine, change or "
                "drift. Responses to the same probe, spectra, colours and verdicts can be "
                f"compared.{_mean_and_chance('correlation', column)}"
            )
        elif column.match == "responses":
            statements.append(
                f"{column.label}: each filter was matched with the filter whose response is most "
                f"correlated.{_mean_and_chance('correlation', column)}"
            )
        statements += [f"{column.label}: {note}." for note in column.notes if note not in common]
        missing = first.shape[0] - column.shape[0]
        if missing > 0:
            statements.append(
                f"{column.label}: {count_filters(missing)} of {first.label} "
                f"{'has' if missing == 1 else 'have'} no partner here."
            )
        if missing < 0:
            statements.append(
                f"{column.label}: {-missing} of its filters "
                f"{'has' if missing == -1 else 'have'} no partner in {first.label}."
            )
    if len({column.layer for column in columns}) > 1:
        statements.append(
            f"The layer is {first.layer} in {first.label} and {last.layer} in {last.label}."
        )
    statements += [f"Every checkpoint: {note}." for note in common]
    return tuple(dict.fromkeys(statements))


def _why_by_weights(column: Column, first: Column, is_chosen: bool) -> str:
    """Say why filters were not matched by index; nothing if the user chose how to match them."""
    if is_chosen:
        return ""
    if column.shape[0] == first.shape[0]:
        order = f"the filters are in a different order from those of {first.label}"
        return f"{order}, as after a separate training; "
    return f"it has {count_filters(column.shape[0])} and {first.label} has {first.shape[0]}; "


def _mean_and_chance(what: str, column: Column) -> str:
    alike = column.weights_alike if what == "cosine" else column.responses_alike
    if alike is None:
        return ""
    return f" Mean {what} of partners {alike.mean:.2f}; random filters reach {alike.chance:.2f}."


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))

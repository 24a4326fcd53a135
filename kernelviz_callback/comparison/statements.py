"""Sentences about a comparison: how filters were matched, and what cannot be compared."""

from collections.abc import Sequence

from kernelviz_callback.comparison.comparison import Column

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
    for column in columns[1:]:
        if column.match == "weights":
            order = f"the filters are in a different order from those of {first.label}"
            reason = "" if is_chosen else f"{order}, as after a separate training; "
            statements.append(
                f"{column.label}: {reason}each filter was matched with the filter whose weights "
                f"are most similar.{_mean_and_chance('cosine', column)}"
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
                f"{column.label}: {missing} filters of {first.label} have no partner here."
            )
        if missing < 0:
            statements.append(
                f"{column.label}: {-missing} of its filters have no partner in {first.label}."
            )
    if len({column.layer for column in columns}) > 1:
        statements.append(
            f"The layer is {first.layer} in {first.label} and {last.layer} in {last.label}."
        )
    statements += [f"Every checkpoint: {note}." for note in common]
    return tuple(dict.fromkeys(statements))


def _mean_and_chance(what: str, column: Column) -> str:
    alike = column.weights_alike if what == "cosine" else column.responses_alike
    if alike is None:
        return ""
    return f" Mean {what} of partners {alike.mean:.2f}; random filters reach {alike.chance:.2f}."


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))

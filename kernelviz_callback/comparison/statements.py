"""What a comparison can tell and what it cannot, in sentences."""

from collections.abc import Sequence

from kernelviz_callback.comparison.comparison import Column

# The note of a checkpoint whose filters may have any order.
TAKEN_FOR_IT = "whether filter i is still filter i cannot be told; it is taken for it"


def state(columns: Sequence[Column], *, asked: bool) -> tuple[str, ...]:
    """Say how the filters were paired off, and what that means for the numbers.

    Args:
        columns: The checkpoints.
        asked: Whether it was the user who decided how.
    """
    first, last = columns[0], columns[-1]
    said: list[str] = []
    is_known = asked or not any(TAKEN_FOR_IT in column.notes for column in columns)
    common = [note for note in first.notes if all(note in c.notes for c in columns)]
    if is_known and all(column.match == "index" for column in columns):
        why = "as asked" if asked else "they are of one training"
        said.append(f"Filter i is filter i in every checkpoint: {why}.")
    for column in columns[1:]:
        if column.match == "weights":
            order = f"the filters are in another order than in {first.label}"
            why = "" if asked else f"{order}, as after a training of its own; "
            said.append(
                f"{column.label}: {why}each was paired off with the one of the most similar "
                f"weights.{_beside_chance('cosine', column)}"
            )
        if column.shape[1:] != first.shape[1:]:
            said.append(
                f"{column.label}: filters {_by(column.shape[1:])} and {_by(first.shape[1:])} "
                "have no weights in common to compare: no cosine, change or drift. Their responses "
                "to the same probe can be compared, and their spectra, colours and verdicts."
                f"{_beside_chance('correlation', column)}"
            )
        elif column.match == "responses":
            said.append(
                f"{column.label}: each filter was paired off with the one of the most correlated "
                f"response.{_beside_chance('correlation', column)}"
            )
        said += [f"{column.label}: {note}." for note in column.notes if note not in common]
        missing = first.shape[0] - column.shape[0]
        if missing > 0:
            said.append(
                f"{column.label}: {missing} filters of {first.label} have no partner in it."
            )
        if missing < 0:
            said.append(
                f"{column.label}: {-missing} of its filters have no partner in {first.label}."
            )
    if len({column.layer for column in columns}) > 1:
        said.append(
            f"The layer is {first.layer} in {first.label} and {last.layer} in {last.label}."
        )
    said += [f"Every checkpoint: {note}." for note in common]
    return tuple(dict.fromkeys(said))


def _beside_chance(what: str, column: Column) -> str:
    alike = column.weights_alike if what == "cosine" else column.responses_alike
    if alike is None:
        return ""
    return f" Mean {what} of partners {alike.mean:.2f}; random filters reach {alike.chance:.2f}."


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))

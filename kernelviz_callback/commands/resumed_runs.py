"""Whether what a user names is one training: filters of two cannot be followed through time."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import pairwise
from typing import NamedTuple

from kernelviz_callback.checkpoints.find import find_checkpoints
from kernelviz_callback.commands.failures import Failures
from kernelviz_callback.commands.history import LayerHistory
from kernelviz_callback.comparison.matching import cosines, has_same_order
from kernelviz_callback.drawing.animation.sampling import film_steps
from kernelviz_callback.drawing.animation.strip import MOST_COLUMNS
from kernelviz_callback.snapshots.names import snapshot_step
from kernelviz_callback.storage import Folder, as_folder

_OF_A_RUN = ("kernelviz", "checkpoints")  # folders: what is in them is of the run above


class Training(NamedTuple):
    """The checkpoints of one training, and what a user should know of them, a sentence each."""

    names: list[str]
    notes: list[str]


def of_one_training(files: Iterable[str], failures: Failures) -> Training:
    """List the checkpoints that names stand for, see `find_checkpoints`.

    Several runs of snapshots are one training if each begins at another step: one that is resumed
    goes on in a new folder. What was recorded after the step it goes on from is left out.

    Raises:
        ValueError: If they are several trainings, or a folder of runs; the message names them.
    """
    names: list[str] = []
    runs: dict[str, list[str]] = {}
    for given in files:
        with failures.survive():
            found = _found(given)
            names += found
            if found != [given]:
                for name in found:
                    runs.setdefault(str(_run_of(name)), []).append(name)
    attempts = _attempts(runs)
    if attempts is None:
        several = [run for run, own in runs.items() if len(own) > 1]
        if len(several) < 2:
            return Training(names, [])
        raise ValueError(
            f"these are {len(several)} trainings: {_listed(several)}; name one, or the folders of "
            "one that was resumed, each of which begins at another step"
        )
    notes = []
    left_out: set[str] = set()
    for before, after in pairwise(attempts):
        left_out |= {name for step, name in before.snapshots.items() if step >= after.start}
        notes.append(f"resumed at step {after.start} in {after.run}")
        if max(before.snapshots) > after.start:
            notes[-1] += f": later snapshots in {before.run} left out"
    return Training([name for name in names if name not in left_out], notes)


def other_order(history: LayerHistory) -> str | None:
    """Say which checkpoint has its filters in another order than the one before it.

    Those that are shown in a film strip are compared, each with the next. The snapshots in a folder
    are of one training: nothing is read for them.
    """
    steps = film_steps(list(history.names), MOST_COLUMNS)
    folders = {as_folder(history.names[step]).parent for step in steps}
    if len(folders) == 1 and None not in map(snapshot_step, history.names.values()):
        return None
    before = None
    for step in steps:
        with suppress(ValueError, OSError):  # whoever shows it will say so
            weights = history.read(step).weights[history.layer]
            if before is not None and has_same_order(cosines(before, weights)) is False:
                return (
                    f"the filters of {history.names[step]} are in another order than those before "
                    "it: as of another training"
                )
            before = weights
    return None


class _Attempt(NamedTuple):
    """What was recorded of a training until it ended or was cut off: step to snapshot."""

    start: int
    run: str
    snapshots: dict[int, str]


def _attempts(runs: Mapping[str, list[str]]) -> list[_Attempt] | None:
    """Runs in the order of their first steps; None if they are not the attempts at one training."""
    found = []
    for run, names in runs.items():
        snapshots = {step: name for name in names if (step := snapshot_step(name)) is not None}
        if None in map(snapshot_step, names):
            return None
        found.append(_Attempt(min(snapshots), run, snapshots))
    found.sort(key=lambda attempt: attempt.start)
    return found if len({attempt.start for attempt in found}) == len(found) else None


def _found(given: str) -> list[str]:
    try:
        return find_checkpoints(given)
    except FileNotFoundError:
        runs = _runs_in(as_folder(given))
        if not runs:
            raise
    raise ValueError(f"{given}: these are runs: {_listed(runs)}; name one")


def _runs_in(folder: Folder) -> list[str]:
    runs = []
    for below in folder.iterdir() if folder.is_dir() else ():
        with suppress(ValueError, OSError):
            if below.is_dir() and find_checkpoints(str(below)):
                runs.append(below.name)
    return sorted(runs)


def _run_of(name: str) -> Folder:
    folder = as_folder(name).parent
    return folder.parent if folder.name in _OF_A_RUN else folder


def _listed(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")

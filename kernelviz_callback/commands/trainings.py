"""Whether what a user names is one training: filters of two cannot be followed through time."""

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress

from kernelviz_callback.commands.failures import Failures
from kernelviz_callback.comparing.matching import cosines, in_place
from kernelviz_callback.filming.film import MOST_COLUMNS
from kernelviz_callback.filming.history import LayerHistory, is_snapshot
from kernelviz_callback.filming.reel import film_steps
from kernelviz_callback.opening.sources import find_checkpoints
from kernelviz_callback.storage import Folder, as_folder

_OF_A_RUN = ("kernelviz", "checkpoints")  # folders: what is in them is of the run above


def of_one_training(files: Iterable[str], failures: Failures) -> list[str]:
    """List the checkpoints that names stand for, see `find_checkpoints`.

    Raises:
        ValueError: If they are several runs, or a folder of runs; the message names them.
    """
    names: list[str] = []
    runs: Counter[str] = Counter()
    for given in files:
        with failures.survive():
            found = _found(given)
            names += found
            if found != [given]:
                runs.update(str(_run_of(name)) for name in found)
    several = [run for run, count in runs.items() if count > 1]
    if len(several) > 1:
        raise ValueError(f"these are {len(several)} trainings: {_listed(several)}; name one")
    return names


def other_order(history: LayerHistory) -> str | None:
    """Say which checkpoint has its filters in another order than the one before it.

    Those that are shown in a film strip are compared, each with the next. The snapshots in a folder
    are of one training: nothing is read for them.
    """
    steps = film_steps(list(history.names), MOST_COLUMNS)
    folders = {as_folder(history.names[step]).parent for step in steps}
    if len(folders) == 1 and all(is_snapshot(name) for name in history.names.values()):
        return None
    before = None
    for step in steps:
        with suppress(ValueError, OSError):  # whoever shows it will say so
            weights = history.read(step).weights[history.layer]
            if before is not None and in_place(cosines(before, weights)) is False:
                return (
                    f"the filters of {history.names[step]} are in another order than those before "
                    "it: as of another training"
                )
            before = weights
    return None


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

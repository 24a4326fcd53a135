"""Find the checkpoints of one training, also if it was resumed in another run folder.

Filters can only be followed within one training: in another training, filter i is another filter.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import pairwise
from typing import NamedTuple

from kernelviz_callback.checkpoints.checkpoint_files import SUBFOLDERS
from kernelviz_callback.checkpoints.find import find_checkpoints, without_repeated_shards
from kernelviz_callback.commands.file_errors import FileErrors
from kernelviz_callback.commands.history import LayerHistory
from kernelviz_callback.comparison.matching import cosines, has_same_order
from kernelviz_callback.drawing.animation.sampling import choose_steps
from kernelviz_callback.drawing.animation.strip import MOST_COLUMNS
from kernelviz_callback.snapshots.names import snapshot_step
from kernelviz_callback.snapshots.run_folders import list_recorded
from kernelviz_callback.storage import Folder, as_folder


class Training(NamedTuple):
    """The checkpoints of one training.

    Attributes:
        names: Names for `open_checkpoint`.
        notes: Notes for the user, one sentence each.
    """

    names: list[str]
    notes: list[str]


def find_training(files: Iterable[str], failures: FileErrors) -> Training:
    """List the checkpoints of one training.

    Several run folders with snapshots belong to one training if each begins at another step: a
    training that is resumed writes into a new folder. Snapshots of the earlier folder at or after
    the step of the resume are left out, since the training took these steps again.

    Args:
        files: Names as for `find_checkpoints`.
        failures: Reports names that cannot be used.

    Raises:
        ValueError: If the files are from several trainings. The message names them.
    """
    names: list[str] = []
    folders: dict[str, list[str]] = {}
    for given in without_repeated_shards(files):
        with failures.catch():
            found = find_checkpoints(given)
            names += found
            if found != [given]:
                parents = {name: as_folder(name).parent for name in found}
                runs = {parent: str(_run_folder(parent)) for parent in {*parents.values()}}
                for name, parent in parents.items():
                    folders.setdefault(runs[parent], []).append(name)
    recordings = _order_recordings(folders)
    if recordings is None:
        several = [folder for folder, own in folders.items() if len(own) > 1]
        if len(several) < 2:
            return Training(names, [])
        raise ValueError(
            f"these are {len(several)} trainings: {_listed(several)}; name one training. The "
            "folders of a resumed training can be named together if each begins at another step"
        )
    notes = []
    left_out: set[str] = set()
    for before, after in pairwise(recordings):
        left_out |= {name for step, name in before.snapshots.items() if step >= after.start}
        notes.append(f"resumed at step {after.start} in {after.folder}")
        if max(before.snapshots) > after.start:
            notes[-1] += f": later snapshots in {before.folder} left out"
    return Training([name for name in names if name not in left_out], notes)


def describe_order_change(history: LayerHistory) -> str | None:
    """Name the first checkpoint whose filters have another order than in the one before it.

    Only the checkpoints of a film strip are compared, each with the next. Snapshots in one folder
    are from one training, so they are not read.

    Returns:
        A sentence for the user, None if the order stays.
    """
    steps = choose_steps(list(history.names), MOST_COLUMNS)
    folders = {as_folder(history.names[step]).parent for step in steps}
    if len(folders) == 1 and None not in map(snapshot_step, history.names.values()):
        return None
    before = None
    for step in steps:
        with suppress(ValueError, OSError):  # reported later, when the step is drawn
            weights = history.read(step).weights[history.layer]
            if before is not None and has_same_order(cosines(before, weights)) is False:
                return (
                    f"the filters of {history.names[step]} are in another order than those before "
                    "it; the two may be from different trainings"
                )
            before = weights
    return None


class _RunFolder(NamedTuple):
    """The snapshots in one run folder.

    Attributes:
        start: Step of the first snapshot.
        folder: The run folder.
        snapshots: Step to name.
    """

    start: int
    folder: str
    snapshots: dict[int, str]


def _order_recordings(folders: Mapping[str, list[str]]) -> list[_RunFolder] | None:
    """Sort run folders by their first steps.

    Returns:
        None if two folders begin at the same step, or a checkpoint is not a snapshot.
    """
    recordings = []
    for folder, names in folders.items():
        snapshots = {step: name for name in names if (step := snapshot_step(name)) is not None}
        if None in map(snapshot_step, names):
            return None
        recordings.append(_RunFolder(min(snapshots), folder, snapshots))
    recordings.sort(key=lambda recording: recording.start)
    starts = {recording.start for recording in recordings}
    return recordings if len(starts) == len(recordings) else None


def _run_folder(folder: Folder) -> Folder:
    """Return the folder around a folder of checkpoints if it has no other training."""
    if folder.name not in SUBFOLDERS:
        return folder
    trainings = 0
    with suppress(OSError):  # the parent may not be listed
        trainings = len(list_recorded(folder.parent))
    return folder.parent if trainings < 2 else folder


def _listed(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")

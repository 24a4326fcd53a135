"""Open the run folder of a training, and list what earlier attempts left in it."""

import contextlib
from dataclasses import dataclass, field

from kernelviz_callback.console import warn
from kernelviz_callback.snapshots.attempt import Attempt
from kernelviz_callback.snapshots.format import load_snapshot
from kernelviz_callback.snapshots.names import list_snapshots, set_aside
from kernelviz_callback.snapshots.probe_file import load_saved_probe
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.storage import Folder, Location, read_whole, write_whole
from kernelviz_callback.training.run_lock import RunLock, lock_run_folder

# Holds a step. Pictures of the snapshots from that step on may be missing.
_UNLOGGED_FILE = ".unsure"
_MOST_BYTES = 100


@dataclass(frozen=True)
class RunFolder:
    """A locked run folder, and what earlier attempts of the training left in it.

    Attributes:
        lock: The lock of the folder.
        has_probe: Whether the folder holds the probe of the first snapshot.
        set_aside: New paths of the snapshots that an abandoned attempt took after the first step.
        kept: Paths of the earlier snapshots, in the order of their steps.
        has_first: Whether the first snapshot is one of them: same step, layers of the same shape.
        maybe_unlogged: Those of ``kept`` whose pictures may be missing, because the last attempt
            was killed.
    """

    lock: RunLock
    has_probe: bool = False
    set_aside: list[Folder] = field(default_factory=list)
    kept: list[Folder] = field(default_factory=list)
    has_first: bool = False
    maybe_unlogged: list[Folder] = field(default_factory=list)

    def mark_logged(self) -> None:
        """Note in the folder that the pictures of all earlier snapshots are logged."""
        if self.maybe_unlogged:
            (self.lock.folder / _UNLOGGED_FILE).unlink(missing_ok=True)


def open_run_folder(
    log_dir: Location, *, last: Attempt | None, first: Snapshot, most_unlogged: int
) -> RunFolder:
    """Lock the run folder of a training and read what earlier attempts left in it.

    Args:
        log_dir: See `lock_run_folder`.
        last: See `lock_run_folder`.
        first: The first snapshot of this attempt. Snapshots of later steps are set aside.
        most_unlogged: Largest number of snapshots whose pictures a killed process loses.

    Raises:
        OSError: If the folder cannot be read or written; then it is not locked.
    """
    lock = lock_run_folder(log_dir, last=last)
    try:
        has_probe = _has_probe(lock.folder, first.probe_digest)
        if not lock.is_resumed:
            return RunFolder(lock, has_probe)
        moved = set_aside(lock.folder, after=first.step)
        kept = list_snapshots(lock.folder)
        return RunFolder(
            lock,
            has_probe,
            set_aside=moved,
            kept=list(kept.values()),
            has_first=first.step in kept and _has_layers_of(kept[first.step], first),
            maybe_unlogged=_maybe_unlogged(lock.folder, kept, most_unlogged)
            if lock.was_killed
            else [],
        )
    except BaseException:
        lock.release(finished=not lock.was_killed)
        raise


def _has_probe(folder: Folder, digest: str | None) -> bool:
    """Return whether the folder holds the probe. A probe that cannot be read is written again."""
    try:
        return load_saved_probe(folder, digest) is not None
    except Exception as error:  # of a remote storage: a class of its own
        warn(f"could not read the probe in {folder}: {error!r}; it is written again")
        return False


def _maybe_unlogged(folder: Folder, kept: dict[int, Folder], most: int) -> list[Folder]:
    """Find the last snapshots, and all that earlier attempts could not log again.

    The first of their steps is written to a file before anything new is recorded. So the same
    snapshots are found again if this attempt is killed too.
    """
    since = list(kept)[-most:][:1]
    with contextlib.suppress(OSError, ValueError):  # no file: everything before was logged
        since.append(int(read_whole(folder / _UNLOGGED_FILE, _MOST_BYTES)))
    found = [path for step, path in kept.items() if step >= min(since)]
    if found:
        try:
            write_whole(folder / _UNLOGGED_FILE, str(min(since)).encode())
        except OSError as error:
            warn(
                f"could not write {folder / _UNLOGGED_FILE}: {error}; if this training is killed, "
                "pictures of earlier snapshots may be lost"
            )
    return found


def _has_layers_of(path: Folder, snapshot: Snapshot) -> bool:
    try:
        kept = load_snapshot(path)
    except (OSError, ValueError):
        return False
    # A layer that cannot be read is left out of a snapshot, and the file may have it.
    shapes = {name: weights.shape for name, weights in kept.weights.items()}
    return all(shapes.get(name) == weights.shape for name, weights in snapshot.weights.items())

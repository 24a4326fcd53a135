"""Write the files of snapshots into the run folder."""

from dataclasses import dataclass

from kernelviz_callback.console import warn
from kernelviz_callback.drawing.encode import EncodedImage
from kernelviz_callback.probe.probe import Probe
from kernelviz_callback.snapshots.attempt import Attempt
from kernelviz_callback.snapshots.format import save_snapshot
from kernelviz_callback.snapshots.probe_file import load_saved_probe, save_probe
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.storage import Folder, write_whole
from kernelviz_callback.training.run_lock import RunLock, lock_run_folder


@dataclass(frozen=True)
class Recording:
    """Where an attempt is recorded, and from which step on.

    Attributes:
        folder: The run folder.
        attempt: The attempt.
        began_at: Step of the first snapshot of the attempt.
    """

    folder: Folder
    attempt: Attempt
    began_at: int


class SnapshotFiles:
    """Writes snapshots and the probe into a locked run folder.

    If the folder is deleted while the training runs, another folder is locked, and a
    new attempt begins.

    Args:
        lock: The lock of the folder. Only this object releases it.
        probe: The fixed image.
        began_at: Step of the first snapshot.

    Attributes:
        recording: The folder and the attempt at present.
        written: Number of snapshots that were written into the present folder.
        deleted: Number of snapshots that were deleted together with their folder.
    """

    def __init__(self, lock: RunLock, probe: Probe, *, began_at: int) -> None:
        self.recording = Recording(lock.folder, lock.attempt, began_at)
        self.written = 0
        self.deleted = 0
        self._lock = lock
        self._probe = probe
        self._has_probe = False

    def write(self, snapshot: Snapshot) -> None:
        """Write a snapshot.

        Raises:
            OSError: If it cannot be written.
        """
        if self._lock.is_lost():
            self._replace_folder(snapshot.step)
        save_snapshot(snapshot, self.recording.folder)
        self.written += 1

    def write_probe(self) -> None:
        """Write the probe and its picture, unless the folder holds them already.

        Raises:
            OSError: If they cannot be written.
        """
        if self._has_probe:
            return
        folder = self.recording.folder
        if load_saved_probe(folder, self._probe.digest) is None:
            save_probe(self._probe, folder)
            picture = EncodedImage.png(self._probe.to_picture())
            write_whole(folder / "probe.png", picture.content)
        self._has_probe = True

    def release(self, *, finished: bool) -> None:
        """Let other trainings write to the folder, see `RunLock.release`."""
        self._lock.release(finished=finished)

    def _replace_folder(self, step: int) -> None:
        folder, attempt = self.recording.folder, self.recording.attempt
        if self.written:
            warn(
                f"at step {step} could not find {folder}: it was deleted. Training goes on. "
                f"The {self.written} snapshots in it are lost; later ones go to a new folder."
            )
        self.deleted += self.written
        self.written = 0
        self._has_probe = False
        self._lock.release()
        self._lock = lock_run_folder(folder.parent, last=attempt)
        self.recording = Recording(self._lock.folder, self._lock.attempt, step)

"""Record snapshots in background threads: first a file with the exact weights, then pictures."""

import math
import os
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import torch

from kernelviz_callback.console import say, warn
from kernelviz_callback.probe.probe import Probe
from kernelviz_callback.snapshots.attempt import Attempt
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.storage import Folder
from kernelviz_callback.training.cuda_stream import SideStream
from kernelviz_callback.training.failures import BackOff, FailureReporter, Failures
from kernelviz_callback.training.job_queue import Job, JobQueue
from kernelviz_callback.training.loggers.base import Destination
from kernelviz_callback.training.program_end import close_at_end, is_closed
from kernelviz_callback.training.publisher import Publisher
from kernelviz_callback.training.renderer import Renderer
from kernelviz_callback.training.run_folder import RunFolder, open_run_folder
from kernelviz_callback.training.snapshot_files import SnapshotFiles
from kernelviz_callback.training.snapshot_pictures import SnapshotJob, SnapshotPictures
from kernelviz_callback.training.snapshot_work import Scalars, SnapshotWork

# Limits for the snapshots that wait until their pictures are drawn: their number, and the bytes of
# their tensors.
MOST_WAITING = 16
MOST_WAITING_BYTES = 64 * 2**20
# The largest number of snapshots whose pictures are lost if the process is killed: those that wait,
# the one that is being drawn, and those in the queue of TensorBoard's writer.
MOST_UNLOGGED = MOST_WAITING + 8
# Seconds that a training waits for slow files in all. Afterwards it waits for each file only as
# long as a file usually takes, and snapshots are kept in memory.
_FILE_PATIENCE = 10.0
_USUAL_FILE_TIME = 0.05
# Seconds that a training waits for a single snapshot to be drawn and logged.
_PICTURE_PATIENCE = 30.0
_PICTURE_PATIENCE_AT_END = 300.0  # the films, too, and many layers may be watched
_MOST_STEPS_NAMED = 8  # steps of lost snapshots in the closing line
# Waiting is mentioned in the closing line from this share of the training's time on.
_LEAST_WAITING = 0.01


@dataclass(frozen=True)
class _Opened:
    """The objects that need the open run folder."""

    files: SnapshotFiles
    pictures: SnapshotPictures


class Recorder:
    """Records snapshots of the same layers, with the same probe, into one run folder.

    `record` does not wait for the work. One thread writes files, and a second thread draws and logs
    pictures, both in the order of the snapshots. Before a snapshot is taken, `wait_for_turn` waits
    until the file of the previous snapshot is written. So a process that is killed loses at most
    one snapshot.

    If the files take long, the training does not wait for them: up to 16 snapshots are kept in
    memory, and later ones are left out. If a logger takes long, the pictures of snapshots are left
    out, and their files are written.

    The thread that writes files opens the run folder when it writes the first snapshot. If that
    fails, it tries again with a later snapshot.

    Args:
        log_dir: Parent of the run folder, see `lock_run_folder`.
        probe: The fixed image.
        last: The last attempt of a resumed training; None for a new training.
        device: The device of the snapshots.
        renderer: Draws the pictures.
        reporter: Reports failures to the user.
        health: Whether to examine the filters.
        about: Description of the watched layers, for the opening line.
    """

    def __init__(
        self,
        log_dir: str,
        probe: Probe,
        *,
        last: Attempt | None,
        device: torch.device,
        renderer: Renderer,
        reporter: FailureReporter,
        health: bool,
        about: str,
    ) -> None:
        self._process = os.getpid()
        self._log_dir = log_dir
        self._probe = probe
        # A checkpoint needs the identity even if the run folder cannot be opened in time.
        self._last = last or Attempt(uuid.uuid4().hex, 0)
        self._renderer = renderer
        self._reporter = reporter
        self._health = health
        self._about = about
        self._opened: _Opened | None = None
        self._back_off = BackOff()
        self._lost: set[int] = set()  # steps whose files are not written
        self._size = 0  # bytes of the last snapshot
        self._patience = _FILE_PATIENCE
        self._began = time.perf_counter()
        self._waits = 0
        self._waited = 0.0  # seconds
        self._side = SideStream(device)
        self._file_thread = JobQueue(
            "kernelviz-files",
            most_jobs=MOST_WAITING,
            most_bytes=MOST_WAITING_BYTES,
            on_error=_warn_lost,
        )
        self._picture_thread = JobQueue(
            "kernelviz-pictures",
            most_jobs=MOST_WAITING,
            most_bytes=MOST_WAITING_BYTES,
            on_error=_warn_lost,
        )
        close_at_end(self)

    @property
    def attempt(self) -> Attempt:
        """The attempt that is recorded. Waits until the first snapshot is written.

        If the run folder could not be opened in time, this is the argument ``last``, or number 0 of
        the new training.
        """
        if self._opened is None:
            self._count_wait(self._wait_for_files())
        return self._last if self._opened is None else self._opened.files.recording.attempt

    def wait_for_turn(self) -> None:
        """Wait until the previous snapshot's file is written, so that the next may be taken."""
        waited = self._wait_for_files()
        if self._file_thread.is_idle:
            waited += self._picture_thread.wait_for_room(self._size, patience=_PICTURE_PATIENCE)
        self._count_wait(waited)

    def record(
        self, snapshot: Snapshot, destinations: Sequence[Destination], failures: Failures
    ) -> "Future[Scalars]":
        """Queue a snapshot: it is written, examined and published in the background.

        The first snapshot of a resumed training is skipped if the run folder holds it already.

        Args:
            snapshot: The snapshot. The caller must not change its tensors afterwards.
            destinations: Where the pictures go. If none of them keeps pictures, the pictures are
                written to the run folder.
            failures: The failures of this snapshot so far. Later failures of the snapshot are added
                to them, and all are reported together.

        Returns:
            A future for the health numbers of the snapshot, ``kernelviz/<layer>/<number>`` to the
            value. Its result is empty if the snapshot is not examined.
        """
        scalars: Future[Scalars] = Future()
        job = SnapshotJob(snapshot, self._side.mark(), list(destinations), failures, scalars)
        self._size = sum(t.numel() * t.element_size() for t in snapshot.tensors)
        self._lost.add(snapshot.step)
        keep = "keep one more snapshot in memory"
        if self._file_thread.has_room(self._size):
            self._works(keep, snapshot.step)
            self._file_thread.submit(partial(self._write, job), self._size)
        else:
            reason = f"the snapshots before wait until {self._place} is written, which takes long"
            losing = "snapshots are left out until it is written; those in memory are kept"
            failures.note(keep, reason, losing)
            self._end(job)
        return scalars

    def drain(self) -> None:
        """Wait until all snapshots so far are written and published."""
        waited = self._wait_for_files()
        waited += self._picture_thread.drain(patience=_PICTURE_PATIENCE_AT_END)
        self._count_wait(waited)

    def close(self) -> None:
        """Drain, publish the films, end the threads, unlock the run folder and say what was done.

        If the files or the pictures take too long, the threads continue with them, and the folder
        is unlocked when they have ended. In a forked child process nothing happens: the threads are
        in its parent.

        If ``KeyboardInterrupt`` ends this method early, it may be called again.
        """
        if os.getpid() != self._process:
            return
        is_written = self._file_thread.close(patience=_FILE_PATIENCE)
        if self._opened is not None:
            self._draw_later(self._opened.pictures.finish)
        patience = _PICTURE_PATIENCE_AT_END if is_written else _FILE_PATIENCE
        is_drawn = self._picture_thread.close(patience=patience)
        is_closed(self)
        if not is_written:
            warn(
                f"{self._place} could not be written within {_FILE_PATIENCE:.0f} s; the last "
                "snapshots are lost unless it is written before the program ends, and their "
                "pictures are lost"
            )
        elif not is_drawn:
            warn(
                f"pictures could not be drawn and logged within {patience:.0f} s; the last "
                "pictures may be lost; snapshot files are kept"
            )
        if is_written and is_drawn:
            self._release(finished=True)
        else:
            threading.Thread(
                target=partial(self._release_late, finished=is_written),
                name="kernelviz-release",
                daemon=True,
            ).start()
        say(self._closing_line())

    def _release_late(self, *, finished: bool) -> None:
        """Unlock the run folder when both threads have ended, however long that takes."""
        for thread in (self._file_thread, self._picture_thread):
            thread.close(patience=math.inf)
        self._release(finished=finished)

    def _release(self, *, finished: bool) -> None:
        if self._opened is not None:
            self._opened.files.release(finished=finished)

    def _write(self, job: SnapshotJob) -> None:
        """Write the file of a snapshot, then queue its pictures for the second thread."""
        snapshot, opened, is_recorded = job.snapshot, self._opened, False
        found: RunFolder | None = None
        losing = (
            "snapshots are lost until the folder can be written again; what was written is kept"
        )
        with job.failures.survive(f"write to {self._place}", losing), self._back_off.attempt():
            if opened is None:
                found = open_run_folder(
                    self._log_dir, last=self._last, first=snapshot, most_unlogged=MOST_UNLOGGED
                )
                opened = self._opened = self._start_in(found, snapshot.step)
                is_recorded = found.has_first
                _announce(found, snapshot.step, job.destinations, self._about)
            if not is_recorded:
                with self._side.after(job.mark, snapshot.tensors):
                    opened.files.write(snapshot)
            self._lost.discard(snapshot.step)
            opened.files.write_probe()
        if opened is not None and found is not None:
            after_each = self._picture_thread.count_from_zero
            self._draw_later(partial(opened.pictures.catch_up, found, job.destinations, after_each))
        if opened is None or is_recorded:
            self._end(job)
            return
        size = sum(t.numel() * t.element_size() for t in snapshot.tensors)
        draw = "draw one more snapshot"
        # There is room already, unless several files that were waited for are written at once.
        self._picture_thread.wait_for_room(size, patience=_PICTURE_PATIENCE)
        if not self._picture_thread.has_room(size):
            reason = f"to draw or log an earlier one takes more than {_PICTURE_PATIENCE:.0f} s"
            job.failures.note(draw, reason, "pictures are left out; snapshot files are kept")
            self._end(job)
        elif self._draw_later(partial(opened.pictures.record, job), size):
            self._works(draw, snapshot.step)
        else:
            self._end(job)

    def _draw_later(self, job: Job, size: int = 0) -> bool:
        """Queue a job for the second thread.

        Returns:
            False if `close` was called before, which then has said that pictures are lost.
        """
        try:
            self._picture_thread.submit(job, size)
        except RuntimeError:
            return False
        return True

    def _works(self, attempt: str, step: int) -> None:
        done = Failures()
        done.succeeded.add(attempt)
        self._reporter.report(done, step)

    def _end(self, job: SnapshotJob) -> None:
        """Do no more for a snapshot."""
        self._reporter.report(job.failures, job.snapshot.step)
        job.scalars.set_result({})

    def _start_in(self, found: RunFolder, step: int) -> _Opened:
        files = SnapshotFiles(found.lock, self._probe, began_at=step)
        pictures = SnapshotPictures(
            files,
            Publisher(self._probe, probe_is_new=not found.has_probe),
            SnapshotWork(self._probe, self._renderer, health=self._health),
            side=self._side,
            reporter=self._reporter,
        )
        return _Opened(files, pictures)

    @property
    def _place(self) -> Folder | str:
        return self._log_dir if self._opened is None else self._opened.files.recording.folder

    def _wait_for_files(self) -> float:
        waited = self._file_thread.drain(patience=max(self._patience, _USUAL_FILE_TIME))
        if waited > _USUAL_FILE_TIME:
            self._patience -= waited
        return waited

    def _count_wait(self, seconds: float) -> None:
        self._waits += seconds > 0
        self._waited += seconds

    def _closing_line(self) -> str:
        files = self._opened.files if self._opened is not None else None
        parts = [f"{files.written if files else 0} snapshots written to {self._place}"]
        if files and files.deleted:
            parts.append(f"{files.deleted} deleted with their folder")
        if self._opened is not None and (health := self._opened.pictures.summary):
            parts.append(health)
        if lost := sorted(self._lost.copy()):  # the first thread may still change the set
            steps = ", ".join(map(str, lost[:_MOST_STEPS_NAMED]))
            more = ", ..." if len(lost) > _MOST_STEPS_NAMED else ""
            parts.append(f"{len(lost)} lost (steps {steps}{more})")
        if self._waited >= _LEAST_WAITING * (time.perf_counter() - self._began):
            parts.append(
                f"training waited for snapshots {self._waits} times, {self._waited:.2g} s in all"
            )
        return "; ".join(parts)


def _announce(found: RunFolder, step: int, destinations: Sequence[Destination], about: str) -> None:
    """Tell the user which folder the snapshots go to, and why."""
    folder = found.lock.folder
    if found.lock.avoided is not None:
        warn(
            f"another training is writing to {found.lock.avoided} right now; the snapshots of "
            f"this training go to {folder}"
        )
    if found.lock.damaged:
        warn(
            f"{'; '.join(found.lock.damaged)}. It is left as it is; the snapshots of this training "
            f"go to {folder}"
        )
    if found.set_aside:
        say(
            f"resuming at step {step}; {len(found.set_aside)} snapshots of later steps, from an "
            f"attempt that was cut off, were moved to a subfolder of {folder}: cut-off-1, or the "
            "next free number"
        )
    parts = [f"watching {about}", f"snapshots go to {folder}"]
    if not any(destination.keeps_pictures for destination in destinations):
        parts.append("no logger takes images, so the pictures go there too")
    say("; ".join(parts))


def _warn_lost(error: BaseException) -> None:
    warn(f"could not record a snapshot: {error!r}. Training goes on; that snapshot may be lost.")

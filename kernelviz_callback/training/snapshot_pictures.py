"""Examine snapshots and publish their pictures. This runs in one background thread."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass

from kernelviz_callback.console import warn
from kernelviz_callback.snapshots.format import load_snapshot
from kernelviz_callback.snapshots.names import snapshot_step
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.storage import Folder
from kernelviz_callback.training.cuda_stream import Mark, SideStream
from kernelviz_callback.training.drawing_process import DrawingProcess
from kernelviz_callback.training.failures import FailureReporter, Failures
from kernelviz_callback.training.loggers.base import Destination
from kernelviz_callback.training.loggers.tensorboard import TensorBoard
from kernelviz_callback.training.publisher import Publisher
from kernelviz_callback.training.run_folder import RunFolder
from kernelviz_callback.training.snapshot_files import SnapshotFiles
from kernelviz_callback.training.snapshot_work import Scalars, SnapshotWork

# After a resume, at most so many snapshots that TensorBoard hides are logged again.
_MOST_HIDDEN = 24


@dataclass(frozen=True)
class SnapshotJob:
    """A snapshot and what the background threads need to record it.

    Attributes:
        snapshot: The snapshot.
        mark: Point in the stream of the training after which its tensors are complete.
        destinations: Where the pictures go. If none of them keeps pictures, the pictures go to the
            run folder.
        failures: Collects the failures of this snapshot.
        scalars: Receives the health numbers of the snapshot, as a mapping from
            ``kernelviz/<layer>/<number>`` to the value.
    """

    snapshot: Snapshot
    mark: Mark
    destinations: Sequence[Destination]
    failures: Failures
    scalars: "Future[Scalars]"


class SnapshotPictures:
    """Examines the snapshots of a training and publishes their pictures, in the order of the steps.

    Args:
        files: Writes to the run folder. The health of a snapshot is added to the file of that
            snapshot.
        publisher: Logs the pictures.
        work: Examines and draws the snapshots.
        side: The CUDA stream on which tensors are read.
        reporter: Reports failures to the user.

    Attributes:
        summary: Describes the last health of each layer in one line. Set by `finish`; empty if no
            layer was examined.
    """

    def __init__(
        self,
        files: SnapshotFiles,
        publisher: Publisher,
        work: SnapshotWork,
        *,
        side: SideStream,
        reporter: FailureReporter,
    ) -> None:
        self._files = files
        self._publisher = publisher
        self._process = DrawingProcess(work)
        self._side = side
        self._reporter = reporter
        self._last: tuple[int, Sequence[Destination]] | None = None
        self.summary = ""

    def record(self, job: SnapshotJob) -> None:
        """Examine a snapshot, then publish its pictures, and the films if they are due."""
        snapshot = job.snapshot
        numbers: Scalars = {}
        try:
            with self._side.after(job.mark, snapshot.tensors):
                examined = self._process.examine(snapshot, self._files.recording.folder)
            job.failures.include(examined.failures)
            numbers = examined.numbers
        finally:
            job.scalars.set_result(numbers)
        for sentence in examined.news:
            warn(sentence)
        with self._side.after(job.mark, snapshot.tensors):
            self._publish(snapshot, numbers, job.destinations, job.failures)
        self._reporter.report(job.failures, snapshot.step)
        self._last = snapshot.step, job.destinations
        if self._publisher.films_are_due(snapshot.epoch):
            self.publish_films()

    def publish_films(self) -> None:
        """Publish the films of the whole training. Call it after the last snapshot."""
        if self._last is not None:
            step, destinations = self._last
            with self._reported(step) as failures:
                self._publisher.publish_films(
                    self._process.draw_films,
                    step,
                    destinations,
                    self._files.recording.folder,
                    failures,
                )

    def catch_up(
        self,
        found: RunFolder,
        destinations: Sequence[Destination],
        after_each: Callable[[], None],
    ) -> None:
        """Read what earlier attempts recorded, and log again the pictures that may be missing.

        Args:
            found: The run folder as this attempt found it.
            destinations: Where the pictures go.
            after_each: Called when the pictures of a snapshot are logged.
        """
        hidden = self._hidden(found.kept[-_MOST_HIDDEN:], destinations)
        replacing = [destination for destination in destinations if destination.replaces]
        again = hidden | dict.fromkeys(found.maybe_unlogged, replacing)
        recorded = [path for path in found.kept if path not in again]
        self._reporter.report(self._process.recall(recorded), 0)
        # Pictures go to files if no destination keeps pictures.
        is_kept = any(destination.keeps_pictures for destination in destinations)
        for path in found.kept[len(recorded) :]:
            self._publish_again(path, again[path], or_to_files=not is_kept)
            after_each()
        if again:
            with self._reported(0) as failures:
                self._publisher.flush(destinations, failures)
                consequence = "the same pictures are logged once more after the next resume"
                with failures.survive(f"write to {self._files.recording.folder}", consequence):
                    found.mark_logged()

    def finish(self) -> None:
        """Publish the films, and end the process that draws. Call it after the last snapshot."""
        try:
            self.publish_films()
            self.summary = self._process.summary()
        finally:
            self._process.close()

    def _publish(
        self,
        snapshot: Snapshot,
        numbers: Scalars,
        destinations: Sequence[Destination],
        failures: Failures,
    ) -> None:
        recording = self._files.recording
        drawn = self._process.draw(recording)
        failures.include(drawn.failures)
        self._publisher.publish(snapshot, drawn, numbers, destinations, recording, failures)

    def _hidden(
        self, kept: Sequence[Folder], destinations: Sequence[Destination]
    ) -> dict[Folder, list[Destination]]:
        """Find the snapshots that TensorBoard hides because of a ``purge_step``, and where."""
        hidden: dict[Folder, list[Destination]] = {}
        losing = "if its writer has a purge_step, TensorBoard hides pictures from that step on"
        for board in destinations if kept else ():
            if not isinstance(board, TensorBoard):
                continue
            with (
                self._reported(0) as failures,
                failures.survive(f"read the event file of {board.name}", losing),
            ):
                purge_step = board.purge_step()
                for path in kept:
                    if purge_step <= (snapshot_step(path.name) or 0):
                        hidden.setdefault(path, []).append(board)
        return hidden

    def _publish_again(
        self, path: Folder, destinations: Sequence[Destination], *, or_to_files: bool
    ) -> None:
        """Publish an earlier snapshot once more.

        Args:
            path: The file of the snapshot.
            destinations: Where its pictures may be missing.
            or_to_files: Whether the pictures go to files if there is no destination.
        """
        failures = Failures()
        step = 0
        with failures.survive(
            f"read {path}", "the pictures of this snapshot may be lost; others are kept"
        ):
            snapshot = load_snapshot(path)
            step = snapshot.step
            examined = self._process.examine(snapshot, self._files.recording.folder)
            failures.include(examined.failures)
            if destinations or or_to_files:
                self._publish(snapshot, examined.numbers, destinations, failures)
        self._reporter.report(failures, step)

    @contextmanager
    def _reported(self, step: int) -> Iterator[Failures]:
        failures = Failures()
        yield failures
        self._reporter.report(failures, step)

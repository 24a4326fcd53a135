"""Examine snapshots and publish their pictures. This runs in one background thread."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass

from kernelviz_callback.console import warn
from kernelviz_callback.snapshots.format import load_snapshot
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.storage import Folder
from kernelviz_callback.training.cuda_stream import Mark, SideStream
from kernelviz_callback.training.drawing_process import DrawingProcess
from kernelviz_callback.training.failures import FailureReporter, Failures
from kernelviz_callback.training.loggers.base import Destination
from kernelviz_callback.training.publisher import Publisher
from kernelviz_callback.training.run_folder import RunFolder
from kernelviz_callback.training.snapshot_files import SnapshotFiles
from kernelviz_callback.training.snapshot_work import Scalars, SnapshotWork


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
        recorded = found.kept[: len(found.kept) - len(found.maybe_unlogged)]
        self._reporter.report(self._process.recall(recorded), 0)
        for path in found.maybe_unlogged:
            self._publish_again(path, destinations)
            after_each()
        if found.maybe_unlogged:
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

    def _publish_again(self, path: Folder, destinations: Sequence[Destination]) -> None:
        """Publish a snapshot whose pictures may be missing.

        Destinations that cannot replace a picture are skipped: they would show the step twice.
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
            replacing = [destination for destination in destinations if destination.replaces]
            if replacing or not any(destination.keeps_pictures for destination in destinations):
                self._publish(snapshot, examined.numbers, replacing, failures)
        self._reporter.report(failures, step)

    @contextmanager
    def _reported(self, step: int) -> Iterator[Failures]:
        failures = Failures()
        yield failures
        self._reporter.report(failures, step)

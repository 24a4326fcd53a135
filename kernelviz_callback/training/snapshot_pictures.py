"""Examine snapshots and publish their pictures. This runs in one background thread."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

from kernelviz_callback.console import warn
from kernelviz_callback.snapshots.format import load_snapshot, save_snapshot
from kernelviz_callback.snapshots.names import snapshot_name
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.storage import Folder
from kernelviz_callback.training.cuda_stream import Mark, SideStream
from kernelviz_callback.training.failures import FailureReporter, Failures
from kernelviz_callback.training.health_logging import PREFIX
from kernelviz_callback.training.health_monitor import HealthMonitor
from kernelviz_callback.training.loggers.base import Destination
from kernelviz_callback.training.publisher import Publisher
from kernelviz_callback.training.run_folder import RunFolder
from kernelviz_callback.training.snapshot_files import SnapshotFiles

Scalars: TypeAlias = dict[str, float]

# Number of earlier snapshots that are read after a resume, besides the first one. They show which
# verdicts are not new, so that no alert is repeated.
_MOST_RECALLED = 3


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
        publisher: Publishes the pictures.
        monitor: Examines the filters. None if they are not examined.
        side: The CUDA stream on which tensors are read.
        reporter: Reports failures to the user.
    """

    def __init__(
        self,
        files: SnapshotFiles,
        publisher: Publisher,
        monitor: HealthMonitor | None,
        *,
        side: SideStream,
        reporter: FailureReporter,
    ) -> None:
        self._files = files
        self._publisher = publisher
        self._monitor = monitor
        self._side = side
        self._reporter = reporter
        self._last: tuple[int, Sequence[Destination]] | None = None

    def record(self, job: SnapshotJob) -> None:
        """Examine a snapshot, then publish its pictures, and the films if they are due."""
        snapshot = job.snapshot
        numbers: Scalars = {}
        try:
            with self._side.after(job.mark, snapshot.tensors):
                snapshot = self._examine(snapshot, job.failures)
            numbers = self._numbers(snapshot)
        finally:
            job.scalars.set_result(numbers)
        if self._monitor is not None:
            for sentence in self._monitor.news:
                warn(sentence)
            self._monitor.news.clear()
        with self._side.after(job.mark, snapshot.tensors):
            self._publish(snapshot, numbers, job.destinations, job.failures)
        self._reporter.report(job.failures, snapshot.step)
        self._last = snapshot.step, job.destinations
        with self._reported(snapshot.step) as failures:
            self._publisher.publish_films_if_due(
                snapshot.epoch,
                snapshot.step,
                job.destinations,
                self._files.recording.folder,
                failures,
            )

    def publish_films(self) -> None:
        """Publish the films of the whole training. Call it after the last snapshot."""
        if self._last is not None:
            step, destinations = self._last
            with self._reported(step) as failures:
                self._publisher.publish_films(
                    step, destinations, self._files.recording.folder, failures
                )

    def catch_up(self, found: RunFolder, destinations: Sequence[Destination]) -> None:
        """Read what earlier attempts recorded, and log again the pictures that may be missing.

        Args:
            found: The run folder as this attempt found it.
            destinations: Where the pictures go.
        """
        self._recall(found.kept[: len(found.kept) - len(found.maybe_unlogged)])
        for path in found.maybe_unlogged:
            self._publish_again(path, destinations)
        if self._monitor is not None:
            self._monitor.news.clear()
        if found.maybe_unlogged:
            with self._reported(0) as failures:
                self._publisher.flush(destinations, failures)
                consequence = "the same pictures are logged once more after the next resume"
                with failures.survive(f"write to {self._files.recording.folder}", consequence):
                    found.mark_logged()

    def summary(self) -> str:
        """Describe the last health of each layer in one line; empty if no layer was examined."""
        return "" if self._monitor is None else self._monitor.summary()

    def _examine(self, snapshot: Snapshot, failures: Failures) -> Snapshot:
        """Return the snapshot with its health. The health is also added to the snapshot's file."""
        if self._monitor is None:
            return snapshot
        consequence = "the health of these filters is unknown; snapshot files and pictures are kept"
        with failures.survive("examine the filters", consequence):
            snapshot = replace(snapshot, health=self._monitor.observe(snapshot, failures))
        folder = self._files.recording.folder
        consequence = "the file of this snapshot has the weights, but not the health"
        with failures.survive(f"write to {folder}", consequence):
            if snapshot.health and (folder / snapshot_name(snapshot.step)).exists():
                save_snapshot(snapshot, folder)
        return snapshot

    def _numbers(self, snapshot: Snapshot) -> Scalars:
        numbers = {} if self._monitor is None else self._monitor.numbers(snapshot.health)
        return {PREFIX + name: value for name, value in numbers.items()}

    def _publish(
        self,
        snapshot: Snapshot,
        numbers: Scalars,
        destinations: Sequence[Destination],
        failures: Failures,
    ) -> None:
        self._publisher.publish(snapshot, numbers, destinations, self._files.recording, failures)

    def _recall(self, earlier: Sequence[Folder]) -> None:
        """Give the monitor earlier snapshots, without those that `_publish_again` will examine."""
        if self._monitor is not None and earlier:
            consequence = "filters are compared with later snapshots only"
            with (
                self._reported(0) as failures,
                failures.survive("read earlier snapshots", consequence),
            ):
                paths = [earlier[0], *earlier[1:][-_MOST_RECALLED:]]
                self._monitor.recall(map(load_snapshot, paths), failures)

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
            snapshot = self._examine(snapshot, failures)
            replacing = [destination for destination in destinations if destination.replaces]
            if replacing or not any(destination.keeps_pictures for destination in destinations):
                self._publish(snapshot, self._numbers(snapshot), replacing, failures)
        self._reporter.report(failures, step)

    @contextmanager
    def _reported(self, step: int) -> Iterator[Failures]:
        failures = Failures()
        yield failures
        self._reporter.report(failures, step)

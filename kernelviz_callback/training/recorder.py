"""What a snapshot becomes: an exact file, then pictures. All of it beside the training."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import torch

from kernelviz_callback.console import say, warn
from kernelviz_callback.drawing.encode import EncodedImage
from kernelviz_callback.probe.probe import Probe
from kernelviz_callback.snapshots.event import Attempt
from kernelviz_callback.snapshots.format import load_snapshot, save_snapshot
from kernelviz_callback.snapshots.names import snapshot_name
from kernelviz_callback.snapshots.probe_file import load_saved_probe, save_probe
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.storage import Folder, write_whole
from kernelviz_callback.training.background_thread import Worker
from kernelviz_callback.training.cuda_stream import Mark, SideStream
from kernelviz_callback.training.failures import BackOff, FailureReporter, Failures
from kernelviz_callback.training.health_logging import PREFIX
from kernelviz_callback.training.health_monitor import HealthMonitor
from kernelviz_callback.training.loggers.base import Destination
from kernelviz_callback.training.publisher import Publisher
from kernelviz_callback.training.run_folder import RunFolder, open_run_folder
from kernelviz_callback.training.run_lock import Claim, LastClaim, claim_folder

Scalars: TypeAlias = dict[str, float]

# Snapshots that may wait for their pictures, and the bytes of their tensors.
MOST_WAITING = 16
MOST_WAITING_BYTES = 64 * 2**20
# Snapshots whose pictures may be lost when the process is killed: those, one being drawn, and the
# queue of TensorBoard's writer.
MOST_UNSURE = MOST_WAITING + 8
# Snapshots of an earlier attempt from which it is known which verdicts have begun.
_RECALLED = 3


class Recorder:
    """Records snapshots of the same layers, with the same probe, into the same folder.

    `record` returns at once. One thread writes the files, another draws and logs the pictures, each
    in the order of the snapshots. A snapshot is not taken before the file of the one before it is
    written, so a process that is killed loses no more than one.

    Args:
        log_dir: Where the folder is claimed when the first snapshot is written, see `claim_folder`.
            The pictures go there too if nobody else takes them.
        last_claim: Of the training, if it goes on.
        probe: The fixed image.
        device: Of the snapshots.
        publisher: Shows the snapshots.
        reporter: Is told of every failure.
        health: Whether to examine the filters.
        about: What is recorded, for the opening line.
    """

    def __init__(
        self,
        log_dir: str,
        last_claim: LastClaim,
        probe: Probe,
        *,
        device: torch.device,
        publisher: Publisher,
        reporter: FailureReporter,
        health: bool,
        about: str,
    ) -> None:
        self._log_dir = log_dir
        self._last_claim = last_claim
        self._about = about
        self._claim: Claim | None = None
        self._patience = BackOff()
        self._taken = 0
        self._deleted = 0
        self._lost: list[int] = []
        self._last: tuple[int, list[Destination]] | None = None
        self._waits = 0
        self._waited = 0.0
        self._probe = probe
        self._publisher = publisher
        self._reporter = reporter
        self._probe_is_kept = False
        self._side = SideStream(device)
        self._monitor = HealthMonitor(probe) if health else None
        self._files = Worker(
            "kernelviz-files", most_jobs=1, most_bytes=MOST_WAITING_BYTES, on_error=_survive
        )
        self._pictures = Worker(
            "kernelviz-pictures",
            most_jobs=MOST_WAITING,
            most_bytes=MOST_WAITING_BYTES,
            on_error=_survive,
        )

    @property
    def folder(self) -> Folder:
        """Where the snapshots go, once the first is written."""
        assert self._claim is not None
        return self._claim.folder

    @property
    def last_claim(self) -> LastClaim:
        """What the training goes on with, for which its folder must be claimed: wait for that."""
        if self._claim is None:
            self._count(self._files.drain())
        return self._last_claim

    def wait_for_turn(self) -> None:
        """Wait until the file of the snapshot before is written; then the next may be taken."""
        self._count(self._files.wait_for_room())

    def record(
        self, snapshot: Snapshot, destinations: Sequence[Destination], failures: Failures
    ) -> "Future[Scalars]":
        """Write a snapshot, examine it and log its pictures in the background.

        Where the training goes on in a folder that has the first one, it is not recorded twice.

        Args:
            snapshot: Its weights belong to the recorder from now on.
            destinations: Where the pictures go; to the folder, if none keeps them.
            failures: What went wrong with it so far; reported with what goes wrong here.

        Returns:
            What will hold the numbers of its health, ``kernelviz/<layer>/<number>``: none if it
            could not be examined.
        """
        scalars: Future[Scalars] = Future()
        mark = self._side.mark()
        job = partial(self._keep, snapshot, mark, list(destinations), failures, scalars)
        self._count(self._files.submit(job))
        return scalars

    def drain(self) -> None:
        """Wait until all that was recorded is written and logged."""
        self._count(self._files.drain() + self._pictures.drain())

    def close(self) -> str:
        """Drain, end the threads, give the folder back, and sum up in a sentence.

        If it is interrupted it may be called again.
        """
        self._files.close()
        if not self._pictures.is_closed:
            self._pictures.submit(self._film)
        self._pictures.close()
        if self._claim is not None:
            self._claim.release()
        said = [f"{self._taken} snapshots written to {self._place}"]
        if self._deleted:
            said.append(f"{self._deleted} deleted with their folder")
        if self._monitor is not None and self._monitor.summary():
            said.append(self._monitor.summary())
        if self._lost:
            steps = ", ".join(map(str, self._lost[:8])) + (", ..." if len(self._lost) > 8 else "")
            said.append(f"{len(self._lost)} lost (steps {steps})")
        if self._waits:
            said.append(
                f"training waited for them {self._waits} times, {self._waited:.2g} s in all"
            )
        return "; ".join(said)

    @property
    def _place(self) -> Folder | str:
        return self._log_dir if self._claim is None else self._claim.folder

    def _count(self, waited: float) -> None:
        self._waits += waited > 0
        self._waited += waited

    def _keep(
        self,
        snapshot: Snapshot,
        mark: Mark,
        destinations: list[Destination],
        failures: Failures,
        scalars: "Future[Scalars]",
    ) -> None:
        losing = "snapshots are lost until it can be written again; what was written is kept"
        is_known = False
        self._lost.append(snapshot.step)
        with failures.survive(f"write to {self._place}", losing), self._patience.attempt():
            if self._claim is None:
                is_known = self._begin(snapshot, destinations)
            if not is_known:
                self._claim_anew_if_deleted(snapshot.step)
                with self._side.after(mark, snapshot.tensors):
                    save_snapshot(snapshot, self.folder)
                self._taken += 1
            self._lost.pop()
            self._keep_probe()
        if is_known or self._claim is None:
            self._reporter.report(failures, snapshot.step)
            scalars.set_result({})
            return
        size = sum(t.numel() * t.element_size() for t in snapshot.tensors)
        self._pictures.submit(
            partial(self._follow_up, snapshot, mark, destinations, failures, scalars), size
        )

    def _begin(self, first: Snapshot, destinations: list[Destination]) -> bool:
        """Claim the folder and say where it is; tell whether it has the first snapshot already."""
        found = open_run_folder(
            self._log_dir, last=self._last_claim, first=first, most_unsure=MOST_UNSURE
        )
        self._take_over(found.claim, first.step)
        # One that the folder has was logged when it came there.
        is_new = load_saved_probe(self.folder, self._probe.digest) is None
        self._publisher.probe_is_new = is_new
        if found.claim.avoided is not None:
            warn(
                f"another training is writing to {found.claim.avoided} right now; the snapshots of "
                f"this one go to {self.folder}"
            )
        if found.set_aside:
            say(
                f"going on at step {first.step}; {len(found.set_aside)} later "
                "snapshots, of an attempt that was cut off, are kept in its folder cut-off-1, "
                "-2, ..."
            )
        said = [f"watching {self._about}", f"snapshots go to {self.folder}"]
        if not any(destination.keeps_pictures for destination in destinations):
            said.append("no logger takes images, so the pictures go there too")
        say("; ".join(said))
        self._pictures.submit(partial(self._catch_up, found, destinations))
        return found.has_first

    def _claim_anew_if_deleted(self, step: int) -> None:
        assert self._claim is not None
        if not self._claim.is_lost():
            return
        if self._taken:
            warn(
                f"at step {step} could not find {self.folder}: it was deleted. Training goes on. "
                f"The {self._taken} snapshots in it are lost; the next go to a new folder."
            )
        self._deleted += self._taken
        self._taken = 0
        self._probe_is_kept = False
        self._claim.release()
        run, attempt = self._last_claim
        self._take_over(claim_folder(self.folder.parent, run=run, after=attempt), step)

    def _take_over(self, claim: Claim, step: int) -> None:
        self._claim, self._last_claim = claim, LastClaim(claim.run, claim.attempt)
        self._publisher.begin(Attempt(claim.run, claim.attempt, began_at=step))

    def _keep_probe(self) -> None:
        if self._probe_is_kept:
            return
        if load_saved_probe(self.folder, self._probe.digest) is None:
            save_probe(self._probe, self.folder)
            picture = EncodedImage.png(self._probe.to_picture())
            write_whole(self.folder / "probe.png", picture.content)
        self._probe_is_kept = True

    def _follow_up(
        self,
        snapshot: Snapshot,
        mark: Mark,
        destinations: list[Destination],
        failures: Failures,
        scalars: "Future[Scalars]",
    ) -> None:
        """Examine a snapshot that is kept, then picture it."""
        numbers: Scalars = {}
        try:
            with self._side.after(mark, snapshot.tensors):
                snapshot = self._examined(snapshot, failures)
            numbers = self._scalars(snapshot)
        finally:
            scalars.set_result(numbers)
        if self._monitor is not None:
            for sentence in self._monitor.news:
                warn(sentence)
            self._monitor.news.clear()
        self._picture(snapshot, mark, destinations, failures)
        self._last = snapshot.step, destinations
        with self._reported(snapshot.step) as films:
            self._publisher.publish_films_if_due(
                snapshot.epoch, snapshot.step, destinations, self.folder, films
            )

    def _examined(self, snapshot: Snapshot, failures: Failures) -> Snapshot:
        if self._monitor is not None:
            losing = "its health is not known; snapshot files and pictures are kept"
            with failures.survive("examine the filters", losing):
                snapshot = replace(snapshot, health=self._monitor.observe(snapshot, failures))
            losing = "its health is not in its file; the weights are"
            with failures.survive(f"write to {self.folder}", losing):
                if snapshot.health and (self.folder / snapshot_name(snapshot.step)).exists():
                    save_snapshot(snapshot, self.folder)
        return snapshot

    def _picture(
        self, snapshot: Snapshot, mark: Mark, destinations: list[Destination], failures: Failures
    ) -> None:
        with self._side.after(mark, snapshot.tensors):
            self._publisher.publish(
                snapshot, self._scalars(snapshot), destinations, self.folder, failures
            )
        self._reporter.report(failures, snapshot.step)

    def _film(self) -> None:
        """Show the whole training, at its end."""
        if self._last is not None:
            step, destinations = self._last
            with self._reported(step) as failures:
                self._publisher.publish_films(step, destinations, self.folder, failures)

    @contextmanager
    def _reported(self, step: int) -> Iterator[Failures]:
        failures = Failures()
        yield failures
        self._reporter.report(failures, step)

    def _catch_up(self, found: RunFolder, destinations: list[Destination]) -> None:
        """Learn what came before, and log again what may have been lost of it."""
        self._recall(found.kept[: len(found.kept) - len(found.unsure)])
        for path in found.unsure:
            self._picture_again(path, destinations)
        if self._monitor is not None:
            self._monitor.news.clear()
        if found.unsure:
            with self._reported(0) as failures:
                self._publisher.flush(destinations, failures)
                with failures.survive(f"write to {self.folder}", "pictures are logged once more"):
                    found.are_sure()

    def _recall(self, before: Sequence[Folder]) -> None:
        """Let the monitor know what came before; what is logged again it will see then."""
        if self._monitor is not None and before:
            losing = "health is compared with this one"
            with self._reported(0) as failures, failures.survive("read earlier snapshots", losing):
                paths = [before[0], *before[1:][-_RECALLED:]]
                self._monitor.recall(map(load_snapshot, paths), failures)

    def _picture_again(self, path: Folder, destinations: list[Destination]) -> None:
        """Log a snapshot whose pictures may have been lost when the process was killed.

        Not to those who would show the step twice.
        """
        failures = Failures()
        step = 0
        with failures.survive(f"read {path}", "its pictures may be lost; the others are kept"):
            snapshot = load_snapshot(path)
            step = snapshot.step
            snapshot = self._examined(snapshot, failures)
            again = [destination for destination in destinations if destination.replaces]
            if again or not any(destination.keeps_pictures for destination in destinations):
                self._picture(snapshot, None, again, failures)
                return
        self._reporter.report(failures, step)

    def _scalars(self, snapshot: Snapshot) -> Scalars:
        numbers = self._monitor.numbers(snapshot.health) if self._monitor is not None else {}
        return {PREFIX + name: value for name, value in numbers.items()}


def _survive(error: BaseException) -> None:
    warn(f"could not record a snapshot: {error!r}. Training goes on; that snapshot may be lost.")

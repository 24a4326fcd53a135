"""What a snapshot becomes: an exact file, two pictures a layer. All of it beside the training."""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from lightning.pytorch.utilities import rank_zero_info

from kernelviz_callback.claim import Claim, claim_folder
from kernelviz_callback.health_log import PREFIX
from kernelviz_callback.illustrator import Illustrator
from kernelviz_callback.loggers import EncodedImage, flush, log_images, log_scalars
from kernelviz_callback.mishaps import Mishaps, Reporter, warn
from kernelviz_callback.monitor import Monitor
from kernelviz_callback.probe import Probe
from kernelviz_callback.snapshot import (
    Snapshot,
    list_snapshots,
    load_saved_probe,
    load_snapshot,
    save_probe,
    save_snapshot,
    set_aside,
    snapshot_name,
)
from kernelviz_callback.storage import Folder, write_whole
from kernelviz_callback.streams import Mark, SideStream
from kernelviz_callback.worker import Worker

Scalars: TypeAlias = dict[str, float]

# Snapshots that may wait for their pictures, and the bytes of their weights.
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
        claim: The folder, where the pictures go too if nobody else takes them.
        probe: The fixed image.
        first: The first snapshot to come. Where the training goes on in a folder of its own, what
            lies there of later steps is set aside, and this one is not recorded twice.
        illustrator: Draws the pictures.
        reporter: Is told of every failure.
        health: Whether to examine the filters.

    Attributes:
        taken: Snapshots whose file was written.
        lost: Steps of those whose file could not be written.
    """

    def __init__(
        self,
        claim: Claim,
        probe: Probe,
        first: Snapshot,
        *,
        illustrator: Illustrator,
        reporter: Reporter,
        health: bool,
    ) -> None:
        self.claim = claim
        self.taken = 0
        self.lost: list[int] = []
        self._probe = probe
        self._illustrator = illustrator
        self._reporter = reporter
        self._probe_is_kept = False
        # One that the folder has was logged when it came there.
        self._probe_is_new = load_saved_probe(self.folder, probe.digest) is None
        self._probe_logged_to: list[Any] = []
        self._side = SideStream(next(iter(first.weights.values())).device)
        self._is_kept_before = False
        self._unsure: list[Folder] = []
        self._monitor = Monitor(probe) if health else None
        if claim.continues:
            moved = set_aside(self.folder, after=first.step)
            if moved:
                rank_zero_info(
                    f"kernelviz: going on at step {first.step}; {len(moved)} later snapshots, of "
                    "an attempt that was cut off, are kept in its folder cut-off-1, -2, ..."
                )
            kept = list_snapshots(self.folder)
            self._is_kept_before = first.step in kept and _is_of_same_layers(
                kept[first.step], first
            )
            if claim.was_killed:
                self._unsure = list(kept.values())[-MOST_UNSURE:]
            self._recall(list(kept.values()))
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
        """Where the snapshots go."""
        return self.claim.folder

    def wait_for_turn(self) -> None:
        """Wait until the file of the snapshot before is written; then the next may be taken."""
        self._files.wait_for_room()

    def record(
        self, snapshot: Snapshot, experiments: Sequence[Any], mishaps: Mishaps
    ) -> "Future[Scalars]":
        """Write a snapshot, examine it and log its pictures in the background.

        Args:
            snapshot: Its weights belong to the recorder from now on.
            experiments: See `image_experiments`.
            mishaps: What went wrong with it so far; reported with what goes wrong here.

        Returns:
            What will hold the numbers of its health, ``kernelviz/<layer>/<number>``: none if it
            could not be examined.
        """
        scalars: Future[Scalars] = Future()
        if self._unsure:
            unsure, self._unsure = self._unsure, []
            # Before any new file, so that however often the process is killed again it is these
            # and no others whose pictures may be lost.
            self._files.submit(partial(self._picture_again, unsure, list(experiments)))
        if self._is_kept_before:
            self._is_kept_before = False
            self._reporter.report(mishaps, snapshot.step)
            scalars.set_result({})
            return scalars
        mark = self._side.mark()
        self._files.submit(partial(self._keep, snapshot, mark, list(experiments), mishaps, scalars))
        return scalars

    def drain(self) -> None:
        """Wait until all that was recorded is written and logged."""
        self._files.drain()
        self._pictures.drain()

    def close(self) -> str:
        """Drain, end the threads, give the folder back, and sum up in a sentence.

        If it is interrupted it may be called again.
        """
        self._files.close()
        self._pictures.close()
        self.claim.release()
        said = [f"{self.taken} snapshots written to {self.folder}"]
        if self._monitor is not None and self._monitor.summary():
            said.append(self._monitor.summary())
        if self.lost:
            steps = ", ".join(map(str, self.lost[:8])) + (", ..." if len(self.lost) > 8 else "")
            said.append(f"{len(self.lost)} lost (steps {steps})")
        if self._files.waits:
            said.append(
                f"training waited for them {self._files.waits} times, "
                f"{self._files.waited:.2g} s in all"
            )
        return "; ".join(said)

    def _recall(self, kept: Sequence[Folder]) -> None:
        """Let the monitor know what came before; what is logged again it will see then."""
        before = kept[: len(kept) - len(self._unsure)]
        if self._monitor is not None and before:
            mishaps = Mishaps()
            with mishaps.survive("read earlier snapshots", "health is compared with this one"):
                paths = [before[0], *before[1:][-_RECALLED:]]
                self._monitor.recall(map(load_snapshot, paths), mishaps)
            self._reporter.report(mishaps, 0)

    def _keep(
        self,
        snapshot: Snapshot,
        mark: Mark,
        experiments: list[Any],
        mishaps: Mishaps,
        scalars: "Future[Scalars]",
    ) -> None:
        self._notice_loss(mishaps)
        losing = "snapshots are lost until it can be written again; what was written is kept"
        self.lost.append(snapshot.step)
        with (
            mishaps.survive(f"write to {self.folder}", losing),
            self._side.after(mark, snapshot.weights.values()),
        ):
            save_snapshot(snapshot, self.folder)
            self.lost.pop()
            self.taken += 1
            self._keep_probe()
        size = sum(w.numel() * w.element_size() for w in snapshot.weights.values())
        self._pictures.submit(
            partial(self._follow_up, snapshot, mark, experiments, mishaps, scalars), size
        )

    def _notice_loss(self, mishaps: Mishaps) -> None:
        attempt = f"find {self.folder}"
        losing = f"the {self.taken} snapshots in it are lost; the next go to a new folder"
        with mishaps.survive(attempt, losing):
            if self.claim.is_lost():
                mishaps.note(attempt, "it was deleted", losing)
                self.claim.release()
                self.claim = claim_folder(self.folder.parent, run=self.claim.run)
                self._probe_is_kept = False

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
        experiments: list[Any],
        mishaps: Mishaps,
        scalars: "Future[Scalars]",
    ) -> None:
        """Examine a snapshot that is kept, then picture it."""
        try:
            with self._side.after(mark, snapshot.weights.values()):
                snapshot = self._examined(snapshot, mishaps)
        finally:
            scalars.set_result(self._scalars(snapshot))
        if self._monitor is not None:
            for sentence in self._monitor.news:
                warn(sentence)
            self._monitor.news.clear()
        self._picture(snapshot, mark, experiments, mishaps)

    def _examined(self, snapshot: Snapshot, mishaps: Mishaps) -> Snapshot:
        if self._monitor is not None:
            losing = "its health is not known; snapshot files and pictures are kept"
            with mishaps.survive("examine the filters", losing):
                snapshot = replace(snapshot, health=self._monitor.observe(snapshot, mishaps))
            losing = "its health is not in its file; the weights are"
            with mishaps.survive(f"write to {self.folder}", losing):
                if snapshot.health and (self.folder / snapshot_name(snapshot.step)).exists():
                    save_snapshot(snapshot, self.folder)
        return snapshot

    def _picture(
        self, snapshot: Snapshot, mark: Mark, experiments: list[Any], mishaps: Mishaps
    ) -> None:
        with self._side.after(mark, snapshot.weights.values()):
            images = self._illustrator.draw(snapshot, mishaps)
        # Everything is drawn before anything is logged: TensorBoard's writer computes checksums in
        # a thread of its own, which would take the processor from the drawing.
        for experiment in experiments:
            name = type(experiment).__name__
            with mishaps.survive(
                f"log to {name}", "its pictures are lost; snapshot files are kept"
            ):
                self._log(experiment, images, snapshot.step)
                log_scalars(experiment, self._scalars(snapshot), snapshot.step)
        if not experiments:
            with mishaps.survive(f"write to {self.folder}", "pictures are lost"):
                for tag, image in images.items():
                    name = f"{tag}-step-{snapshot.step:08d}{image.suffix}"
                    write_whole(self.folder / re.sub(r"[^\w.-]", "-", name), image.content)
        self._reporter.report(mishaps, snapshot.step)

    def _picture_again(self, paths: Sequence[Folder], experiments: list[Any]) -> None:
        """Log snapshots whose pictures may have been lost when the process was killed.

        TensorBoard drops what it has of a step when the step comes again in a later file.
        """
        for path in paths:
            mishaps = Mishaps()
            snapshot = self._examined(load_snapshot(path), mishaps)
            self._picture(snapshot, None, experiments, mishaps)
        if self._monitor is not None:
            self._monitor.news.clear()
        for experiment in experiments:
            flush(experiment)

    def _log(self, experiment: Any, images: Mapping[str, EncodedImage], step: int) -> None:
        if self._probe_is_new and experiment not in self._probe_logged_to:
            picture = EncodedImage.jpeg(self._probe.to_picture())
            log_images(experiment, {"probe": picture}, step)
            self._probe_logged_to.append(experiment)
        log_images(experiment, images, step)

    def _scalars(self, snapshot: Snapshot) -> Scalars:
        numbers = self._monitor.numbers(snapshot.health) if self._monitor is not None else {}
        return {PREFIX + name: value for name, value in numbers.items()}


def _is_of_same_layers(path: Folder, snapshot: Snapshot) -> bool:
    try:
        kept = load_snapshot(path)
    except (OSError, ValueError):
        return False
    return {n: w.shape for n, w in kept.weights.items()} == {
        n: w.shape for n, w in snapshot.weights.items()
    }


def _survive(error: BaseException) -> None:
    warn(f"could not record a snapshot: {error!r}. Training goes on; that snapshot may be lost.")

"""Log what was drawn of snapshots: pictures, numbers, events for the Kernels tab, and films."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property

from tensorboard.compat.proto.summary_pb2 import Summary

from kernelviz_callback.drawing.encode import EncodedImage
from kernelviz_callback.probe.probe import Probe
from kernelviz_callback.snapshots.event import pack_image
from kernelviz_callback.snapshots.names import plain_tags
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.storage import Folder, write_whole
from kernelviz_callback.tensorboard_plugin.codec import value_of
from kernelviz_callback.training.failures import BackOff, Failures
from kernelviz_callback.training.loggers.base import Destination
from kernelviz_callback.training.snapshot_files import Recording
from kernelviz_callback.training.snapshot_work import Drawn

# The first films are drawn in this epoch, counted from 1, the next ones in epoch 16, 64, and so on.
# In a training with epochs of three seconds on two processors, the films are a quarter of the work.
FIRST_FILM = 4

_NO_PICTURES = "pictures for that logger are lost; snapshot files are kept"


class Publisher:
    """Publishes the snapshots of one training, in the order of their steps.

    Pictures are written into the run folder if no destination keeps pictures.

    Args:
        probe: The fixed image.
        probe_is_new: Whether the picture of the probe is logged, too. False if an earlier attempt
            of the training logged it.
    """

    def __init__(self, probe: Probe, *, probe_is_new: bool) -> None:
        self._probe = probe
        self._probe_is_new = probe_is_new
        # These are lists, not sets or dicts, because a user's own logger may not be hashable.
        self._have_probe: list[Destination] = []
        self._back_offs: list[tuple[Destination, BackOff]] = []
        self._next_film = FIRST_FILM
        self._filmed_step: int | None = None

    @cached_property
    def _probe_picture(self) -> EncodedImage:
        return EncodedImage.jpeg(self._probe.to_picture())

    def publish(
        self,
        snapshot: Snapshot,
        drawn: Drawn,
        numbers: Mapping[str, float],
        destinations: Sequence[Destination],
        recording: Recording,
        failures: Failures,
    ) -> None:
        """Log a snapshot.

        Args:
            snapshot: The snapshot.
            drawn: Its pictures and events.
            numbers: Health numbers, tag to value.
            destinations: Where the pictures go.
            recording: The run folder and the attempt.
            failures: Receives the failures.
        """
        events = [Summary.Value.FromString(event) for event in drawn.events]
        reads_images = any(weights.ndim > 3 for weights in snapshot.weights.values())
        for destination in destinations:
            with (
                failures.survive(f"log to {destination.name}", _NO_PICTURES),
                self._attempt_to_use(destination),
            ):
                if reads_images and destination not in self._have_probe:
                    self._log_probe(destination, snapshot.step, recording, failures)
                destination.log(drawn.images, snapshot.step, numbers, events)
        if not any(destination.keeps_pictures for destination in destinations):
            self._write(drawn.images, f"-step-{snapshot.step:08d}", recording.folder, failures)

    def films_are_due(self, epoch: int) -> bool:
        """Whether films are due with this snapshot: the first of epoch 4, 16, 64, ..., from 1.

        If that epoch has no snapshot, the films are due with the next one. A second call with the
        same epoch returns False.

        Args:
            epoch: Epoch of the snapshot, from 0.
        """
        is_due = epoch + 1 >= self._next_film
        if is_due:
            while self._next_film <= epoch + 1:
                self._next_film *= 4
        return is_due

    def publish_films(
        self,
        draw: Callable[[Folder], dict[str, EncodedImage]],
        step: int,
        destinations: Sequence[Destination],
        folder: Folder,
        failures: Failures,
    ) -> None:
        """Draw films of all snapshots in the folder and log them.

        A second call with the same step does nothing.

        Args:
            draw: Draws the films of the folder.
            step: Step of the last snapshot. The films are logged at this step.
            destinations: Where the films go.
            folder: The run folder.
            failures: Receives the failures.
        """
        if step == self._filmed_step:
            return
        films: dict[str, EncodedImage] = {}
        with failures.survive("draw the films", "snapshot files and pictures are kept"):
            films = draw(folder)
            self._filmed_step = step
        losing = "films for that logger are lost; snapshot files are kept"
        for destination in destinations if films else ():
            with (
                failures.survive(f"log films to {destination.name}", losing),
                self._attempt_to_use(destination),
            ):
                destination.log(films, step, {}, [])
        if not any(destination.keeps_pictures for destination in destinations):
            self._write(films, "", folder, failures)

    def flush(self, destinations: Sequence[Destination], failures: Failures) -> None:
        """Write out what was logged to the destinations, see `Destination.flush`."""
        for destination in destinations:
            with (
                failures.survive(f"log to {destination.name}", _NO_PICTURES),
                self._attempt_to_use(destination),
            ):
                destination.flush()

    def _attempt_to_use(self, destination: Destination) -> AbstractContextManager[None]:
        """Run the body, unless an earlier failure of this destination caused a pause.

        See `BackOff`.
        """
        back_off = next((b for used, b in self._back_offs if used == destination), None)
        if back_off is None:
            back_off = BackOff()
            self._back_offs.append((destination, back_off))
        return back_off.attempt()

    def _log_probe(
        self, destination: Destination, step: int, recording: Recording, failures: Failures
    ) -> None:
        """Log the probe, before the first responses to it."""
        events: list[Summary.Value] = []
        losing = "the Kernels tab shows no responses until an image is dropped on it"
        with failures.survive("pack the probe", losing):
            events.append(value_of(*pack_image(self._probe, recording.attempt)))
        pictures = {"probe": self._probe_picture} if self._probe_is_new else {}
        destination.log(pictures, step, {}, events)
        self._have_probe.append(destination)

    def _write(
        self, images: Mapping[str, EncodedImage], ending: str, folder: Folder, failures: Failures
    ) -> None:
        with failures.survive(f"write to {folder}", "pictures are lost"):
            for tag, name in plain_tags(images, ascii_only=True).items():
                file = f"{name.replace('/', '-')}{ending}{images[tag].suffix}"
                write_whole(folder / file, images[tag].content)

"""Publish snapshots: pictures, numbers, events for the Kernels tab, and films."""

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property

from tensorboard.compat.proto.summary_pb2 import Summary

from kernelviz_callback.drawing.encode import EncodedImage
from kernelviz_callback.probe.probe import Probe
from kernelviz_callback.snapshots.event import pack_image, pack_layer
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.storage import Folder, write_whole
from kernelviz_callback.tensorboard_plugin.codec import value_of
from kernelviz_callback.training.failures import BackOff, Failures
from kernelviz_callback.training.films import draw_films
from kernelviz_callback.training.loggers.base import Destination
from kernelviz_callback.training.renderer import Renderer
from kernelviz_callback.training.snapshot_files import Recording

# The first films are drawn in this epoch, counted from 1, the next ones in epoch 8, 16, and so on.
# The columns of a film are spaced in the same way, so a film of 64 epochs lacks only a few columns
# just before epoch 128.
FIRST_FILM = 4

_NO_PICTURES = "pictures for that logger are lost; snapshot files are kept"


class Publisher:
    """Publishes the snapshots of one training, in the order of their steps.

    Pictures are written into the run folder if no destination keeps pictures.

    Args:
        probe: The fixed image.
        renderer: Draws the pictures.
        probe_is_new: Whether the picture of the probe is logged, too. False if an earlier attempt
            of the training logged it.
    """

    def __init__(self, probe: Probe, renderer: Renderer, *, probe_is_new: bool) -> None:
        self._probe = probe
        self._renderer = renderer
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
        numbers: Mapping[str, float],
        destinations: Sequence[Destination],
        recording: Recording,
        failures: Failures,
    ) -> None:
        """Draw a snapshot and log it.

        Args:
            snapshot: The snapshot, with its health if it was examined.
            numbers: Health numbers, tag to value.
            destinations: Where the pictures go.
            recording: The run folder and the attempt.
            failures: Receives the failures.
        """
        images = self._renderer.draw(snapshot, failures)
        events = self._pack_layers(snapshot, recording, failures)
        reads_images = any(weights.ndim > 3 for weights in snapshot.weights.values())
        # All pictures are drawn before the first is logged. TensorBoard's writer computes checksums
        # in another thread, which would slow the drawing.
        for destination in destinations:
            with (
                failures.survive(f"log to {destination.name}", _NO_PICTURES),
                self._attempt_to_use(destination),
            ):
                if reads_images and destination not in self._have_probe:
                    self._log_probe(destination, snapshot.step, recording, failures)
                destination.log(images, snapshot.step, numbers, events)
        if not any(destination.keeps_pictures for destination in destinations):
            self._write(images, f"-step-{snapshot.step:08d}", recording.folder, failures)

    def publish_films_if_due(
        self,
        epoch: int,
        step: int,
        destinations: Sequence[Destination],
        folder: Folder,
        failures: Failures,
    ) -> None:
        """Publish the films with the first snapshot of epoch 4, 8, 16, ..., counted from 1.

        If that epoch has no snapshot, the films are published with the next one.

        Args:
            epoch: Epoch of the last snapshot, from 0.
            step: Step of the last snapshot.
            destinations: Where the films go.
            folder: The run folder.
            failures: Receives the failures.
        """
        if epoch + 1 >= self._next_film:
            self._next_film = 2 ** (epoch + 1).bit_length()
            self.publish_films(step, destinations, folder, failures)

    def publish_films(
        self, step: int, destinations: Sequence[Destination], folder: Folder, failures: Failures
    ) -> None:
        """Draw films of all snapshots in the folder and log them.

        A second call with the same step does nothing.

        Args:
            step: Step of the last snapshot. The films are logged at this step.
            destinations: Where the films go.
            folder: The run folder.
            failures: Receives the failures.
        """
        if step == self._filmed_step:
            return
        films: dict[str, EncodedImage] = {}
        with failures.survive("draw the films", "snapshot files and pictures are kept"):
            films = draw_films(folder)
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

    def _pack_layers(
        self, snapshot: Snapshot, recording: Recording, failures: Failures
    ) -> list[Summary.Value]:
        """Pack the layers for the Kernels tab. A layer that the tab cannot show is left out."""
        events: list[Summary.Value] = []
        losing = "the Kernels tab does not show that layer; pictures and snapshot files are kept"
        for layer in snapshot.weights:
            with failures.survive(f"pack {layer}", losing):
                packed = pack_layer(snapshot, layer, recording.attempt, began_at=recording.began_at)
                events.append(value_of(*packed))
        return events

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
            for tag, image in images.items():
                name = re.sub(r"[^\w.-]", "-", f"{tag}{ending}{image.suffix}")
                write_whole(folder / name, image.content)

"""Show a snapshot to everybody who looks: pictures, numbers, the Kernels tab, the films."""

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property

from tensorboard.compat.proto.summary_pb2 import Summary

from kernelviz_callback.drawing.encode import EncodedImage
from kernelviz_callback.probe.probe import Probe
from kernelviz_callback.snapshots.event import Attempt, pack_image, pack_layer
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.storage import Folder, write_whole
from kernelviz_callback.tensorboard_plugin.codec import value_of
from kernelviz_callback.training.failures import BackOff, Failures
from kernelviz_callback.training.films import draw_films
from kernelviz_callback.training.loggers.base import Destination
from kernelviz_callback.training.renderer import Renderer

# Films are drawn when so many epochs are over, then twice as many, and again. Their columns are
# spaced like that, so of a film drawn after 64 epochs none is missing until 128.
FIRST_FILM = 4

_NO_PICTURES = "its pictures are lost; snapshot files are kept"


class Publisher:
    """Publishes the snapshots of one training, in their order.

    Where no destination keeps pictures they go to the run's folder.

    Args:
        probe: The fixed image.
        renderer: Draws the pictures.

    Attributes:
        probe_is_new: Whether no earlier attempt of this training has shown the probe.
    """

    def __init__(self, probe: Probe, renderer: Renderer) -> None:
        self.probe_is_new = True
        self._probe = probe
        self._renderer = renderer
        self._attempt: Attempt | None = None
        # Lists: a logger of the user's own need not be hashable.
        self._introduced_to: list[Destination] = []
        self._known: list[tuple[Destination, BackOff]] = []
        self._next_film = FIRST_FILM
        self._filmed_step: int | None = None

    @cached_property
    def _probe_picture(self) -> EncodedImage:
        return EncodedImage.jpeg(self._probe.to_picture())

    def begin(self, attempt: Attempt) -> None:
        """Say whose snapshots are going to be published, before the first is."""
        self._attempt = attempt

    def publish(
        self,
        snapshot: Snapshot,
        numbers: Mapping[str, float],
        destinations: Sequence[Destination],
        folder: Folder,
        failures: Failures,
    ) -> None:
        """Draw a snapshot and log it.

        Args:
            snapshot: With its health, if it was examined.
            numbers: Tag to value.
            destinations: Where the pictures go.
            folder: Of the run.
            failures: Takes what goes wrong.
        """
        images = self._renderer.draw(snapshot, failures)
        events = self._events(snapshot, failures)
        reads_images = any(weights.ndim > 3 for weights in snapshot.weights.values())
        # Everything is drawn before anything is logged: TensorBoard's writer computes checksums in
        # a thread of its own, which would take the processor from the drawing.
        for destination in destinations:
            attempt = f"log to {destination.name}"
            with failures.survive(attempt, _NO_PICTURES), self._trying(destination):
                if reads_images and destination not in self._introduced_to:
                    self._introduce(destination, snapshot.step, failures)
                destination.log(images, snapshot.step, numbers, events)
        if not any(destination.keeps_pictures for destination in destinations):
            self._write(images, f"-step-{snapshot.step:08d}", folder, failures)

    def publish_films_if_due(
        self,
        epoch: int,
        step: int,
        destinations: Sequence[Destination],
        folder: Folder,
        failures: Failures,
    ) -> None:
        """Publish the films once 4, 8, 16, ... epochs are over, with the first snapshot after that.

        Args:
            epoch: Of the last snapshot, from 0.
            step: Likewise.
            destinations: As for `publish`.
            folder: Likewise.
            failures: Likewise.
        """
        if epoch + 1 >= self._next_film:
            self._next_film = 2 ** (epoch + 1).bit_length()
            self.publish_films(step, destinations, folder, failures)

    def publish_films(
        self, step: int, destinations: Sequence[Destination], folder: Folder, failures: Failures
    ) -> None:
        """Draw what the folder's snapshots were from the first to ``step``, and log it there.

        A step is filmed once. The other arguments are those of `publish`.
        """
        if step == self._filmed_step:
            return
        films: dict[str, EncodedImage] = {}
        with failures.survive("draw the films", "snapshot files and pictures are kept"):
            films = draw_films(folder)
            self._filmed_step = step
        losing = "they are lost; snapshot files are kept"
        for destination in destinations if films else ():
            attempt = f"log films to {destination.name}"
            with failures.survive(attempt, losing), self._trying(destination):
                destination.log(films, step, {}, [])
        if not any(destination.keeps_pictures for destination in destinations):
            self._write(films, "", folder, failures)

    def flush(self, destinations: Sequence[Destination], failures: Failures) -> None:
        """Have the destinations write what they have been handed."""
        for destination in destinations:
            attempt = f"log to {destination.name}"
            with failures.survive(attempt, _NO_PICTURES), self._trying(destination):
                destination.flush()

    def _trying(self, destination: Destination) -> AbstractContextManager[None]:
        """Leave a destination alone that takes long to fail."""
        patience = next((p for known, p in self._known if known == destination), None)
        if patience is None:
            patience = BackOff()
            self._known.append((destination, patience))
        return patience.attempt()

    def _events(self, snapshot: Snapshot, failures: Failures) -> list[Summary.Value]:
        """What the Kernels tab gets of a snapshot, without the layers that it cannot show."""
        assert self._attempt is not None
        events: list[Summary.Value] = []
        for layer in snapshot.weights:
            losing = "the Kernels tab lacks it; pictures and snapshot files are kept"
            with failures.survive(f"pack {layer}", losing):
                events.append(value_of(*pack_layer(snapshot, layer, self._attempt)))
        return events

    def _introduce(self, destination: Destination, step: int, failures: Failures) -> None:
        """Show the probe, before the first responses to it."""
        assert self._attempt is not None
        events: list[Summary.Value] = []
        losing = "the Kernels tab has no responses before an image is dropped on it"
        with failures.survive("pack the probe", losing):
            events.append(value_of(*pack_image(self._probe, self._attempt)))
        pictures = {"probe": self._probe_picture} if self.probe_is_new else {}
        destination.log(pictures, step, {}, events)
        self._introduced_to.append(destination)

    def _write(
        self, images: Mapping[str, EncodedImage], ending: str, folder: Folder, failures: Failures
    ) -> None:
        with failures.survive(f"write to {folder}", "pictures are lost"):
            for tag, image in images.items():
                name = re.sub(r"[^\w.-]", "-", f"{tag}{ending}{image.suffix}")
                write_whole(folder / name, image.content)

"""Draw the film strip and the animation of every watched layer from a run folder."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

import torch
from torch import Tensor

from kernelviz_callback.drawing.animation.animate import evolution_gif
from kernelviz_callback.drawing.animation.sampling import (
    MOST_FRAMES,
    Reading,
    choose_steps,
    read_sequences,
)
from kernelviz_callback.drawing.animation.strip import MOST_BYTES, film_strip
from kernelviz_callback.drawing.encode import EncodedImage
from kernelviz_callback.snapshots.format import load_snapshot
from kernelviz_callback.snapshots.names import list_snapshots
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.storage import Location

# Only the first layers are drawn: fifty would take ten seconds of one processor.
MOST_LAYERS = 8

# A few more than the frames of a film, because other snapshots are chosen as a training goes on.
_MOST_KEPT = 2 * MOST_FRAMES
_MOST_BYTES_KEPT = 2**24


class Reel:
    """Weights of earlier snapshots, kept in memory: films need not read all of them from files.

    At most 48 snapshots are kept, and at most 16 MiB. They are chosen as for a film.
    """

    def __init__(self) -> None:
        self._readings: dict[int, Reading] = {}

    def add(self, snapshot: Snapshot) -> None:
        """Keep the weights of a snapshot. The caller must not change them afterwards."""
        numbers = sum(weights.numel() for _, weights in _drawn(snapshot))
        most = min(_MOST_KEPT, _MOST_BYTES_KEPT // max(1, numbers * torch.float32.itemsize))
        if most == 0:
            self.clear()
            return
        self._readings[snapshot.step] = _reading_of(snapshot)
        if len(self._readings) > most:
            kept = choose_steps(list(self._readings), most)
            self._readings = {step: self._readings[step] for step in kept}

    def clear(self) -> None:
        """Keep nothing of the snapshots so far."""
        self._readings.clear()

    def find(self, step: int) -> Reading | None:
        """Return the weights at a step, or None if they are not kept."""
        return self._readings.get(step)


def draw_films(folder: Location, reel: Reel | None = None) -> dict[str, EncodedImage]:
    """Draw the film strip and the animation of the first 8 layers in the snapshots of a folder.

    At most 24 snapshots are read, one at a time, each once for all layers. If a snapshot cannot be
    read, another takes its place, and the captions say so.

    Args:
        folder: Path or URL of the run folder.
        reel: Weights of some of these snapshots, whose files are not read.

    Returns:
        For each layer of the last snapshot, ``film/<layer>`` to a PNG and ``evolution/<layer>`` to
        a GIF. A layer with a single snapshot has neither. A picture larger than a megabyte is left
        out.

    Raises:
        OSError: If the folder cannot be listed.
    """
    paths = list_snapshots(folder)

    def read(step: int) -> Reading:
        kept = None if reel is None else reel.find(step)
        return kept or _reading_of(load_snapshot(paths[step]))

    images: dict[str, EncodedImage] = {}
    for layer, sequence in read_sequences(list(paths), read).items():
        if len(sequence.frames) == 1:
            continue
        with suppress(ValueError):
            images[f"evolution/{layer}"] = EncodedImage.gif(evolution_gif(sequence))
        film = EncodedImage.png(film_strip(sequence).pixels)
        if len(film.content) <= MOST_BYTES:
            images[f"film/{layer}"] = film
    return images


def _reading_of(snapshot: Snapshot) -> Reading:
    """The weights of the first layers as in the file of the snapshot: float32 on the CPU."""
    # Not by way of pinned memory, because they are kept.
    weights = {name: w.detach().to("cpu", torch.float32) for name, w in _drawn(snapshot)}
    return Reading(snapshot.epoch, weights, unknown=snapshot.stored_only)


def _drawn(snapshot: Snapshot) -> Iterator[tuple[str, Tensor]]:
    return islice(snapshot.weights.items(), MOST_LAYERS)

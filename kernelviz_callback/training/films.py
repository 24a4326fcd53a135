"""The training of every watched layer as two pictures: what the callback logs now and then."""

from contextlib import suppress
from itertools import islice

from kernelviz_callback.drawing.animation.animate import evolution_gif
from kernelviz_callback.drawing.animation.sampling import Reading, read_sequences
from kernelviz_callback.drawing.animation.strip import MOST_BYTES, film_strip
from kernelviz_callback.drawing.encode import EncodedImage
from kernelviz_callback.snapshots.format import load_snapshot
from kernelviz_callback.snapshots.names import list_snapshots
from kernelviz_callback.storage import Location

# Of a training that watches more, the first are filmed: fifty take ten seconds of a processor.
MOST_LAYERS = 8


def draw_films(folder: Location) -> dict[str, EncodedImage]:
    """Draw the film strip and the animation of the first 8 layers that a run has snapshots of.

    Of all snapshots 24 are read, one at a time, each once for all layers; one that cannot be read
    is left out, another takes its place, and the captions say so.

    Args:
        folder: Of the snapshots, a path or a URL.

    Returns:
        ``film/<layer>``, a PNG, and ``evolution/<layer>``, a GIF, of each layer of the last
        snapshot, a megabyte at most. A layer of which there is one snapshot has neither, and one
        has none that would be larger.

    Raises:
        OSError: If the folder cannot be listed.
    """
    paths = list_snapshots(folder)

    def read(step: int) -> Reading:
        snapshot = load_snapshot(paths[step])
        return Reading(snapshot.epoch, dict(islice(snapshot.weights.items(), MOST_LAYERS)))

    images: dict[str, EncodedImage] = {}
    for layer, sequence in read_sequences(list(paths), read).items():
        if len(sequence.frames) == 1:
            continue
        film = EncodedImage.png(film_strip(sequence).pixels)
        if len(film.content) <= MOST_BYTES:
            images[f"film/{layer}"] = film
        with suppress(ValueError):
            images[f"evolution/{layer}"] = EncodedImage.gif(evolution_gif(sequence))
    return images

"""Draw the film strip and the animation of every watched layer from a run folder."""

from contextlib import suppress
from itertools import islice

from kernelviz_callback.drawing.animation.animate import evolution_gif
from kernelviz_callback.drawing.animation.sampling import Reading, read_sequences
from kernelviz_callback.drawing.animation.strip import MOST_BYTES, film_strip
from kernelviz_callback.drawing.encode import EncodedImage
from kernelviz_callback.snapshots.format import load_snapshot
from kernelviz_callback.snapshots.names import list_snapshots
from kernelviz_callback.storage import Location

# Only the first layers are drawn: fifty would take ten seconds of one processor.
MOST_LAYERS = 8


def draw_films(folder: Location) -> dict[str, EncodedImage]:
    """Draw the film strip and the animation of the first 8 layers in the snapshots of a folder.

    At most 24 snapshots are read, one at a time, each once for all layers. If a snapshot cannot be
    read, another takes its place, and the captions say so.

    Args:
        folder: Path or URL of the run folder.

    Returns:
        For each layer of the last snapshot, ``film/<layer>`` to a PNG and ``evolution/<layer>`` to
        a GIF. A layer with a single snapshot has neither. A picture larger than a megabyte is left
        out.

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

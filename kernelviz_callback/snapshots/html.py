"""How a snapshot is shown in a notebook: the kernels of its layers as HTML."""

from typing import TYPE_CHECKING

from kernelviz_callback.drawing.encode import EncodedImage
from kernelviz_callback.drawing.layer_pictures import kernel_picture

if TYPE_CHECKING:
    from kernelviz_callback.snapshots.snapshot import Snapshot

_MOST_LAYERS = 4  # layers of a snapshot that are shown


def snapshot_html(snapshot: "Snapshot") -> str:
    """Draw the kernels of the first layers of a snapshot, and return them as HTML."""
    when = f"step {snapshot.step} · epoch {snapshot.epoch}"
    pictures = {
        layer: kernel_picture(
            weights,
            layer=layer,
            groups=snapshot.geometry[layer].groups,
            when=when,
            health=snapshot.health.get(layer),
        )
        for layer, weights in list(snapshot.weights.items())[:_MOST_LAYERS]
    }
    more = len(snapshot.weights) - len(pictures)
    rest = f"<p>and {more} more layers</p>" if more else ""
    return rest + "".join(
        EncodedImage.png(picture.pixels).to_html(f"kernels of {layer}, {when}")
        for layer, picture in pictures.items()
    )

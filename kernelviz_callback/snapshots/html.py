"""How a snapshot is shown in a notebook: the kernels of its layers as HTML."""

from collections.abc import Container, Mapping

from torch import Tensor

from kernelviz_callback.drawing.caption_text import layer_title
from kernelviz_callback.drawing.encode import EncodedImage
from kernelviz_callback.drawing.layer_pictures import kernel_picture
from kernelviz_callback.health.kernel_health import KernelHealth
from kernelviz_callback.model.convolutions import Geometry

_MOST_LAYERS = 4  # layers of a snapshot that are shown


def kernels_html(
    weights: Mapping[str, Tensor],
    geometry: Mapping[str, Geometry],
    health: Mapping[str, KernelHealth],
    *,
    when: str,
    stored_only: Container[str] = (),
) -> str:
    """Draw the kernels of the first layers of a snapshot, and return them as HTML.

    Args:
        weights: Layer name to filters.
        geometry: Layer name to geometry, for the same layers.
        health: Layer name to health, for the layers that were examined.
        when: Step and epoch of the snapshot, for the captions.
        stored_only: See `Snapshot`.
    """
    pictures = {
        layer: kernel_picture(
            filters,
            layer=layer_title(layer, is_unknown=layer in stored_only),
            groups=geometry[layer].groups,
            when=when,
            health=health.get(layer),
        )
        for layer, filters in list(weights.items())[:_MOST_LAYERS]
    }
    more = len(weights) - len(pictures)
    rest = f"<p>and {more} more layers</p>" if more else ""
    return rest + "".join(
        EncodedImage.png(picture.pixels).to_html(f"kernels of {layer}, {when}")
        for layer, picture in pictures.items()
    )

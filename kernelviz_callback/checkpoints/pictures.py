"""Draw the kernels and responses of a checkpoint, as the callback would have logged them."""

from collections.abc import Mapping

from torch import Tensor

from kernelviz_callback.checkpoints.checkpoint import Checkpoint, plain_geometry
from kernelviz_callback.drawing.caption_text import Scale, layer_title
from kernelviz_callback.drawing.layer_pictures import Response, kernel_picture, response_picture
from kernelviz_callback.drawing.picture import Picture
from kernelviz_callback.health.examine import kernel_health
from kernelviz_callback.health.kernel_health import KernelHealth
from kernelviz_callback.probe.probe import Probe, readable_by_layer


def checkpoint_pictures(
    checkpoint: Checkpoint,
    layer: str | None = None,
    *,
    probe: Probe,
    response: Response = "channels",
    scale: Scale = "filter",
) -> Mapping[str, Picture]:
    """Draw the kernels of a layer in a checkpoint, and their responses to a probe.

    A snapshot that has recorded verdicts is drawn with them. For any other checkpoint, the filters
    are examined now, without earlier weights to compare with.

    Args:
        checkpoint: An open checkpoint.
        layer: See `Checkpoint.resolve`.
        probe: The image to convolve. It is converted to grey if the layer cannot read its colours.
        response: See `response_picture`.
        scale: See `response_picture`.

    Returns:
        The pictures "kernels" and "responses".

    Raises:
        ValueError: If no layer matches, or the probe does not fit the layer.
    """
    name = checkpoint.resolve(layer)
    stored = checkpoint.layers[name]
    weights, geometry = checkpoint.read(name), stored.geometry or plain_geometry(stored.shape)
    numbers = (("step", checkpoint.step), ("epoch", checkpoint.epoch))
    when = " · ".join(f"{unit} {number}" for unit, number in numbers if number is not None)
    title = layer_title(name, is_unknown=stored.unknown is not None)
    return {
        "kernels": kernel_picture(
            weights,
            layer=title,
            groups=geometry.groups,
            when=when,
            scale=scale,
            health=_recorded_or_examined(checkpoint, name, weights),
        ),
        "responses": response_picture(
            weights,
            geometry,
            readable_by_layer(probe, stored.shape, geometry),
            layer=title,
            when=when,
            response=response,
            scale=scale,
        ),
    }


def _recorded_or_examined(
    checkpoint: Checkpoint, layer: str, weights: Tensor
) -> KernelHealth | None:
    record = checkpoint.read_record(layer)
    if record is not None:
        return record.health
    geometry = checkpoint.layers[layer].geometry
    return kernel_health(weights, layer, groups=1 if geometry is None else geometry.groups)

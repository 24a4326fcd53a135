"""The two pictures of a checkpoint, as the callback would have logged them."""

from collections.abc import Mapping

from torch import Tensor

from kernelviz_callback.checkpoints.checkpoint import Checkpoint, plain_geometry
from kernelviz_callback.drawing.layer_pictures import Response, kernel_picture, response_picture
from kernelviz_callback.drawing.notes import Scale
from kernelviz_callback.drawing.picture import Picture
from kernelviz_callback.health.examine import kernel_health
from kernelviz_callback.health.kernel_health import KernelHealth
from kernelviz_callback.probe.probe import Probe, readable_by_layer
from kernelviz_callback.snapshots.format import load_snapshot


def checkpoint_pictures(
    checkpoint: Checkpoint,
    layer: str | None = None,
    *,
    probe: Probe,
    response: Response = "channels",
    scale: Scale = "filter",
) -> Mapping[str, Picture]:
    """Picture a layer of a checkpoint: its kernels, and what they make of a probe.

    Of a snapshot these are the pictures that were logged, with the same verdicts; of any other
    checkpoint the filters are examined now, without knowing what they were before.

    Args:
        checkpoint: Opened.
        layer: See `Checkpoint.resolve`.
        probe: The image to convolve; in grey, if the layer cannot read it as it is.
        response: See `response_picture`.
        scale: Likewise.

    Returns:
        "kernels" and "responses".

    Raises:
        ValueError: If there is no such layer, or the probe is smaller than its kernels.
    """
    name = checkpoint.resolve(layer)
    stored = checkpoint.layers[name]
    weights, geometry = checkpoint.read(name), stored.geometry or plain_geometry(stored.shape)
    told = (("step", checkpoint.step), ("epoch", checkpoint.epoch))
    when = " · ".join(f"{what} {number}" for what, number in told if number is not None)
    return {
        "kernels": kernel_picture(
            weights,
            layer=name,
            groups=geometry.groups,
            when=when,
            scale=scale,
            health=_health(checkpoint, name, weights),
        ),
        "responses": response_picture(
            weights,
            geometry,
            readable_by_layer(probe, stored.shape, geometry),
            layer=name,
            when=when,
            response=response,
            scale=scale,
        ),
    }


def _health(checkpoint: Checkpoint, layer: str, weights: Tensor) -> KernelHealth | None:
    """What a snapshot was found to be when it was taken; any other checkpoint is examined now."""
    geometry = checkpoint.layers[layer].geometry
    if geometry is not None and checkpoint.name.endswith(".safetensors"):
        return load_snapshot(checkpoint.name).health.get(layer)
    return kernel_health(weights, layer, groups=1 if geometry is None else geometry.groups)

"""Draw the two pictures of every layer in a snapshot, and encode each once."""

from typing import Literal, TypeAlias

from kernelviz_callback.drawing.caption_text import Scale
from kernelviz_callback.drawing.encode import EncodedImage
from kernelviz_callback.drawing.layer_pictures import (
    Response,
    feature_map_picture,
    kernel_picture,
    response_picture,
)
from kernelviz_callback.drawing.picture import Picture
from kernelviz_callback.drawing.tile_style import response_style
from kernelviz_callback.model.feature_maps import FeatureMaps
from kernelviz_callback.probe.probe import Probe, readable_by_layer
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.training.failures import Failures

ScaleName: TypeAlias = Literal["filter", "layer", "run"]


class Renderer:
    """Draws snapshots of one training.

    Args:
        probe: The fixed image.
        response: See `response_picture`.
        scale: What the ends of the colour scale stand for, see `KernelVizCallback`. With "run",
            each kind of picture has one scale: it is set at the first snapshot, and only widened
            afterwards.
        run_scales: Kind of picture to the end of its colour scale, for "run". Updated in place.
    """

    def __init__(
        self,
        probe: Probe,
        *,
        response: Response,
        scale: ScaleName,
        run_scales: dict[str, float],
    ) -> None:
        self._probe = probe
        self._response = response
        self._scale = scale
        self._run_scales = run_scales

    def draw(self, snapshot: Snapshot, failures: Failures) -> dict[str, EncodedImage]:
        """Draw the kernels and the responses of every layer.

        The convolutions run on the device of the weights.

        Args:
            snapshot: The snapshot.
            failures: Collects what fails.

        Returns:
            Tag to image, ``kernels/<layer>`` and ``responses/<layer>``. A picture that cannot be
            drawn is left out.
        """
        images: dict[str, EncodedImage] = {}
        when = f"step {snapshot.step} · epoch {snapshot.epoch}"
        losing = "that picture is lost; snapshot files are kept"
        for layer, weights in snapshot.weights.items():
            geometry = snapshot.geometry[layer]
            tag = f"kernels/{layer}"
            with failures.survive(f"draw {tag}", losing):
                picture = kernel_picture(
                    weights,
                    layer=layer,
                    groups=geometry.groups,
                    when=when,
                    scale=self._scale_of(tag),
                    health=snapshot.health.get(layer),
                )
                self._update_scale(tag, picture)
                images[tag] = EncodedImage.png(picture.pixels)
            tag = f"responses/{layer}"
            with failures.survive(f"draw {tag}", losing):
                pixels = self._draw_responses(snapshot, layer, tag, when).pixels
                # JPEG blurs the sharp edges of curves. PNG makes photographs several times larger.
                is_curve = response_style(weights.shape).is_curve
                encode = EncodedImage.png if is_curve else EncodedImage.jpeg
                images[tag] = encode(pixels)
        _note_missing_maps(snapshot.feature_maps, failures)
        return images

    def _draw_responses(self, snapshot: Snapshot, layer: str, tag: str, when: str) -> Picture:
        """Draw the layer's feature maps, or without them its responses to the probe itself."""
        weights, geometry = snapshot.weights[layer], snapshot.geometry[layer]
        maps = snapshot.feature_maps.maps.get(layer)
        kind = f"{tag} {self._response if maps is None else 'maps'} {self._probe.digest}"
        scale = self._scale_of(kind)
        if maps is None:
            picture = response_picture(
                weights,
                geometry,
                readable_by_layer(self._probe, weights.shape, geometry),
                layer=layer,
                when=when,
                response=self._response,
                scale=scale,
            )
        else:
            picture = feature_map_picture(
                maps,
                weights,
                self._probe,
                layer=layer,
                when=when,
                groups=geometry.groups,
                scale=scale,
            )
        self._update_scale(kind, picture)
        return picture

    def _scale_of(self, kind: str) -> Scale:
        return self._run_scales.get(kind, 0.0) if self._scale == "run" else self._scale

    def _update_scale(self, kind: str, picture: Picture) -> None:
        if self._scale == "run":
            self._run_scales[kind] = picture.half_ranges.max().item()


def _note_missing_maps(found: FeatureMaps, failures: Failures) -> None:
    """Note which layers have no feature maps, and why."""
    action = "take feature maps"
    if found.maps and not found.absent:
        failures.succeeded.add(action)
    layers_by_reason: dict[str, list[str]] = {}
    for layer, reason in found.absent.items():
        layers_by_reason.setdefault(reason, []).append(layer)
    if layers_by_reason:
        reasons = "; ".join(f"{', '.join(x)}: {reason}" for reason, x in layers_by_reason.items())
        failures.note(action, reasons, "responses to the probe itself are drawn in their place")

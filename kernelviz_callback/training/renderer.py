"""A snapshot as pictures: two for each layer, encoded once, on scales that a run may hold."""

from typing import Literal, TypeAlias

from kernelviz_callback.drawing.encode import EncodedImage
from kernelviz_callback.drawing.layer_pictures import (
    Response,
    feature_map_picture,
    kernel_picture,
    response_picture,
)
from kernelviz_callback.drawing.notes import Scale
from kernelviz_callback.drawing.picture import Picture
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
        scale: "run" holds one scale per picture: frozen at its first snapshot, only ever widened.
        run_scales: Kind of picture to the scale frozen so far; updated in place.
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
        """Draw the kernels and the responses of every layer: tag to image, without those that fail.

        The convolution runs on the device of the weights.
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
                self._hold_scale(tag, picture)
                images[tag] = EncodedImage.png(picture.pixels)
            tag = f"responses/{layer}"
            with failures.survive(f"draw {tag}", losing):
                pixels = self._responses(snapshot, layer, tag, when).pixels
                # Curves have sharp edges; photographs as PNG would be several times larger.
                encode = EncodedImage.png if weights.ndim == 3 else EncodedImage.jpeg
                images[tag] = encode(pixels)
        _tell_of_maps(snapshot.feature_maps, failures)
        return images

    def _responses(self, snapshot: Snapshot, layer: str, tag: str, when: str) -> Picture:
        """The layer's feature maps, or its responses to the probe itself where it has none."""
        weights, geometry = snapshot.weights[layer], snapshot.geometry[layer]
        found = snapshot.feature_maps.maps.get(layer)
        kind = f"{tag} {self._response if found is None else 'maps'} {self._probe.digest}"
        scale = self._scale_of(kind)
        if found is None:
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
                found,
                weights,
                self._probe,
                layer=layer,
                when=when,
                groups=geometry.groups,
                scale=scale,
            )
        self._hold_scale(kind, picture)
        return picture

    def _scale_of(self, kind: str) -> Scale:
        return self._run_scales.get(kind, 0.0) if self._scale == "run" else self._scale

    def _hold_scale(self, kind: str, picture: Picture) -> None:
        if self._scale == "run":
            self._run_scales[kind] = picture.half_ranges.max().item()


def _tell_of_maps(found: FeatureMaps, failures: Failures) -> None:
    """Say once which layers have no feature maps, and why."""
    attempt = "take feature maps"
    if found.maps and not found.absent:
        failures.succeeded.add(attempt)
    reasons: dict[str, list[str]] = {}
    for layer, reason in found.absent.items():
        reasons.setdefault(reason, []).append(layer)
    if reasons:
        told = "; ".join(f"{', '.join(layers)}: {reason}" for reason, layers in reasons.items())
        failures.note(attempt, told, "responses to the probe itself are drawn in their place")

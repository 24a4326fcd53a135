"""Draw the two pictures of every layer in a snapshot, and encode each once."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

from torch import Tensor

from kernelviz_callback.drawing.caption_text import Scale, layer_title
from kernelviz_callback.drawing.encode import EncodedImage
from kernelviz_callback.drawing.layer_pictures import (
    Response,
    kernel_picture,
    paint_feature_maps,
    paint_responses,
)
from kernelviz_callback.drawing.painted_grid import PaintedGrid
from kernelviz_callback.model.feature_maps import FeatureMaps
from kernelviz_callback.probe.probe import Probe, readable_by_layer
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.training.failures import Failures

ScaleName: TypeAlias = Literal["filter", "layer", "run"]

_LOSING = "that picture is lost; snapshot files are kept"


class Renderer:
    """Draws snapshots of one training.

    Args:
        probe: The fixed image.
        response: See `response_picture`.
        scale: What the ends of the colour scale stand for, see `KernelVizCallback`. With "run",
            each kind of picture has one scale: it is set at the first snapshot, and only widened
            afterwards.
        run_scales: Kind of picture to the end of its colour scale, for "run". Updated in place.

    Attributes:
        run_scales: The argument.
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
        self.run_scales = run_scales

    def draw(self, snapshot: Snapshot, failures: Failures) -> dict[str, EncodedImage]:
        """Draw the kernels and the responses of every layer.

        Args:
            snapshot: The snapshot.
            failures: Collects what fails.

        Returns:
            Tag to image, ``kernels/<layer>`` and ``responses/<layer>``. A picture that cannot be
            drawn is left out.
        """
        images: dict[str, EncodedImage] = {}
        for layer in snapshot.weights:
            images |= self._compose(
                snapshot, layer, self._paint(snapshot, layer, failures), failures
            )
        _note_missing_maps(snapshot.feature_maps, failures)
        return images

    def paint(self, snapshot: Snapshot, failures: Failures) -> dict[str, PaintedGrid]:
        """Do the first part of `draw`: the convolutions, on the device of the weights.

        Returns:
            Layer to the tiles of its responses. A layer that cannot be convolved is left out.
        """
        painted = {layer: self._paint(snapshot, layer, failures) for layer in snapshot.weights}
        _note_missing_maps(snapshot.feature_maps, failures)
        return {layer: grid for layer, grid in painted.items() if grid is not None}

    def compose(
        self, snapshot: Snapshot, painted: Mapping[str, PaintedGrid], failures: Failures
    ) -> dict[str, EncodedImage]:
        """Do the second part of `draw`: everything but the convolutions, on the CPU.

        Args:
            snapshot: The snapshot.
            painted: The result of `paint`.
            failures: Collects what fails.
        """
        images: dict[str, EncodedImage] = {}
        for layer in snapshot.weights:
            images |= self._compose(snapshot, layer, painted.get(layer), failures)
        return images

    def _paint(self, snapshot: Snapshot, layer: str, failures: Failures) -> PaintedGrid | None:
        tag = f"responses/{layer}"
        with failures.survive(f"draw {tag}", _LOSING):
            return self._paint_responses(snapshot, layer, tag)
        return None

    def _compose(
        self, snapshot: Snapshot, layer: str, painted: PaintedGrid | None, failures: Failures
    ) -> dict[str, EncodedImage]:
        images: dict[str, EncodedImage] = {}
        tag = f"kernels/{layer}"
        with failures.survive(f"draw {tag}", _LOSING):
            picture = kernel_picture(
                snapshot.weights[layer],
                layer=_title(snapshot, layer),
                groups=snapshot.geometry[layer].groups,
                when=_when(snapshot),
                scale=self._scale_of(tag),
                health=snapshot.health.get(layer),
            )
            self._update_scale(tag, picture.half_ranges)
            images[tag] = EncodedImage.png(picture.pixels)
        tag = f"responses/{layer}"
        if painted is not None:
            with failures.survive(f"draw {tag}", _LOSING):
                # JPEG blurs the sharp edges of curves. PNG makes photographs several times larger.
                encode = EncodedImage.png if painted.style.is_curve else EncodedImage.jpeg
                images[tag] = encode(painted.compose().pixels)
        return images

    def _paint_responses(self, snapshot: Snapshot, layer: str, tag: str) -> PaintedGrid:
        """Paint the layer's feature maps, or without them its responses to the probe itself."""
        weights, geometry = snapshot.weights[layer], snapshot.geometry[layer]
        maps = snapshot.feature_maps.maps.get(layer)
        kind = f"{tag} {self._response if maps is None else 'maps'} {self._probe.digest}"
        scale = self._scale_of(kind)
        if maps is None:
            painted = paint_responses(
                weights,
                geometry,
                readable_by_layer(self._probe, weights.shape, geometry),
                layer=_title(snapshot, layer),
                when=_when(snapshot),
                response=self._response,
                scale=scale,
            )
        else:
            painted = paint_feature_maps(
                maps,
                weights,
                self._probe,
                layer=_title(snapshot, layer),
                when=_when(snapshot),
                groups=geometry.groups,
                scale=scale,
            )
        self._update_scale(kind, painted.half_ranges)
        return painted

    def _scale_of(self, kind: str) -> Scale:
        return self.run_scales.get(kind, 0.0) if self._scale == "run" else self._scale

    def _update_scale(self, kind: str, half_ranges: Tensor) -> None:
        if self._scale == "run":
            self.run_scales[kind] = half_ranges.max().item()


def _when(snapshot: Snapshot) -> str:
    return f"step {snapshot.step} · epoch {snapshot.epoch}"


def _title(snapshot: Snapshot, layer: str) -> str:
    return layer_title(layer, is_unknown=layer in snapshot.stored_only)


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

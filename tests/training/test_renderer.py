"""The pictures of a snapshot: what their captions, frames and formats say."""

from dataclasses import replace

import pytest
import torch

from kernelviz_callback import Geometry, Snapshot, kernel_health, load_probe
from kernelviz_callback.drawing.encode import EncodedImage
from kernelviz_callback.drawing.layer_pictures import kernel_picture
from kernelviz_callback.model.feature_maps import FeatureMap, FeatureMaps
from kernelviz_callback.probe.probe import Probe
from kernelviz_callback.training.failures import Failures
from kernelviz_callback.training.renderer import Renderer

PROBE = load_probe(size=40)


def weights(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def snapshot(layer: torch.Tensor, *, groups: int = 1) -> Snapshot:
    kind = {3: "Conv1d", 4: "Conv2d"}[layer.ndim]
    dims = layer.ndim - 2
    geometry = Geometry(kind, (1,) * dims, (0,) * dims, (1,) * dims, groups)
    return Snapshot(12, 3, 0.0, {"conv": layer}, {"conv": geometry})


def drawn(taken: Snapshot, probe: Probe = PROBE, **scales: float) -> dict[str, EncodedImage]:
    drawing = Renderer(probe, response="channels", scale="filter", run_scales=scales)
    failures = Failures()
    images = drawing.draw(taken, failures)
    assert not failures.found
    return images


def kernels(filters: torch.Tensor, **options: object) -> bytes:
    picture = kernel_picture(filters, **{"layer": "conv", "when": "step 12 · epoch 3", **options})
    return EncodedImage.png(picture.pixels).content


def test_kernels_are_drawn_with_their_step_groups_and_verdicts() -> None:
    layer = weights(8, 3, 5, 5)
    layer[3] = 0
    health = kernel_health(layer)
    examined = replace(snapshot(layer), health={"conv": health})
    assert drawn(examined)["kernels/conv"].content == kernels(layer, health=health)
    assert drawn(snapshot(layer))["kernels/conv"].content == kernels(layer)
    grouped = weights(9, 1, 5, 5)
    assert drawn(snapshot(grouped, groups=3))["kernels/conv"].content == kernels(grouped, groups=3)


def test_weights_that_are_only_stored_are_called_so_in_both_pictures() -> None:
    layer = weights(8, 3, 5, 5)
    plain = drawn(snapshot(layer))
    stored = drawn(replace(snapshot(layer), stored_only={"conv": "it cannot be measured"}))
    assert stored["kernels/conv"].content == kernels(layer, layer="conv (weights as stored)")
    assert stored["responses/conv"].content != plain["responses/conv"].content


def test_curves_are_png_and_photographs_jpeg() -> None:
    assert drawn(snapshot(weights(8, 1, 31)))["responses/conv"].content.startswith(b"\x89PNG")
    assert drawn(snapshot(weights(8, 3, 5, 5)))["responses/conv"].content.startswith(b"\xff\xd8")


def test_another_probe_has_a_scale_of_its_own() -> None:
    scales: dict[str, float] = {}
    for factor in (1.0, 0.1):
        probe = Probe(factor * PROBE.image, "chart")
        drawing = Renderer(probe, response="channels", scale="run", run_scales=scales)
        drawing.draw(snapshot(weights(8, 3, 5, 5)), Failures())
    ends = sorted(end for kind, end in scales.items() if kind.startswith("responses/conv"))
    assert len(ends) == 2
    assert ends[0] == pytest.approx(0.1 * ends[1], rel=1e-3)


def test_layers_without_feature_maps_are_named_by_reason() -> None:
    two = replace(snapshot(weights(8, 3, 5, 5)))
    absent = {"a": "it did not run", "b": "it did not run", "c": "it ran twice"}
    failures = Failures()
    drawing = Renderer(PROBE, response="channels", scale="filter", run_scales={})
    drawing.draw(replace(two, feature_maps=FeatureMaps({}, absent)), failures)
    reason, _ = failures.found["take feature maps"]
    assert reason == "a, b: it did not run; c: it ran twice"


def test_feature_maps_that_are_back_are_reported() -> None:
    maps = FeatureMaps({"conv": FeatureMap(torch.rand(8, 36, 36))}, {})
    failures = Failures()
    drawing = Renderer(PROBE, response="channels", scale="filter", run_scales={})
    drawing.draw(replace(snapshot(weights(8, 3, 5, 5)), feature_maps=maps), failures)
    assert "take feature maps" in failures.succeeded
    assert not failures.found

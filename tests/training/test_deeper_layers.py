"""Deeper layers in a training: feature maps, their pictures, and models that cannot be run."""

import copy
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import DEFAULT_STEPS, TinyNet, assert_seen, logged_images, warned
from PIL import Image
from torch import Tensor, nn

from kernelviz_callback import KernelVizCallback, kernel_grid, load_probe, response_grid
from kernelviz_callback.drawing.encode import EncodedImage
from kernelviz_callback.drawing.layer_pictures import map_shrink, paint_feature_maps
from kernelviz_callback.model.feature_maps import FeatureMap
from kernelviz_callback.probe.probe import Probe
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.training.failures import Failures
from kernelviz_callback.training.renderer import Renderer
from kernelviz_callback.training.watched_layers import WatchedLayers

PHOTO = Probe(torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(1)), "photo.png")


class Deep(TinyNet):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3))


class Labelled(Deep):
    """A model whose ``forward`` needs a second argument."""

    def forward(self, x: Tensor, is_labelled: bool) -> Tensor:
        return super().forward(x)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0], True), batch[1])
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self(batch[0], True)


def pixels(image: Any) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(image.content))).astype(int)


def renderer(probe: Probe, scale: str = "filter") -> Renderer:
    return Renderer(probe, response="channels", scale=scale, run_scales={})


def taken(net: nn.Module, layers: str, probe: Probe = PHOTO) -> Snapshot:
    watched = WatchedLayers(net, layers, map_shrink=map_shrink)
    snapshot = watched.take(step=1, epoch=0, probe=probe, keep=True, failures=Failures())
    assert snapshot is not None
    return snapshot


def test_the_response_grid_of_a_deeper_layer_is_its_feature_maps() -> None:
    torch.manual_seed(3)
    net = Deep().conv
    snapshot = taken(net, "*")
    images = renderer(PHOTO).draw(snapshot, Failures())
    maps = copy.deepcopy(net).eval()(PHOTO.image[None])[0].detach()
    expected = paint_feature_maps(
        FeatureMap(maps), net[2].weight, PHOTO, layer="2", when="step 1 · epoch 0"
    ).compose()
    assert images["responses/2"].content == EncodedImage.jpeg(expected.pixels).content
    plain = response_grid(maps[:, None])
    assert all(torch.equal(expected.tile(i), plain.tile(i)) for i in range(8))
    kernels = kernel_grid(net[2].weight.detach())
    assert (pixels(images["kernels/2"])[-60:-8] == kernels.pixels.numpy()[-60:-8]).all()


@pytest.mark.parametrize("size", [40, 224, 900])
def test_feature_maps_are_averaged_until_their_picture_fits_the_screen(size: int) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 64, 3))
    probe = load_probe(size=size)
    snapshot = taken(net, "1", probe)
    found = snapshot.feature_maps.maps["1"]
    assert found.shrink == map_shrink(64, size - 4, size - 4)
    picture = paint_feature_maps(found, snapshot.weights["1"], probe, layer="1").compose()
    assert max(picture.pixels.shape[:2]) < 1150
    assert picture.tile(0).shape[0] % found.values.shape[1] == 0


def test_the_run_scale_of_a_deeper_layer_is_that_of_its_feature_maps() -> None:
    net = Deep().conv
    snapshot = taken(net, "*")
    scales: dict[str, float] = {}
    drawing = Renderer(PHOTO, response="channels", scale="run", run_scales=scales)
    drawing.draw(snapshot, Failures())
    largest = snapshot.feature_maps.maps["2"].values.abs().max().item()
    assert scales[f"responses/2 maps {PHOTO.digest}"] == pytest.approx(largest)


def test_a_layer_without_feature_maps_is_drawn_with_its_responses_to_the_probe() -> None:
    class Reader(nn.Sequential):
        def forward(self, text: str) -> None:  # type: ignore[override]
            raise TypeError("expected text")

    probe = load_probe(size=40)
    net = Reader(*Deep().conv)
    snapshot = taken(net, "*", probe)
    failures = Failures()
    images = renderer(probe).draw(snapshot, failures)
    assert len(images) == 4
    failure = failures.found["take feature maps"]
    assert failure.reason.startswith("2: the model failed on images of shape (1, 3, 40, 40)")
    assert failure.reason.endswith("TypeError: expected text")
    assert failure.consequence == "responses to the probe itself are drawn in their place"
    again = renderer(probe).draw(
        replace(snapshot, feature_maps=type(snapshot.feature_maps)()), Failures()
    )
    assert again["responses/2"].content == images["responses/2"].content


@pytest.mark.parametrize("probe", [None, PHOTO.image])
def test_all_watched_layers_are_logged_at_every_snapshot(fit, probe: Tensor | None) -> None:
    trainer = fit(
        KernelVizCallback("conv.*", probe=probe, probe_size=48, health=False), model=Deep()
    )
    for layer in ("conv.0", "conv.2"):
        assert_seen(trainer, DEFAULT_STEPS, layer)


def test_a_model_that_cannot_be_run_gives_one_warning(fit) -> None:
    callback = KernelVizCallback("*", probe_size=48, health=False)
    with pytest.warns(
        UserWarning, match="could not take feature maps: conv.2: the model failed"
    ) as caught:
        trainer = fit(callback, model=Labelled())
    assert len(warned(caught)) == 1
    assert "missing 1 required positional argument" in warned(caught)[0]
    assert "Responses to the probe itself are drawn in their place." in warned(caught)[0]
    assert list(logged_images(trainer.log_dir)["responses/conv.2"]) == DEFAULT_STEPS


def test_the_queue_counts_the_bytes_of_weights_and_feature_maps(
    fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training waits if the queued pictures hold too many bytes."""
    from kernelviz_callback.training.job_queue import JobQueue

    sizes: list[int] = []
    submit = JobQueue.submit

    def counted(self: JobQueue, job: Any, size: int = 0) -> None:
        sizes.append(size)
        submit(self, job, size)

    monkeypatch.setattr(JobQueue, "submit", counted)
    fit(KernelVizCallback("*", probe_size=48, health=False), model=Deep())
    weights = 4 * (6 * 3 * 9 + 8 * 6 * 9)
    maps = 4 * 8 * 44 * 44
    queues = 2  # of files and of pictures
    assert sizes.count(weights + maps) == queues * len(DEFAULT_STEPS)

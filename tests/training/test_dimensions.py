"""1-D and 3-D layers: their pictures, their health, and whole trainings of sound and of clips."""

import json
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from kernelviz_callback import (
    KernelVizCallback,
    KernelWatcher,
    Probe,
    channel_responses,
    compare,
    gain_grid,
    kernel_grid,
    kernel_health,
    load_snapshot,
    response_grid,
)
from kernelviz_callback.drawing.colour import diverging, to_levels
from kernelviz_callback.drawing.curves import draw_curves
from kernelviz_callback.drawing.layer_pictures import response_picture
from kernelviz_callback.drawing.notes import kernel_note
from kernelviz_callback.drawing.tile_style import tile_style
from kernelviz_callback.filters.frequency import frequency_gain
from kernelviz_callback.filters.planes import as_planes
from kernelviz_callback.filters.principal import principal_planes
from kernelviz_callback.model.convolutions import geometry_of
from kernelviz_callback.probe.probe import check_fit, load_probe, readable_by_layer


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def test_planes_are_slices_and_then_channels() -> None:
    weights = drawn(2, 3, 4, 5, 6)
    planes = as_planes(weights)
    for slice_ in range(4):
        for channel in range(3):
            assert torch.equal(planes[:, slice_ * 3 + channel], weights[:, channel, slice_])
    assert torch.equal(as_planes(weights[:, :, 0, 0]), weights[:, :, None, 0, 0])
    assert torch.equal(as_planes(weights[:, :, 0]), weights[:, :, 0])


def test_a_kernel_of_sound_is_its_curve() -> None:
    weights = drawn(6, 1, 9)
    picture = kernel_grid(weights)
    for i, tile in enumerate(weights):
        end = tile.abs().max()[None]
        curve = draw_curves(tile[None], end, height=56, width=81)
        expected = diverging(to_levels(curve, end))[0, 0].permute(1, 2, 0)
        assert torch.equal(picture.tile(i), expected)
    assert torch.equal(picture.half_ranges, weights.abs().amax((1, 2)))


def test_three_channels_of_sound_are_no_colours() -> None:
    tile = kernel_grid(drawn(4, 3, 9)).tile(0)
    assert tile.shape == (56, 3 * 81 + 2, 3)
    single = kernel_grid(drawn(4, 3, 9)[:1, 1:2], scale=drawn(4, 3, 9)[0].abs().max().item())
    assert torch.equal(tile[:, 82:163], single.tile(0))


def test_of_many_channels_of_sound_the_principal_curve_is_drawn() -> None:
    weights = drawn(6, 64, 9)
    curves = principal_planes(weights).planes
    assert curves.shape == (6, 1, 9)
    assert torch.equal(kernel_grid(weights).tile(2), kernel_grid(curves).tile(2))


def test_one_tap_of_many_channels_is_a_matrix() -> None:
    weights = drawn(8, 32, 1)
    assert torch.equal(kernel_grid(weights).pixels, kernel_grid(weights[..., None]).pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_kernel_of_clips_is_a_row_of_its_slices(channels: int) -> None:
    weights = drawn(5, channels, 3, 7, 7)
    scale = weights.abs().max().item()
    tile = kernel_grid(weights, scale=scale).tile(4)
    slices = [kernel_grid(weights[4:, :, d], scale=scale).tile(0)[::8, ::8] for d in range(3)]
    height = tile.shape[0]
    zoom, rule = height // 7, 2 if channels == 3 else 1
    for d, expected in enumerate(slices):
        left = d * (height + rule)
        assert torch.equal(tile[::zoom, left : left + height : zoom], expected)
    assert tile.shape[1] == 3 * height + 2 * rule


def test_of_many_channels_of_clips_the_principal_volume_is_drawn() -> None:
    weights = drawn(5, 16, 3, 5, 5)
    volumes = principal_planes(weights).planes
    assert volumes.shape == (5, 1, 3, 5, 5)
    assert torch.equal(kernel_grid(weights).tile(1), kernel_grid(volumes).tile(1))
    flat = principal_planes(weights.flatten(3)[..., None].flatten(2, 3)).planes
    torch.testing.assert_close(flat.flatten(), volumes.flatten())


@pytest.mark.parametrize("filters", [64, 512, 768])
def test_many_curves_are_drawn_lower(filters: int) -> None:
    pictures = kernel_grid(drawn(filters, 1, 128)), gain_grid(drawn(filters, 129).abs())
    heights = [picture.tile(0).shape[0] for picture in pictures]
    assert all(max(picture.pixels.shape) < 2000 for picture in pictures)
    assert all((height == 56) is (filters == 64) and height % 2 == 0 for height in heights)


def test_not_a_number_is_striped_in_curves_and_slices() -> None:
    magenta = torch.tensor([255, 0, 255], dtype=torch.uint8)
    for weights in (drawn(4, 1, 9), drawn(4, 3, 3, 7, 7)):
        weights[1].flatten()[3] = float("nan")
        picture = kernel_grid(weights)
        striped = [(picture.tile(i) == magenta).all(-1).any().item() for i in range(4)]
        assert striped == [False, True, False, False]


def test_the_response_to_sound_is_what_is_let_through() -> None:
    conv = nn.Conv1d(2, 8, 15, dilation=2)
    probe = load_probe(size=32)
    weights = conv.weight.detach()
    picture = response_picture(weights, geometry_of(conv), probe, layer="conv")
    gain = frequency_gain(weights, dilation=2)
    curve = draw_curves(gain[:, None], gain.amax(1), height=56, width=129, base="bottom")
    expected = diverging(to_levels(curve, gain.amax(1)[:, None, None, None]))[5, 0]
    assert torch.equal(picture.tile(5), expected.permute(1, 2, 0))
    check_fit(weights.shape, geometry_of(conv), load_probe(torch.rand(5, 8, 8)))


@pytest.mark.parametrize("groups", [1, 2])
def test_the_response_to_clips_is_that_of_each_slice(groups: int) -> None:
    conv = nn.Conv3d(3 * groups, 4, (2, 5, 5), dilation=(3, 1, 1), groups=groups)
    probe = load_probe(torch.rand(3 * groups, 40, 40))
    weights = conv.weight.detach()
    picture = response_picture(weights, geometry_of(conv), probe, layer="conv", scale="layer")
    slices = [
        channel_responses(probe.image, weights[:, :, d].contiguous(), groups=groups)
        for d in range(2)
    ]
    expected = response_grid(torch.stack(slices, dim=2), scale="layer")
    torch.testing.assert_close(picture.half_ranges, expected.half_ranges)
    difference = picture.tile(3).int() - expected.tile(3).int()
    assert difference.abs().max() <= 1, "rounded differently at most"
    half = picture.tile(0).shape[1] // 2
    assert not torch.equal(picture.tile(3)[:, :half], picture.tile(3)[:, -half:])


@pytest.mark.parametrize("shape", [(16, 1, 25), (16, 3, 3, 5, 5)])
def test_health_of_other_dimensions(shape: tuple[int, ...]) -> None:
    weights = drawn(*shape)
    weights[2] = 0
    weights[5] = weights[4]
    weights[7].flatten()[0] = float("inf")
    health = kernel_health(weights, first=drawn(*shape) + 0.1)
    assert health.shape == shape
    assert health.flagged("near-zero") == [2]
    assert health.flagged("duplicate") == [4, 5]
    assert health.flagged("non-finite") == [7]
    assert health.totals.drift > 0
    assert "colour needs a 2-D layer" in health.absent["colour_share"]
    assert health.filters.bandwidth[0] > 0
    assert health.filters.orientation.isfinite().any() == (len(shape) == 5)
    assert ("orientation" in health.absent) == (len(shape) == 3)


def test_a_kernel_of_sound_has_no_direction() -> None:
    weights = drawn(12, 2, 16)
    sound, row = kernel_health(weights), kernel_health(weights[:, :, None])
    assert sound.absent["orientation"] == "a 1-D kernel has no direction"
    assert kernel_health(0 * weights).absent["orientation"] == sound.absent["orientation"]
    assert kernel_health(weights[..., :1]).absent["orientation"].startswith("a 1x1 kernel")
    assert "orientation" not in row.absent
    has_stripes = row.filters.frequency > 0
    assert (row.filters.orientation[has_stripes].round() == 90).all()
    assert torch.equal(sound.filters.bandwidth, row.filters.bandwidth)


def test_noise_is_told_from_sound() -> None:
    weights = drawn(16, 1, 16)
    t = torch.arange(16.0)
    weights[0, 0] = torch.cos(1.2 * t) * torch.hann_window(16, periodic=False) + 0.1 * weights[0, 0]
    health = kernel_health(weights)
    assert "noise-like verdict" not in health.absent
    assert health.totals.noise_share > 0.8
    assert 0 not in health.flagged("noise-like")


class Sound(pl.LightningModule):
    """Tells low tones from high ones."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv1d(1, 8, 15), nn.ReLU(), nn.Conv1d(8, 16, 5), nn.ReLU())
        self.head = nn.Linear(16, 2)

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        sounds, labels = batch
        features = self.net(sounds).mean(-1)
        return nn.functional.cross_entropy(self.head(features), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(64) % 2
        tones = torch.where(labels == 1, 0.4, 0.05)[:, None] * torch.arange(64)
        noise = torch.randn(64, 1, 64, generator=generator)
        sounds = torch.sin(2 * torch.pi * tones)[:, None] + 0.1 * noise
        data = torch.utils.data.TensorDataset(sounds, labels)
        return torch.utils.data.DataLoader(data, batch_size=16)


class Clips(Sound):
    """Tells clips that brighten from clips that darken."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv3d(3, 8, (3, 5, 5)), nn.ReLU(), nn.Flatten(2))
        self.head = nn.Linear(8, 2)

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(32) % 2
        ramp = torch.where(labels == 1, 1, -1)[:, None] * torch.linspace(-1, 1, 6)
        noise = torch.rand(32, 3, 6, 12, 12, generator=generator)
        data = torch.utils.data.TensorDataset(noise + ramp[:, None, :, None, None], labels)
        return torch.utils.data.DataLoader(data, batch_size=16)


def fitted(kind: type[Sound], folder: Path, *callbacks: pl.Callback) -> tuple[Sound, pl.Trainer]:
    pl.seed_everything(0)
    model = kind()
    trainer = pl.Trainer(
        max_epochs=4,
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model)
    return model, trainer


@pytest.mark.parametrize("kind", [Sound, Clips])
def test_an_image_of_the_data(tmp_path: Path, kind: type[Sound], recwarn) -> None:
    """Of clips the middle of the first; sound has none, and no use for it."""
    callback = KernelVizCallback(probe="train_batch")
    model, trainer = fitted(kind, tmp_path, callback)
    last = load_snapshot(max(Path(trainer.log_dir).glob("kernelviz/step-*.safetensors")))
    assert not [str(w.message) for w in recwarn if "could not" in str(w.message)]
    assert last.probe_name == ("chart" if kind is Sound else "train_batch")
    assert (callback._state().batch_probe is None) is (kind is Sound)
    if kind is Clips:
        clip = next(iter(model.train_dataloader()))[0][0]
        assert torch.equal(callback._probe.image, clip[:, 3])


def test_deeper_layers_of_clips_see_a_photo_in_grey(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv3d(3, 8, 3), nn.Conv3d(8, 4, 3))
    photo = torch.rand(3, 32, 32)
    with KernelWatcher(net, tmp_path, layers="*", probe=photo) as watcher:
        watcher.snapshot(0)
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0})
    events.Reload()
    assert {"responses/0", "responses/1"} <= set(events.Tags()["images"])
    probe = Probe(photo, "photo")
    geometry = geometry_of(net[1])
    shape = tuple(net[1].weight.shape)
    grey = readable_by_layer(probe, shape, geometry)
    expected = (photo * torch.tensor([0.2989, 0.587, 0.114])[:, None, None]).sum(0, keepdim=True)
    torch.testing.assert_close(grey.image, expected)
    assert readable_by_layer(probe, (8, 3, 3, 3, 3), geometry_of(net[0])) is probe


def test_a_watcher_has_no_batches(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a Trainer, whose batches the callback sees"):
        KernelWatcher(nn.Conv3d(3, 8, 3), tmp_path, probe="train_batch")


def test_sound_and_images_are_not_compared() -> None:
    with pytest.raises(ValueError, match=r"has 2 dimensions and 'Conv1d' of .* 1; name a layer"):
        compare(nn.Conv1d(1, 4, 5), nn.Conv2d(1, 4, 5))


def test_whole_slices_are_drawn_and_what_is_left_out_is_said() -> None:
    weights = drawn(1024, 2, 5, 3, 3)
    tile = kernel_grid(weights, title="many").tile(7)
    first = kernel_grid(weights[7:8, :, :2], scale=weights[7].abs().max().item()).tile(0)
    zoom, larger = (tile.shape[0] // 3, first.shape[0] // 3)
    assert tile.shape[1] == 4 * 3 * zoom + 3, "two slices of two channels, ruled off"
    for place in range(4):
        small = tile[::zoom, place * (3 * zoom + 1) :: zoom][:, :3]
        assert torch.equal(small, first[::larger, place * (3 * larger + 1) :: larger][:, :3])
    assert "slice by slice (2 of 5), 2 input channels of each" in kernel_note(
        tile_style(weights.shape), 4
    )


@pytest.mark.parametrize(
    ("kind", "layers", "tags"),
    [
        (Sound, None, {"net.0"}),
        (Sound, "*", {"net.0", "net.2"}),
        (Clips, None, {"net.0"}),
    ],
)
def test_a_training_is_seen_and_not_disturbed(
    tmp_path: Path, kind: type[Sound], layers: str | None, tags: set[str], recwarn
) -> None:
    alone, _ = fitted(kind, tmp_path / "alone")
    model, trainer = fitted(kind, tmp_path / "seen", KernelVizCallback(layers=layers))
    for name, value in alone.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert not [str(w.message) for w in recwarn if "could not" in str(w.message)]
    events = EventAccumulator(trainer.log_dir, size_guidance={"images": 0})
    events.Reload()
    shown = set(events.Tags()["images"])
    for layer in tags:
        assert {f"kernels/{layer}", f"responses/{layer}"} <= shown
        steps = [image.step for image in events.Images(f"kernels/{layer}")]
        assert {trainer.global_step * k // 4 for k in range(5)} <= set(steps)
    assert ("probe" in shown) is (kind is Clips), "sound has no use for an image"
    last = load_snapshot(max(Path(trainer.log_dir).glob("kernelviz/step-*.safetensors")))
    for layer in tags:
        conv = model.get_submodule(layer)
        assert torch.equal(last.weights[layer], conv.weight)
        assert last.geometry[layer] == geometry_of(conv)
        assert last.health[layer].shape == tuple(conv.weight.shape)
        json.dumps(last.health[layer].to_dict())

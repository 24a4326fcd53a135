"""Trainings with 1-D and 3-D layers: networks for sound and for clips."""

import json
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from kernelviz_callback import KernelVizCallback, KernelWatcher, Probe, load_snapshot
from kernelviz_callback.model.convolutions import geometry_of
from kernelviz_callback.probe.probe import readable_by_layer
from kernelviz_callback.snapshots.probe_file import load_saved_probe


class Sound(pl.LightningModule):
    """A network that classifies tones as low or high."""

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
    """A network that classifies clips as brightening or darkening."""

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


def test_the_chart_has_the_size_that_the_user_chose_though_no_layer_reads_it(
    tmp_path: Path,
) -> None:
    callback = KernelVizCallback(probe="train_batch", probe_size=64)
    _, trainer = fitted(Sound, tmp_path, callback)
    saved = load_saved_probe(Path(trainer.log_dir) / "kernelviz")
    assert saved is not None
    assert saved.size == (64, 64)


@pytest.mark.parametrize("kind", [Sound, Clips])
def test_the_probe_of_clips_is_an_image_and_sound_has_none(
    tmp_path: Path, kind: type[Sound], recwarn
) -> None:
    """The probe of clips is the middle slice of the first clip. Sound needs no probe."""
    callback = KernelVizCallback(probe="train_batch")
    model, trainer = fitted(kind, tmp_path, callback)
    last = load_snapshot(max(Path(trainer.log_dir).glob("kernelviz/step-*.safetensors")))
    assert not [str(w.message) for w in recwarn if "could not" in str(w.message)]
    assert last.probe_name == ("chart" if kind is Sound else "train_batch")
    image = callback.state_dict()["batch_probe"]
    assert (image is None) is (kind is Sound)
    if kind is Clips:
        clip = next(iter(model.train_dataloader()))[0][0]
        assert torch.equal(image, clip[:, 3])


def test_deeper_layers_of_clips_read_a_photo_in_grey(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("kind", "layers", "tags"),
    [
        (Sound, None, {"net.0"}),
        (Sound, "*", {"net.0", "net.2"}),
        (Clips, None, {"net.0"}),
    ],
)
def test_a_training_of_sound_or_clips_is_logged_and_unchanged(
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
    assert ("probe" in shown) is (kind is Clips), "sound needs no probe"
    last = load_snapshot(max(Path(trainer.log_dir).glob("kernelviz/step-*.safetensors")))
    for layer in tags:
        conv = model.get_submodule(layer)
        assert torch.equal(last.weights[layer], conv.weight)
        assert last.geometry[layer] == geometry_of(conv)
        assert last.health[layer].shape == tuple(conv.weight.shape)
        json.dumps(last.health[layer].to_dict())

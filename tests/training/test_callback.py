"""The callback in real trainings. The tests read what was written after ``fit`` has returned."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import (
    BATCHES,
    DEFAULT_STEPS,
    STEPS,
    TinyNet,
    TwoOptimizers,
    Witness,
    assert_seen,
    logged_images,
    steps_on_disk,
)
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from kernelviz_callback import KernelVizCallback, list_snapshots, load_snapshot
from kernelviz_callback.snapshots.probe_file import load_saved_probe
from kernelviz_callback.training.watched_layers import WatchedLayers

# --- snapshots and pictures -----------------------------------------------------------------------


def test_a_training_writes_snapshots_and_logs_pictures(fit) -> None:
    witness = Witness()
    trainer = fit(KernelVizCallback(), witness)
    assert_seen(trainer, DEFAULT_STEPS)
    images = logged_images(trainer.log_dir)
    assert list(images["probe"]) == [0]
    assert images["probe"][0].shape == (224, 224, 3)
    for step, path in list_snapshots(Path(trainer.log_dir) / "kernelviz").items():
        snapshot = load_snapshot(path)
        assert snapshot.step == step
        assert torch.equal(snapshot.weights["conv"], witness.weights[step])
        assert snapshot.probe_digest == load_saved_probe(path.parent).digest
    assert [load_snapshot(p).epoch for p in list_snapshots(path.parent).values()] == [0, 0, 0, 0, 1]


def test_the_logged_kernels_are_the_weights(fit) -> None:
    from kernelviz_callback import kernel_grid

    witness = Witness()
    trainer = fit(KernelVizCallback(health=False), witness)
    for step, pixels in logged_images(trainer.log_dir)["kernels/conv"].items():
        expected = kernel_grid(witness.weights[step])
        grid = expected.pixels[expected.layout.top :].numpy()
        assert np.array_equal(pixels[-len(grid) :], grid)


def test_the_logged_responses_are_the_convolution(fit) -> None:
    """Compare each tile with torch's convolution of the probe, at the size of the tile."""
    smooth = nn.functional.interpolate(torch.rand(1, 3, 6, 6), (52, 52), mode="bicubic")[0]
    trainer = fit(KernelVizCallback(probe=smooth), max_epochs=1)
    folder = Path(trainer.log_dir) / "kernelviz"
    probe, snapshot = load_saved_probe(folder), load_snapshot(folder / "step-00000004.safetensors")
    weight = snapshot.weights["conv"]
    planes = nn.functional.conv2d(
        probe.image[None], weight.transpose(0, 1).reshape(24, 1, 5, 5), groups=3
    )
    responses = planes.view(3, 8, 48, 48).transpose(0, 1)
    pixels = logged_images(trainer.log_dir)["responses/conv"][4]
    side = 4 * 48  # enlarged four times
    left, top = 22, pixels.shape[0] - 8 - 3 * (side + 2)
    for i, response in enumerate(responses):
        row, column = divmod(i, 3)
        tile = pixels[top + row * (side + 2) :, left + column * (side + 2) :][:side, :side]
        tile = tile.reshape(48, 4, 48, 4, 3).mean((1, 3))
        expected = 128 + 127 * (response / response.abs().max()).permute(1, 2, 0).numpy()
        assert np.abs(tile - expected).mean() < 4, "the difference is larger than that of JPEG"


def test_the_probe_may_be_a_photo(fit, tmp_path: Path) -> None:
    from PIL import Image

    levels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "photo.png")
    trainer = fit(KernelVizCallback(probe=str(tmp_path / "photo.png")))
    assert_seen(trainer, DEFAULT_STEPS)
    probe = load_saved_probe(Path(trainer.log_dir) / "kernelviz")
    assert np.array_equal((probe.image * 255).round().permute(1, 2, 0).numpy(), levels)
    assert logged_images(trainer.log_dir)["probe"][0].shape == (30, 40, 3)


def test_named_layers_and_a_summed_response(fit) -> None:
    class Two(TinyNet):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3, groups=2))

    trainer = fit(KernelVizCallback(["conv.2", "conv.0"], response="sum"), model=Two())
    assert_seen(trainer, DEFAULT_STEPS, "conv.0")
    assert_seen(trainer, DEFAULT_STEPS, "conv.2")
    snapshot = load_snapshot(Path(trainer.log_dir) / "kernelviz" / "step-00000008.safetensors")
    assert snapshot.geometry["conv.2"].groups == 2


# --- schedule -------------------------------------------------------------------------------------


class Stream(IterableDataset):
    def __iter__(self):
        generator = torch.Generator().manual_seed(1)
        for _ in range(BATCHES):
            yield torch.rand(8, 3, 16, 16, generator=generator), torch.zeros(8, dtype=torch.long)


class StreamNet(TinyNet):
    def train_dataloader(self):
        return DataLoader(Stream(), batch_size=None)


@pytest.mark.parametrize(
    ("options", "trainer_options", "steps"),
    [
        ({}, {"accumulate_grad_batches": 2}, [0, 1, 2, 4]),
        ({"early_steps": False}, {}, [0, 4, 8]),
        ({"early_steps": False, "every_n_epochs": None}, {}, [0, 8]),
        ({"early_steps": False, "every_n_epochs": 2}, {"max_epochs": 5}, [0, 8, 16, 20]),
        ({"early_steps": False, "every_n_train_steps": 3}, {}, [0, 3, 4, 6, 8]),
        ({}, {"max_steps": 6}, [0, 1, 2, 4, 6]),
        ({}, {"max_steps": 3}, [0, 1, 2, 3]),
        ({}, {"max_time": {"seconds": 0}}, None),
        ({}, {"check_val_every_n_epoch": 2}, DEFAULT_STEPS),
        ({}, {"val_check_interval": 2}, DEFAULT_STEPS),
        ({}, {"num_sanity_val_steps": 0}, DEFAULT_STEPS),
        ({}, {"limit_val_batches": 0}, DEFAULT_STEPS),
        ({}, {"limit_train_batches": 0}, None),
        ({}, {"precision": "bf16-mixed"}, DEFAULT_STEPS),
    ],
)
def test_the_schedule_and_the_trainer_decide_the_steps(
    fit, options, trainer_options, steps
) -> None:
    trainer = fit(KernelVizCallback(**options), **trainer_options)
    if steps is None:  # the number of steps depends on the clock, or there was no batch
        steps = steps_on_disk(trainer.log_dir)
        assert steps == [] or steps[-1] == trainer.global_step
    if steps:
        assert_seen(trainer, steps)


def test_a_data_set_without_length_is_trained(fit) -> None:
    assert_seen(fit(KernelVizCallback(), model=StreamNet()), DEFAULT_STEPS)


def test_the_steps_of_several_optimizers_are_added(fit) -> None:
    trainer = fit(KernelVizCallback(), model=TwoOptimizers())
    assert trainer.global_step == 2 * STEPS
    assert_seen(trainer, [0, 2, 4, 8, 16])


def test_the_last_step_before_early_stopping_has_a_snapshot(fit) -> None:
    stop = EarlyStopping("val_loss", stopping_threshold=100.0)
    trainer = fit(KernelVizCallback(), stop, max_epochs=9)
    assert trainer.global_step == BATCHES
    assert_seen(trainer, [0, 1, 2, 4])


class Stumble(Callback):
    """Raises during the batch after step 3."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_train_batch_start(self, trainer, *_: Any) -> None:
        if trainer.global_step == 3:
            raise self.error


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_the_last_step_before_an_exception_has_a_snapshot(trainer_for, error) -> None:
    trainer = trainer_for(KernelVizCallback(), Stumble(error))
    with pytest.raises((RuntimeError, SystemExit)):
        trainer.fit(TinyNet())
    assert_seen(trainer, [0, 1, 2, 3])


def test_a_second_fit_of_the_same_trainer_continues_in_the_same_folder(trainer_for) -> None:
    trainer, model = trainer_for(KernelVizCallback(), max_epochs=1), TinyNet()
    trainer.fit(model)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(model)
    assert_seen(trainer, DEFAULT_STEPS)


def test_a_second_fit_of_another_trainer_starts_a_new_folder(fit, tmp_path: Path) -> None:
    callback = KernelVizCallback(scale="run")
    first, second = fit(callback), fit(callback)
    assert first.log_dir != second.log_dir
    assert_seen(first, DEFAULT_STEPS)
    assert_seen(second, DEFAULT_STEPS)
    assert "probe" in logged_images(second.log_dir)


def test_two_trainings_in_one_folder_write_to_separate_folders(fit, tmp_path: Path) -> None:
    for _ in range(2):
        fit(KernelVizCallback(), logger=False)
    folders = sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("kernelviz"))
    assert folders == ["kernelviz", "kernelviz-2"]


def test_validate_test_and_predict_write_nothing(trainer_for, tmp_path: Path) -> None:
    trainer, model = trainer_for(KernelVizCallback()), TinyNet()
    trainer.validate(model, verbose=False)
    trainer.test(model, verbose=False)
    trainer.predict(model)
    assert not list(tmp_path.rglob("*.safetensors"))
    assert logged_images(trainer.log_dir) == {}


def test_a_fast_dev_run_writes_nothing(fit, tmp_path: Path) -> None:
    fit(KernelVizCallback(), fast_dev_run=True)
    assert not list(tmp_path.rglob("*kernelviz*"))


def test_a_wrong_layer_is_an_error_in_a_fast_dev_run_too(fit) -> None:
    with pytest.raises(ValueError, match="no convolution to watch"):
        fit(KernelVizCallback("nowhere"), fast_dev_run=True)


def test_the_first_snapshot_of_a_lazy_layer_has_its_first_weights(fit) -> None:
    class First(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
            if trainer.global_step == 0:
                self.weight = pl_module.conv.weight.detach().clone()

    first = First()
    trainer = fit(
        KernelVizCallback(), first, model=TinyNet(nn.LazyConv2d(8, 5)), num_sanity_val_steps=0
    )
    assert_seen(trainer, DEFAULT_STEPS)
    start = load_snapshot(Path(trainer.log_dir) / "kernelviz" / "step-00000000.safetensors")
    assert torch.equal(start.weights["conv"], first.weight)


# --- probes ---------------------------------------------------------------------------------------


class FirstBatches(Callback):
    def __init__(self) -> None:
        self.train: torch.Tensor | None = None
        self.val: torch.Tensor | None = None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if self.train is None:
            self.train = batch[0][0].clone()

    def on_validation_batch_start(self, trainer, pl_module, batch, *_: Any) -> None:
        if self.val is None:
            self.val = batch[0][0].clone()


@pytest.mark.parametrize("source", ["train_batch", "val_batch"])
@pytest.mark.parametrize("sanity", [0, 2])
def test_the_probe_may_be_the_first_image_of_the_data(fit, source: str, sanity: int) -> None:
    seen = FirstBatches()
    trainer = fit(KernelVizCallback(probe=source), seen, num_sanity_val_steps=sanity)
    probe = load_saved_probe(Path(trainer.log_dir) / "kernelviz")
    assert probe.name == source
    assert torch.equal(probe.image, seen.train if source == "train_batch" else seen.val)
    assert_seen(trainer, DEFAULT_STEPS)


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (torch.zeros(3, 4, 30), r"layer 'conv': the kernel covers 5x5 .* only 4x30"),
        (torch.zeros(2, 30, 30), r"layer 'conv': the layer reads 3 input channels .* has 2"),
    ],
)
def test_a_probe_that_does_not_fit_is_an_error_before_training(fit, probe, message) -> None:
    model = TinyNet()
    with pytest.raises(ValueError, match=message):
        fit(KernelVizCallback(probe=probe), model=model)
    assert model.losses == []


def test_a_batch_without_images_is_an_error_before_the_first_update(fit) -> None:
    class Flat(TinyNet):
        def forward(self, x):
            return super().forward(x.view(-1, 3, 16, 16))

        def train_dataloader(self):
            loader = super().train_dataloader()
            images, labels = loader.dataset.tensors
            loader.dataset.tensors = (images.flatten(1), labels)
            return loader

    model = Flat()
    with pytest.raises(ValueError, match=r"has \(8, 768\)"):
        fit(KernelVizCallback(probe="train_batch"), model=model)
    assert model.losses == []


@pytest.mark.parametrize("source", ["train_batch", "val_batch"])
def test_an_image_of_the_data_that_does_not_fit_is_an_error_before_training(
    fit, source: str, tmp_path: Path
) -> None:
    class Deep(TinyNet):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 8, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(torch.cat([x, x[:, :1]], dim=1))

    model = Deep()
    with pytest.raises(ValueError, match=r"layer 'conv.0': the layer reads 4 input channels"):
        fit(KernelVizCallback("*", probe=source), model=model)
    assert model.losses == []
    assert not list(tmp_path.rglob("step-*"))


# --- when weights are copied ----------------------------------------------------------------------


def test_weights_are_copied_only_when_a_snapshot_is_due(
    fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    take = WatchedLayers.take

    def counted(self: Any, *, step: int, **rest: Any) -> Any:
        taken.append(step)
        return take(self, step=step, **rest)

    monkeypatch.setattr(WatchedLayers, "take", counted)
    trainer = fit(KernelVizCallback(every_n_epochs=10, early_steps=False), max_epochs=4)
    assert taken == [0, 16]
    assert_seen(trainer, [0, 16])


# --- copies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_a_copy_has_the_settings_and_the_state_but_no_model(fit, copied) -> None:
    during = []

    class Copy(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 3:
                during.append(copied(callback))

    callback = KernelVizCallback(probe_size=64, every_n_train_steps=2, scale="run")
    before = copied(callback)
    assert before.state_dict() == {}
    fit(callback, Copy())
    after = copied(callback)
    assert after.state_dict() == callback.state_dict() != {}
    assert during[0].state_dict()["layers"] == {"conv": [8, 3, 5, 5]}
    for one in (before, *during, after):
        assert not any(isinstance(value, nn.Module) for value in vars(one).values())
        assert_seen(fit(one), [0, 1, 2, 4, 6, 8])


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layers": 3}, TypeError, "layers must be None, a name, or a list"),
        ({"layers": []}, ValueError, "layers is an empty list"),
        ({"layers": ["a", 1]}, TypeError, "layers must be"),
        ({"response": "mean"}, ValueError, "response must be one of 'channels', 'sum'"),
        ({"scale": 1.0}, ValueError, "scale must be one of 'filter', 'layer', 'run'"),
        ({"probe": "nowhere.png"}, FileNotFoundError, "is not a file"),
        ({"probe": 7}, TypeError, "probe must be"),
        ({"probe_size": 0}, ValueError, "probe_size must be a whole number"),
        ({"probe_size": 8}, ValueError, "at least 16"),
        ({"every_n_epochs": 0}, ValueError, "every_n_epochs"),
        ({"every_n_train_steps": -1}, ValueError, "every_n_train_steps"),
    ],
)
def test_a_bad_argument_is_an_error_at_once(options, error, message) -> None:
    with pytest.raises(error, match=message):
        KernelVizCallback(**options)

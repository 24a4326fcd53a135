"""Resuming a training, and loggers that take no images."""

import logging
from pathlib import Path

import pytest
import torch
from conftest import TinyNet, logged_images
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from torch import nn

from kernelviz_callback import KernelVizCallback, list_snapshots
from kernelviz_callback.snapshots.attempt import Attempt
from kernelviz_callback.snapshots.probe_file import load_saved_probe
from kernelviz_callback.training.run_state import RunState


def checkpoint(trainer: Trainer, tmp_path: Path) -> Path:
    path = tmp_path / "last.ckpt"
    trainer.save_checkpoint(path)
    return path


@pytest.mark.parametrize("attempt", [Attempt("a1b2", 1_700_000_000_000), None])
def test_the_state_in_a_checkpoint_has_fixed_keys(attempt: Attempt | None) -> None:
    state = RunState({"conv": [8, 3, 5, 5]}, "digest", run_scales={"k": 2.0}, attempt=attempt)
    saved = state.to_dict()
    assert saved == {
        "layers": {"conv": [8, 3, 5, 5]},
        "probe_digest": "digest",
        "batch_source": None,
        "batch_probe": None,
        "run_scales": {"k": 2.0},
        "run": attempt.training if attempt else None,
        "attempt": attempt.number if attempt else 0,
    }
    assert RunState.from_dict({**saved, "unknown": 1}) == state
    assert RunState().to_dict() == {}


def test_steps_continue_in_a_new_log_directory(fit, tmp_path: Path) -> None:
    first = fit(KernelVizCallback())
    second = fit(KernelVizCallback(), ckpt_path=checkpoint(first, tmp_path), max_epochs=4)
    assert first.log_dir != second.log_dir
    assert list(list_snapshots(Path(second.log_dir) / "kernelviz")) == [8, 12, 16]
    assert list(logged_images(second.log_dir)["kernels/conv"]) == [8, 12, 16]


def test_no_step_is_logged_twice_in_the_same_log_directory(fit, tmp_path: Path) -> None:
    def logger() -> TensorBoardLogger:
        return TensorBoardLogger(tmp_path, name="run", version="same")

    first = fit(KernelVizCallback(), logger=logger())
    path = checkpoint(first, tmp_path)
    second = fit(KernelVizCallback(), ckpt_path=path, max_epochs=4, logger=logger())
    steps = [0, 1, 2, 4, 8, 12, 16]
    assert list(list_snapshots(Path(second.log_dir) / "kernelviz")) == steps
    images = logged_images(second.log_dir)
    assert list(images["responses/conv"]) == steps
    assert list(images["probe"]) == [0]


def test_the_run_scale_survives_a_resume(fit, tmp_path: Path) -> None:
    callback = KernelVizCallback(scale="run")
    first = fit(callback)
    state = torch.load(checkpoint(first, tmp_path), weights_only=True)["callbacks"]
    (scales,) = [s["run_scales"] for s in state.values()]
    assert scales["kernels/conv"] > 0

    model = TinyNet()
    path = tmp_path / "last.ckpt"
    saved = torch.load(path, weights_only=True)
    for s in saved["callbacks"].values():
        s["run_scales"]["kernels/conv"] = 123.0
    torch.save(saved, path)
    resumed = KernelVizCallback(scale="run")
    fit(resumed, model=model, ckpt_path=path, max_epochs=3)
    assert resumed.state_dict()["run_scales"]["kernels/conv"] == 123.0


def test_the_run_scale_is_only_ever_widened(fit) -> None:
    class Shrinking(TinyNet):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1, weight_decay=5.0)

    callback, model = KernelVizCallback(scale="run"), Shrinking()
    first = model.conv.weight.abs().max().item()
    fit(callback, model=model)
    assert model.conv.weight.abs().max() < 0.7 * first
    assert callback.state_dict()["run_scales"]["kernels/conv"] == pytest.approx(first)


def test_a_probe_from_the_data_survives_a_resume(fit, tmp_path: Path) -> None:
    first = fit(KernelVizCallback(probe="train_batch"))
    path = checkpoint(first, tmp_path)
    second = fit(KernelVizCallback(probe="train_batch"), ckpt_path=path, max_epochs=3)
    probes = [load_saved_probe(Path(t.log_dir) / "kernelviz") for t in (first, second)]
    assert probes[0].digest == probes[1].digest


def test_a_changed_probe_is_reported(fit, tmp_path: Path) -> None:
    path = checkpoint(fit(KernelVizCallback()), tmp_path)
    with pytest.warns(UserWarning, match="the probe changed since the checkpoint"):
        fit(KernelVizCallback(probe_size=64), ckpt_path=path, max_epochs=3)


def test_a_changed_layer_is_reported(fit, tmp_path: Path) -> None:
    class Two(TinyNet):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 3))

    path = checkpoint(fit(KernelVizCallback(), model=Two()), tmp_path)
    with pytest.warns(UserWarning, match=r"watched layers changed .*'conv.0'.*'conv.1'"):
        fit(KernelVizCallback("conv.1"), model=Two(), ckpt_path=path, max_epochs=3)


def test_a_checkpoint_without_the_callback_can_be_resumed(fit, tmp_path: Path) -> None:
    path = checkpoint(fit(), tmp_path)
    second = fit(KernelVizCallback(), ckpt_path=path, max_epochs=3)
    assert list(list_snapshots(Path(second.log_dir) / "kernelviz")) == [8, 12]


@pytest.mark.parametrize("kind", ["none", "csv"])
def test_without_a_logger_for_images_the_pictures_are_files(fit, tmp_path, kind, caplog) -> None:
    logger = False if kind == "none" else CSVLogger(tmp_path, name="csv")
    notes = logging.getLogger("kernelviz_callback")
    notes.addHandler(caplog.handler)
    notes.propagate, propagated = False, notes.propagate
    try:
        trainer = fit(KernelVizCallback(), logger=logger)
    finally:
        notes.removeHandler(caplog.handler)
        notes.propagate = propagated
    folder = Path(trainer.log_dir) / "kernelviz"
    assert str(folder) in caplog.text
    assert caplog.text.count("no logger takes images") == 1
    for step in list_snapshots(folder):
        for name in (f"kernels-conv-step-{step:08d}.png", f"responses-conv-step-{step:08d}.jpg"):
            with Image.open(folder / name) as image:
                assert min(image.size) > 100
    with Image.open(folder / "probe.png") as image:
        assert image.size == (224, 224)


def test_tensorboard_beside_another_logger_is_found(fit, tmp_path: Path) -> None:
    loggers = [CSVLogger(tmp_path, name="csv"), TensorBoardLogger(tmp_path, name="tb")]
    fit(KernelVizCallback(), logger=loggers)
    log_dir = loggers[1].log_dir
    assert list(logged_images(log_dir)["kernels/conv"]) == [0, 1, 2, 4, 8]
    assert list_snapshots(Path(log_dir) / "kernelviz")
    assert not list((tmp_path / "csv").rglob("*.png"))


def test_a_resumed_training_finds_its_folder_among_several(fit, tmp_path: Path) -> None:
    states = []
    for _ in range(2):
        trainer = fit(KernelVizCallback(), logger=False, max_epochs=1)
        states.append(tmp_path / f"{len(states)}.ckpt")
        trainer.save_checkpoint(states[-1])
    fit(KernelVizCallback(), logger=False, max_epochs=2, ckpt_path=states[1])
    assert list(list_snapshots(tmp_path / "kernelviz")) == [0, 1, 2, 4]
    assert list(list_snapshots(tmp_path / "kernelviz-2")) == [0, 1, 2, 4, 8]
    alone = tmp_path / "alone.ckpt"
    fit(logger=False, max_epochs=1).save_checkpoint(alone)
    fit(KernelVizCallback(), logger=False, max_epochs=2, ckpt_path=alone)
    assert list(list_snapshots(tmp_path / "kernelviz-3")) == [4, 8]


def test_a_callback_continues_the_training_whose_checkpoint_it_loads(fit, tmp_path: Path) -> None:
    other = KernelVizCallback()
    path = tmp_path / "other.ckpt"
    fit(other, logger=False, max_epochs=1).save_checkpoint(path)
    callback = KernelVizCallback()
    trainer = fit(callback, logger=False, max_epochs=1)
    own = callback.state_dict()["run"]
    trainer.fit_loop.max_epochs = 2
    trainer.fit(TinyNet(), ckpt_path=path)
    assert callback.state_dict()["run"] == other.state_dict()["run"] != own
    assert list(list_snapshots(tmp_path / "kernelviz")) == [0, 1, 2, 4, 8]
    assert list(list_snapshots(tmp_path / "kernelviz-2")) == [0, 1, 2, 4]


def test_later_snapshots_of_an_abandoned_attempt_are_set_aside(
    fit, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = checkpoint(fit(KernelVizCallback(), logger=False, max_epochs=1), tmp_path)
    fit(KernelVizCallback(), logger=False, max_epochs=3, ckpt_path=path)
    fit(KernelVizCallback(every_n_epochs=2), logger=False, max_epochs=2, ckpt_path=path)
    assert list(list_snapshots(tmp_path / "kernelviz")) == [0, 1, 2, 4, 8]
    moved = tmp_path / "kernelviz" / "cut-off-1"
    assert list(list_snapshots(moved)) == [8, 12]
    assert (
        f"2 snapshots of later steps, from an attempt that was cut off, were moved to {moved}"
        in (caplog.text)
    )


def test_a_learning_rate_finder_does_not_make_a_new_training_look_resumed(
    fit, tmp_path: Path
) -> None:
    class Found(TinyNet):
        lr = 0.1

    for _ in range(2):
        fit(
            LearningRateFinder(num_training_steps=5),
            KernelVizCallback(),
            model=Found(),
            logger=False,
        )
    for name in ("kernelviz", "kernelviz-2"):
        assert list(list_snapshots(tmp_path / name)) == [0, 1, 2, 4, 8]


def test_two_trainings_at_once_in_one_directory_are_kept_apart(fit, tmp_path: Path) -> None:
    class Inner(Callback):
        """Trains another network in the same log directory, in the middle of the training."""

        def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
            if trainer.global_step == 3:
                fit(KernelVizCallback(), logger=False, max_epochs=1)

    with pytest.warns(UserWarning, match="another training is writing to .*kernelviz right now"):
        fit(KernelVizCallback(), Inner(), logger=False, max_epochs=2)
    assert list(list_snapshots(tmp_path / "kernelviz")) == [0, 1, 2, 4, 8]
    assert list(list_snapshots(tmp_path / "kernelviz-2")) == [0, 1, 2, 4]

"""If the callback fails, the training ends normally: same weights, one warning."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import (
    DEFAULT_STEPS,
    STEPS,
    TinyNet,
    assert_seen,
    logged_images,
    steps_on_disk,
    warned,
)
from forked import run_python
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from torch import nn
from torch.nn.utils.parametrize import register_parametrization

from kernelviz_callback import KernelVizCallback, list_snapshots, load_snapshot
from kernelviz_callback.snapshots.probe_file import load_saved_probe
from kernelviz_callback.training import job_queue, renderer
from kernelviz_callback.training.run_lock import lock_run_folder


def trained_weights(fit, *callbacks: Callback, **options: Any) -> torch.Tensor:
    torch.manual_seed(11)
    model = TinyNet()
    fit(*callbacks, model=model, **options)
    return model.conv.weight.detach()


# --- the disk -----------------------------------------------------------------------------------


def train_on_hostile_disk(fault: str, folder: Path, *watched: str) -> tuple[list[str], str, str]:
    """Run `hostile_disk.py`.

    Returns:
        The warnings, the digest of the weights, and all that was printed to stderr.
    """
    folder.mkdir()
    command = [str(Path(__file__).parents[1] / "hostile_disk.py"), fault, str(folder), *watched]
    if watched and fault == "read-only" and os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write anywhere, and setpriv, which forbids it, is missing")
        forbid = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
        done = subprocess.run(
            [*forbid, sys.executable, *command], capture_output=True, text=True, check=False
        )
    else:
        done = run_python(*command)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    (weights,) = [line for line in lines if line.startswith("weights:")]
    return [line for line in lines if line.startswith("warning:")], weights, done.stderr


@pytest.mark.processes
@pytest.mark.parametrize(
    ("fault", "message", "lost"),
    [
        (
            "full",
            "at step 3 could not write to .*File too large.*what was written is kept",
            [3, 4, 5],
        ),
        ("read-only", "at step 3 could not write to .*Permission denied", [3, 4, 5]),
        ("full-for-events", "could not log to SummaryWriter: OSError.*snapshot files are kept", []),
    ],
)
def test_snapshots_go_on_after_a_disk_failed_for_a_while(
    tmp_path: Path, fault, message, lost
) -> None:
    _, expected, _ = train_on_hostile_disk(fault, tmp_path / "alone")
    warnings, weights, said = train_on_hostile_disk(fault, tmp_path / "watched", "watched")
    assert weights == expected
    assert len(warnings) == 1
    assert re.search(message, warnings[0])
    assert "at step 6 could again" in said
    (folder,) = (tmp_path / "watched").rglob("kernelviz")
    assert list(list_snapshots(folder)) == [s for s in range(STEPS + 1) if s not in lost]
    for path in list_snapshots(folder).values():
        load_snapshot(path)
    assert not list(folder.glob("*.tmp"))
    if lost:
        assert "3 lost (steps 3, 4, 5)" in said
        assert len(list(folder.glob("kernels-conv-*.png"))) == STEPS + 1 - len(lost)
    else:
        images = logged_images(folder.parent)
        assert {0, 6, 7, 8} <= images["kernels/conv"].keys() < set(range(STEPS + 1))


def test_a_training_survives_a_folder_that_cannot_be_made(fit, tmp_path: Path) -> None:
    expected = trained_weights(fit, logger=False)

    class PutFile(Callback):
        def on_fit_start(self, trainer: Any, *_: Any) -> None:
            (tmp_path / "logs").write_text("a file where the folder should be")

    root = tmp_path / "logs"
    with pytest.warns(UserWarning, match="could not write to .*logs: ") as caught:
        found = trained_weights(
            fit, PutFile(), KernelVizCallback(), logger=False, default_root_dir=root
        )
    assert len(warned(caught)) == 1
    assert torch.equal(found, expected)


# --- loggers ------------------------------------------------------------------------------------


class Experiment:
    """A writer that fails with its second picture and all later ones."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def add_image(self, tag: str, pixels: np.ndarray, step: int, dataformats: str) -> None:
        assert dataformats == "HWC"
        assert pixels.dtype == np.uint8
        self.calls.append((tag, step))
        if len(self.calls) > 1:
            raise ConnectionError("the server is gone")


def own_logger(tmp_path: Path, experiment: Experiment) -> Any:
    class OwnLogger(CSVLogger):
        @property
        def experiment(self) -> Any:
            return experiment

        def log_metrics(self, *_: Any, **__: Any) -> None: ...

        def save(self) -> None: ...

    return OwnLogger(tmp_path)


def test_a_failing_logger_gives_one_warning_and_snapshots_go_on(fit, tmp_path: Path) -> None:
    expected = trained_weights(fit)
    experiment = Experiment()
    with pytest.warns(UserWarning, match="could not log") as caught:
        found = trained_weights(fit, KernelVizCallback(), logger=own_logger(tmp_path, experiment))
    pictures, films = warned(caught)
    assert "could not log to Experiment" in pictures
    assert "could not log films to Experiment" in films
    assert torch.equal(found, expected)
    assert [step for _, step in experiment.calls] == [0, 0, 1, 2, 4, 8, 8], (
        "it is tried at every step"
    )
    assert len(list(tmp_path.rglob("step-*.safetensors"))) == len(DEFAULT_STEPS)


def test_pictures_become_files_while_a_logger_is_unreachable(fit, tmp_path: Path) -> None:
    class Unreachable(Experiment):
        reads = 0

        @property
        def add_image(self) -> Any:
            self.reads += 1
            if self.reads < 4:
                raise ConnectionError("the server is gone")
            return lambda tag, pixels, step, dataformats: self.calls.append((tag, step))

    expected = trained_weights(fit)
    experiment = Unreachable()
    with pytest.warns(UserWarning, match="could not reach OwnLogger.*server is gone") as caught:
        found = trained_weights(fit, KernelVizCallback(), logger=own_logger(tmp_path, experiment))
    assert len(warned(caught)) == 1
    assert torch.equal(found, expected)
    assert experiment.calls[0][0] == "probe"
    assert [s for tag, s in experiment.calls if tag == "kernels/conv"] == [4, 8]
    steps = sorted(int(p.stem[-8:]) for p in tmp_path.rglob("kernels-conv-step-*.png"))
    assert steps == [0, 1, 2]
    assert len(list(tmp_path.rglob("step-*.safetensors"))) == len(DEFAULT_STEPS)


def test_one_failing_logger_does_not_stop_another(fit, tmp_path: Path) -> None:
    class Broken(Experiment):
        @property
        def add_image(self) -> Any:
            raise ConnectionError("the server is gone")

    board = TensorBoardLogger(tmp_path, name="board")
    with pytest.warns(UserWarning, match="could not reach OwnLogger"):
        fit(KernelVizCallback(), logger=[own_logger(tmp_path, Broken()), board])
    assert list(logged_images(board.log_dir)["kernels/conv"]) == DEFAULT_STEPS


class Flaky(CSVLogger):
    """A logger that fails after the set-up, in which Lightning itself needs it."""

    def __init__(self, *args: Any, fails: str) -> None:
        super().__init__(*args)
        self.fails = fails
        self.reads = 0

    @property
    def experiment(self) -> Any:
        self.reads += 1
        if self.fails == "experiment" and self.reads > 2:  # Lightning itself reads it twice
            raise ConnectionError("the server is gone")
        return super().experiment

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if self.fails == "log_metrics" and any(name.startswith("kernelviz/") for name in metrics):
            raise ConnectionError("the server is gone")

    def save(self) -> None: ...


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        ("experiment", r"could not reach Flaky: .*server is gone.*snapshot files are kept"),
        ("log_metrics", r"could not log numbers to Flaky: .*server is gone"),
    ],
)
def test_a_logger_that_becomes_unreachable_gives_one_warning(
    fit, tmp_path: Path, fails: str, message: str
) -> None:
    expected = trained_weights(fit)
    board = TensorBoardLogger(tmp_path, name="board")
    loggers = [Flaky(tmp_path, fails=fails), board]
    with pytest.warns(UserWarning, match=message) as caught:
        found = trained_weights(fit, KernelVizCallback(), logger=loggers)
    assert len(warned(caught)) == 1
    assert torch.equal(found, expected)
    assert list(logged_images(board.log_dir)["kernels/conv"]) == DEFAULT_STEPS
    assert steps_on_disk(board.log_dir) == DEFAULT_STEPS


# --- the callback itself -------------------------------------------------------------------------


def test_a_picture_that_cannot_be_drawn_gives_one_warning(
    fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = renderer.paint_responses

    def fail_early(*args: Any, **kwargs: Any) -> Any:
        if "step 4" in kwargs["when"] or "step 8" in kwargs["when"]:
            return draw(*args, **kwargs)
        raise MemoryError("no memory left for a picture")

    expected = trained_weights(fit)
    monkeypatch.setattr(renderer, "paint_responses", fail_early)
    torch.manual_seed(11)
    model = TinyNet()
    with pytest.warns(UserWarning, match="could not draw responses/conv: MemoryError") as caught:
        trainer = fit(KernelVizCallback(), model=model)
    assert len(warned(caught)) == 1
    assert torch.equal(model.conv.weight, expected)
    images = logged_images(trainer.log_dir)
    assert list(images["responses/conv"]) == [4, 8]
    assert list(images["kernels/conv"]) == steps_on_disk(trainer.log_dir) == DEFAULT_STEPS


def test_weights_that_cannot_be_read_give_one_warning(fit) -> None:
    class FailsInEvaluation(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            if not self.training:
                raise RuntimeError("not in evaluation mode")
            return weight * 1

    def unreadable() -> TinyNet:
        torch.manual_seed(11)
        model = TinyNet()
        register_parametrization(model.conv, "weight", FailsInEvaluation())
        return model

    alone, watched = unreadable(), unreadable()
    fit(model=alone, limit_val_batches=0)
    with pytest.warns(UserWarning, match="could not read the weights of conv: Runtime") as caught:
        trainer = fit(KernelVizCallback(), model=watched, limit_val_batches=0)
    assert len(warned(caught)) == 1
    assert torch.equal(alone.conv.weight, watched.conv.weight)
    assert steps_on_disk(trainer.log_dir) == []


def test_a_probe_file_is_read_only_once(fit, tmp_path: Path) -> None:
    Image.new("RGB", (30, 30), "teal").save(tmp_path / "probe.png")
    callback = KernelVizCallback(probe=tmp_path / "probe.png")
    (tmp_path / "probe.png").unlink()
    trainer = fit(callback)
    assert_seen(trainer, DEFAULT_STEPS)
    assert load_saved_probe(Path(trainer.log_dir) / "kernelviz").size == (30, 30)


def test_a_clock_that_goes_backwards_changes_no_step(fit, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    trainer = fit(KernelVizCallback())
    monkeypatch.undo()
    assert_seen(trainer, DEFAULT_STEPS)
    snapshots = list_snapshots(Path(trainer.log_dir) / "kernelviz").values()
    times = [load_snapshot(path).wall_time for path in snapshots]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_queued_snapshots_are_written_after_an_exception(trainer_for, error) -> None:
    class Stop(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 7:
                raise error

    trainer = trainer_for(KernelVizCallback(every_n_train_steps=1), Stop())
    with pytest.raises((RuntimeError, SystemExit)):
        trainer.fit(TinyNet())
    assert_seen(trainer, list(range(8)))
    assert not [t for t in threading.enumerate() if t.name.startswith("kernelviz")]


def test_an_interrupt_at_the_end_loses_no_snapshot(fit, monkeypatch: pytest.MonkeyPatch) -> None:
    close = job_queue.JobQueue.close
    interrupts = [KeyboardInterrupt()]

    def interrupted(self: Any, **options: Any) -> bool:
        if interrupts:
            raise interrupts.pop()
        return close(self, **options)

    monkeypatch.setattr(job_queue.JobQueue, "close", interrupted)
    trainer = interrupted_trainer(fit)
    assert not interrupts
    assert_seen(trainer, list(range(STEPS + 1)))
    assert not [t for t in threading.enumerate() if t.name.startswith("kernelviz")]
    lock = lock_run_folder(trainer.log_dir)
    assert not lock.was_killed
    lock.release()


def interrupted_trainer(fit: Any) -> Any:
    seen = []

    class Remember(Callback):
        def on_fit_start(self, trainer: Any, *_: Any) -> None:
            seen.append(trainer)

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(Remember(), KernelVizCallback(every_n_train_steps=1))
    return seen[0]


@pytest.mark.loses_something
def test_warnings_as_errors_do_not_end_a_training(fit, tmp_path: Path) -> None:
    (tmp_path / "kernelviz").write_text("a file where the folder should be")
    trainer = fit(KernelVizCallback(), logger=False)  # pytest turns warnings into errors
    assert trainer.global_step == STEPS


def test_nan_weights_are_drawn(fit) -> None:
    class Exploding(TinyNet):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=float("inf"))

    trainer = fit(KernelVizCallback(), model=Exploding())
    assert_seen(trainer, DEFAULT_STEPS)
    last = logged_images(trainer.log_dir)["kernels/conv"][8]
    assert (last == (255, 0, 255)).all(-1).sum() > 0.4 * 8 * 55 * 55, (
        "NaN is drawn as stripes, which cover half of every tile"
    )

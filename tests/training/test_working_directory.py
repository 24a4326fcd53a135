"""The working directory may change during a training: everything stays in one folder."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEFAULT_STEPS, TinyNet, logged_images, steps_on_disk, warned
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from kernelviz_callback import KernelVizCallback, KernelWatcher, find_checkpoints, open_checkpoint


class Wanderer(TinyNet):
    """Changes the working directory in one of its hooks."""

    def __init__(self, hook: str) -> None:
        super().__init__()
        self._hook = hook

    def _leave(self, hook: str) -> None:
        if hook == self._hook:
            Path("elsewhere").mkdir()
            os.chdir("elsewhere")

    def setup(self, stage: str) -> None:
        self._leave("setup")

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        if self.trainer.global_step == 2:
            self._leave("training_step")
        return super().training_step(batch, batch_idx)


@pytest.fixture
def start(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("hook", "has_logger"), [("training_step", True), ("training_step", False), ("setup", False)]
)
def test_a_training_that_leaves_its_directory_writes_to_one_folder(
    fit, start: Path, hook: str, has_logger: bool, recwarn: Any
) -> None:
    logger = TensorBoardLogger("runs", name="run") if has_logger else False
    fit(KernelVizCallback(), model=Wanderer(hook), logger=logger, default_root_dir="root")
    log_dir = start / ("runs/run/version_0" if has_logger else "root")
    assert steps_on_disk(log_dir) == DEFAULT_STEPS
    if has_logger:
        assert list(logged_images(log_dir)["kernels/conv"]) == DEFAULT_STEPS
    else:
        assert len(list((log_dir / "kernelviz").glob("kernels-conv-*.png"))) == len(DEFAULT_STEPS)
    assert list((start / "elsewhere").iterdir()) == []
    assert not warned(recwarn)


def test_a_watcher_writes_to_the_folder_that_its_path_meant_first(start: Path, monkeypatch) -> None:
    (start / "elsewhere").mkdir()
    with KernelWatcher(nn.Conv2d(3, 8, 5), "runs") as watcher:
        for step in range(4):
            monkeypatch.chdir(start if step == 3 else start / "elsewhere")
            watcher.snapshot(step)
    assert steps_on_disk(start / "runs") == [0, 1, 2, 3]
    assert list(logged_images(start / "runs")["kernels/Conv2d"]) == [0, 1, 2, 3]
    assert list((start / "elsewhere").iterdir()) == []


def test_the_weights_of_an_open_checkpoint_are_read_later(start: Path, monkeypatch) -> None:
    conv = nn.Conv2d(3, 8, 5)
    for name in ("a.pt", "b.pt"):
        torch.save({"conv.weight": conv.weight}, name)
    named = find_checkpoints("*.pt")
    opened = [open_checkpoint(name) for name in named]
    (start / "elsewhere").mkdir()
    monkeypatch.chdir(start / "elsewhere")
    assert [checkpoint.name for checkpoint in opened] == named == ["a.pt", "b.pt"]
    for checkpoint in opened:
        assert torch.equal(checkpoint.read("conv"), conv.weight)

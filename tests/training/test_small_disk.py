"""Another process fills the disk, or the disk becomes read-only, while TensorBoard writes to it."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BATCHES, LoggingNet, TinyNet, fill, wait_until_recorded, warned
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kernelviz_callback import KernelVizCallback, list_snapshots, load_snapshot

EPOCHS = 10


class FullForAMoment(Callback):
    """Fills the disk after step 5, when it has pictures, and empties it after step 25."""

    def __init__(self, disk: Path) -> None:
        self.disk = disk
        self.filler = disk

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 5:
            wait_until_recorded(trainer)
            self.filler = fill(self.disk)
        if trainer.global_step == 25:
            self.filler.unlink()


class ReadOnly(Callback):
    """Makes the disk read-only after step 5, as Linux does after an error of the disk."""

    def __init__(self, disk: Path) -> None:
        self.disk = disk

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 5:
            subprocess.run(["mount", "-o", "remount,abort", str(self.disk)], check=True)


def trained(
    fit: Any, kind: type[TinyNet], folder: Path, *callbacks: Callback
) -> list[torch.Tensor]:
    torch.manual_seed(11)
    model = kind()
    logger = TensorBoardLogger(folder, name="", version="")
    fit(
        *callbacks,
        model=model,
        logger=logger,
        max_epochs=EPOCHS,
        log_every_n_steps=1,
        limit_val_batches=0,
    )
    return list(model.parameters())


def test_a_training_survives_a_disk_that_is_full_for_a_moment(
    fit, tmp_path: Path, small_disk: Path
) -> None:
    expected = trained(fit, LoggingNet, tmp_path / "alone")
    log_dir = small_disk / "logs"
    watched = KernelVizCallback(every_n_train_steps=1, scale="run")
    with pytest.warns(UserWarning, match="No space left") as caught:
        found = trained(fit, LoggingNet, log_dir, watched, FullForAMoment(small_disk))
    assert all(map(torch.equal, found, expected))
    assert len(warned(caught)) == 1, "files, pictures and films have one cause"
    events = EventAccumulator(str(log_dir), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    steps = [event.step for event in events.Scalars("loss")]
    assert len(steps) == EPOCHS * BATCHES, "no event of the training is lost"
    assert events.Images("kernels/conv")[-1].step == EPOCHS * BATCHES
    for path in list_snapshots(log_dir / "kernelviz").values():
        load_snapshot(path)


@pytest.mark.parametrize("small_disk", ["ext4"], indirect=True)
def test_a_training_survives_a_disk_that_becomes_read_only(
    fit, tmp_path: Path, small_disk: Path
) -> None:
    expected = trained(fit, TinyNet, tmp_path / "alone")
    watched = KernelVizCallback(every_n_train_steps=1)
    with pytest.warns(UserWarning, match="Read-only file system") as caught:
        found = trained(fit, TinyNet, small_disk / "logs", watched, ReadOnly(small_disk))
    assert all(map(torch.equal, found, expected))
    assert len(warned(caught)) == 1

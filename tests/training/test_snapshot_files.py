"""Snapshot files: what happens when the run folder is deleted while a training runs."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import (
    STEPS,
    TinyNet,
    logged_images,
    steps_on_disk,
    wait_until_recorded,
    warned,
)
from lightning.pytorch import Callback
from test_failures import trained_weights

from kernelviz_callback import KernelVizCallback, list_snapshots
from kernelviz_callback.snapshots.probe_file import load_saved_probe
from kernelviz_callback.training.run_lock import lock_run_folder

EVERY_STEP = {"every_n_train_steps": 1}


class Delete(Callback):
    """Deletes files or folders in the log directory after some steps."""

    def __init__(self, what: str, *after: int) -> None:
        self.what = what
        self.after = after

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step in self.after:
            wait_until_recorded(trainer)
            if trainer.logger:
                # Otherwise its thread may make a file while this one deletes the folder.
                trainer.logger.experiment.flush()
            log_dir = Path(trainer.log_dir)
            for path in [log_dir] if self.what == "." else list(log_dir.glob(self.what)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    ("what", "logger"),
    [
        ("kernelviz", True),
        ("*", True),
        (".", False),  # TensorBoard's writer fails if the whole log directory is deleted
    ],
)
def test_a_folder_that_is_deleted_is_replaced(fit, what: str, logger: bool) -> None:
    expected = trained_weights(fit)
    torch.manual_seed(11)
    model = TinyNet()
    ours = KernelVizCallback(every_n_train_steps=1, scale="run")
    with pytest.warns(UserWarning, match="it was deleted") as caught:
        trainer = fit(ours, Delete(what, 3), model=model, **({} if logger else {"logger": False}))
    assert len(warned(caught)) == 1
    assert "The 4 snapshots in it are lost; later ones go to a new folder" in warned(caught)[0]
    assert torch.equal(model.conv.weight, expected)
    folder = Path(trainer.log_dir) / "kernelviz"
    assert list(list_snapshots(folder)) == [4, 5, 6, 7, 8]
    assert load_saved_probe(folder) is not None
    if logger:
        steps = set(logged_images(trainer.log_dir)["kernels/conv"])
        assert steps == ({4, 5, 6, 7, 8} if what == "*" else set(range(STEPS + 1)))


def test_a_folder_that_is_deleted_twice_is_replaced_twice(fit, closing_line) -> None:
    with pytest.warns(UserWarning, match="it was deleted") as caught:
        trainer = fit(KernelVizCallback(**EVERY_STEP, scale="run"), Delete("kernelviz", 3, 6))
    first, second = warned(caught)
    assert "at step 4 could not find" in first
    assert "at step 7 could not find" in second
    assert "The 3 snapshots in it are lost" in second
    assert steps_on_disk(trainer.log_dir) == [7, 8]
    said = closing_line()
    assert re.match(r"kernelviz: 2 snapshots written to .*; 7 deleted with their folder", said)


def test_a_folder_that_is_deleted_and_made_again_by_another_training_is_avoided(
    fit, tmp_path: Path
) -> None:
    class TakeFolder(Callback):
        """Deletes the folder and locks a new one of the same name for another training."""

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 3:
                wait_until_recorded(trainer)
                shutil.rmtree(tmp_path / "kernelviz")
                self.lock = lock_run_folder(tmp_path)
                (self.lock.folder / "step-00000000.safetensors").write_bytes(b"another's")

    taker = TakeFolder()
    with pytest.warns(UserWarning, match="it was deleted") as caught:
        fit(KernelVizCallback(**EVERY_STEP, scale="run"), taker, logger=False)
    taker.lock.release()
    assert len(warned(caught)) == 1
    assert [p.name for p in (tmp_path / "kernelviz").glob("step-*")] == [
        "step-00000000.safetensors"
    ]
    assert list(list_snapshots(tmp_path / "kernelviz-2")) == [4, 5, 6, 7, 8]

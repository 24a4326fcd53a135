"""Pictures that a killed training lost are logged again after a resume."""

import math
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import STEPS, logged_images, steps_on_disk, warned
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from kernelviz_callback import KernelVizCallback, register_logger
from kernelviz_callback.training import drawing_process, recorder
from kernelviz_callback.training.renderer import Renderer

EVERY_STEP = {"every_n_train_steps": 1}


def killed_training(fit: Any, tmp_path: Path) -> Path:
    """Train four steps and leave the files as a kill would, without pictures.

    Returns:
        Path of the checkpoint.
    """
    board = TensorBoardLogger(tmp_path, name="run", version="0")
    trainer = fit(KernelVizCallback(**EVERY_STEP), logger=board, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    (Path(board.log_dir) / "kernelviz" / ".lock").write_text("held")
    for events in Path(board.log_dir).glob("events*"):
        events.unlink()
    return tmp_path / "last.ckpt"


def test_new_files_do_not_wait_for_pictures_that_are_logged_again(
    fit, tmp_path, monkeypatch
) -> None:
    gate = threading.Event()
    draw = Renderer.draw

    def after_the_gate(*args: Any) -> Any:
        assert gate.wait(20)
        return draw(*args)

    class CheckFiles(Callback):
        seen: ClassVar[list[int]] = []

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 7:
                self.seen += steps_on_disk(trainer.log_dir)
                gate.set()

    path = killed_training(fit, tmp_path)
    monkeypatch.setattr(Renderer, "draw", after_the_gate)
    board = TensorBoardLogger(tmp_path, name="run", version="0")
    fit(KernelVizCallback(**EVERY_STEP), CheckFiles(), logger=board, ckpt_path=path)
    assert CheckFiles.seen[:7] == [0, 1, 2, 3, 4, 5, 6]
    assert list(logged_images(board.log_dir)["kernels/conv"]) == list(range(STEPS + 1))
    assert not (Path(board.log_dir) / "kernelviz" / ".unsure").exists()


@pytest.mark.long
def test_new_pictures_are_not_left_out_because_many_are_logged_again(
    fit, tmp_path, monkeypatch
) -> None:
    """To draw one takes less than the training waits for it, but to draw five takes more."""
    draw = Renderer.draw

    def slowly(*args: Any) -> Any:
        time.sleep(2.5)
        return draw(*args)

    path = killed_training(fit, tmp_path)
    for name in ("START_COST", "START_COST_ON_MANY"):
        monkeypatch.setattr(drawing_process, name, math.inf)
    monkeypatch.setattr(Renderer, "draw", slowly)
    monkeypatch.setattr(recorder, "MOST_WAITING", 1)
    monkeypatch.setattr(recorder, "_PICTURE_PATIENCE", 10.0)
    board = TensorBoardLogger(tmp_path, name="run", version="0")
    fit(KernelVizCallback(**EVERY_STEP), logger=board, ckpt_path=path)
    assert list(logged_images(board.log_dir)["kernels/conv"]) == list(range(STEPS + 1))


def test_only_the_pictures_of_a_damaged_file_are_lost(fit, tmp_path: Path) -> None:
    path = killed_training(fit, tmp_path)
    board = TensorBoardLogger(tmp_path, name="run", version="0")
    damaged = Path(board.log_dir) / "kernelviz" / "step-00000002.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.warns(UserWarning, match="could not read .*step-00000002") as caught:
        fit(KernelVizCallback(**EVERY_STEP), logger=board, ckpt_path=path)
    assert len(warned(caught)) == 1
    assert "the pictures of this snapshot may be lost; others are kept" in warned(caught)[0].lower()
    assert list(logged_images(board.log_dir)["kernels/conv"]) == [0, 1, 3, 4, 5, 6, 7, 8]


def test_a_logger_that_appends_gets_no_picture_twice(
    fit, own_loggers: None, tmp_path: Path
) -> None:
    class Album(TensorBoardLogger):
        steps: ClassVar[list[int]] = []

    def keep(album: Album, images: Any, step: int) -> None:
        album.steps += [step] if "kernels/conv" in images else []

    register_logger(Album, keep)
    path = killed_training(fit, tmp_path)
    board = TensorBoardLogger(tmp_path, name="run", version="0")
    album = Album(tmp_path, name="album")
    fit(KernelVizCallback(**EVERY_STEP), logger=[board, album], ckpt_path=path)
    assert album.steps == [5, 6, 7, 8]
    assert list(logged_images(board.log_dir)["kernels/conv"]) == list(range(STEPS + 1))

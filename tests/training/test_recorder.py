"""The recorder: files before pictures, waiting times, deleted folders, killed processes."""

import re
import shutil
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

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
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from test_failures import trained_weights

from kernelviz_callback import KernelVizCallback, list_snapshots, register_logger
from kernelviz_callback.snapshots.probe_file import load_saved_probe
from kernelviz_callback.training import patience, recorder
from kernelviz_callback.training.renderer import Renderer
from kernelviz_callback.training.run_lock import lock_run_folder

EVERY_STEP = {"every_n_train_steps": 1}

# --- a folder that is deleted -------------------------------------------------------------------


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
    assert "The 4 snapshots in it are lost; the next go to a new folder" in warned(caught)[0]
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
    class Usurp(Callback):
        """Deletes the folder and locks a new one of the same name for another training."""

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 3:
                wait_until_recorded(trainer)
                shutil.rmtree(tmp_path / "kernelviz")
                self.lock = lock_run_folder(tmp_path)
                (self.lock.folder / "step-00000000.safetensors").write_bytes(b"another's")

    usurp = Usurp()
    with pytest.warns(UserWarning, match="it was deleted") as caught:
        fit(KernelVizCallback(**EVERY_STEP, scale="run"), usurp, logger=False)
    usurp.lock.release()
    assert len(warned(caught)) == 1
    assert [p.name for p in (tmp_path / "kernelviz").glob("step-*")] == [
        "step-00000000.safetensors"
    ]
    assert list(list_snapshots(tmp_path / "kernelviz-2")) == [4, 5, 6, 7, 8]


# --- a folder that cannot be reached ------------------------------------------------------------


class HookTimes(Callback):
    """Measures how long the hooks of a callback take, in seconds."""

    def __init__(self, watched: KernelVizCallback) -> None:
        self.taken: list[float] = []
        for name in ("on_train_start", "on_train_batch_end", "on_train_epoch_end"):
            setattr(watched, name, self._timed(getattr(watched, name)))

    def _timed(self, hook: Any) -> Any:
        def timed(*args: Any) -> None:
            start = time.perf_counter()
            hook(*args)
            self.taken.append(time.perf_counter() - start)

        return timed


def test_a_training_does_not_wait_for_a_folder_that_times_out(
    fit, monkeypatch, closing_line
) -> None:
    """After the time-out the folder is not tried again at every snapshot."""
    tried: list[str] = []

    def time_out(*_: Any, **__: Any) -> Any:
        tried.append(threading.current_thread().name)
        time.sleep(0.3)
        raise TimeoutError("the network is away")

    expected = trained_weights(fit)
    monkeypatch.setattr(patience, "_LONG", 0.2)
    monkeypatch.setattr(recorder, "open_run_folder", time_out)
    callback = KernelVizCallback(early_steps=False)
    times = HookTimes(callback)
    with pytest.warns(UserWarning, match="could not write to .*network is away") as caught:
        found = trained_weights(fit, callback, times, max_epochs=2)
    assert len(warned(caught)) == 1
    assert torch.equal(found, expected)
    assert tried == ["kernelviz-files"]
    assert times.taken[0] < 0.1, "the first hook does not wait"
    assert "0 snapshots written" in closing_line()
    assert "3 lost (steps 0, 4, 8)" in closing_line()


class Far(Logger):
    """Client of a server that is unreachable. It compares equal to others, so it has no hash."""

    name = version = "far"
    __hash__ = None

    def __init__(self) -> None:
        super().__init__()
        self.tried: list[int] = []

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Far)

    def log_metrics(self, *_: Any, **__: Any) -> None:
        pass

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass


def test_a_logger_that_times_out_is_skipped_and_the_others_are_not(
    fit, monkeypatch, own_loggers: None, tmp_path: Path
) -> None:
    def log(logger: Far, images: Any, step: int) -> None:
        logger.tried.append(step)
        time.sleep(0.3)
        raise RuntimeError("the server is away")

    monkeypatch.setattr(patience, "_LONG", 0.2)
    register_logger(Far, log)
    far, near = Far(), TensorBoardLogger(tmp_path)
    expected = trained_weights(fit)
    callback = KernelVizCallback(**EVERY_STEP)
    with pytest.warns(UserWarning, match=r"could not log (films )?to Far: .*") as caught:
        found = trained_weights(fit, callback, logger=[far, near])
    assert "the server is away" in warned(caught)[0]
    assert torch.equal(found, expected)
    assert far.tried == [0], "then it is skipped for ten times as long"
    assert len(warned(caught)) == 2, "one for the snapshots, one for the films"
    assert list(logged_images(near.log_dir)["kernels/conv"]) == list(range(STEPS + 1))


def test_a_folder_that_fails_at_once_is_tried_at_every_snapshot(fit, monkeypatch) -> None:
    open_run_folder = recorder.open_run_folder
    tried: list[int] = []

    def fail_twice(*args: Any, first: Any, **kwargs: Any) -> Any:
        tried.append(first.step)
        if len(tried) < 3:
            raise OSError("not mounted yet")
        return open_run_folder(*args, first=first, **kwargs)

    monkeypatch.setattr(recorder, "open_run_folder", fail_twice)
    with pytest.warns(UserWarning, match="could not write to .*not mounted yet"):
        trainer = fit(KernelVizCallback(**EVERY_STEP))
    assert tried == [0, 1, 2]
    assert steps_on_disk(trainer.log_dir) == list(range(2, STEPS + 1))


# --- waiting is counted -------------------------------------------------------------------------


class Slow(Callback):
    """Makes each step as long as in a real training."""

    def on_train_batch_start(self, *_: Any) -> None:
        time.sleep(0.1)


def slow_down(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    draw = Renderer.draw

    def slowly(*args: Any) -> Any:
        time.sleep(seconds)
        return draw(*args)

    monkeypatch.setattr(Renderer, "draw", slowly)


def waits(closing_line: str) -> tuple[int, float]:
    found = re.search(r"training waited for them (\d+) times, (\S+) s in all", closing_line)
    return (int(found[1]), float(found[2])) if found else (0, 0.0)


def test_a_full_queue_is_counted_in_the_closing_line(fit, monkeypatch, closing_line) -> None:
    slow_down(monkeypatch, 0.1)
    monkeypatch.setattr(recorder, "MOST_WAITING", 1)
    trainer = fit(KernelVizCallback(**EVERY_STEP))
    times, seconds = waits(closing_line())
    assert STEPS - 4 <= times <= STEPS
    assert seconds > 0.3
    assert steps_on_disk(trainer.log_dir) == list(range(STEPS + 1))


def test_without_waiting_the_closing_line_counts_none(fit, closing_line) -> None:
    fit(KernelVizCallback(early_steps=False), Slow())
    assert waits(closing_line()) == (0, 0.0)


def test_a_checkpoint_that_waits_for_the_run_scale_is_counted(
    fit, monkeypatch, closing_line
) -> None:
    class Save(Callback):
        def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
            callback.state_dict()

    slow_down(monkeypatch, 0.2)
    callback = KernelVizCallback(scale="run", early_steps=False)
    fit(callback, Slow(), Save(), max_epochs=1)
    times, seconds = waits(closing_line())
    assert times == 1
    assert 0.2 < seconds < 2


# --- after a kill -------------------------------------------------------------------------------


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

    class Look(Callback):
        seen: ClassVar[list[int]] = []

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 7:
                self.seen += steps_on_disk(trainer.log_dir)
                gate.set()

    path = killed_training(fit, tmp_path)
    monkeypatch.setattr(Renderer, "draw", after_the_gate)
    board = TensorBoardLogger(tmp_path, name="run", version="0")
    fit(KernelVizCallback(**EVERY_STEP), Look(), logger=board, ckpt_path=path)
    assert Look.seen[:7] == [0, 1, 2, 3, 4, 5, 6]
    assert list(logged_images(board.log_dir)["kernels/conv"]) == list(range(STEPS + 1))
    assert not (Path(board.log_dir) / "kernelviz" / ".unsure").exists()


def test_only_the_pictures_of_a_damaged_file_are_lost(fit, tmp_path: Path) -> None:
    path = killed_training(fit, tmp_path)
    board = TensorBoardLogger(tmp_path, name="run", version="0")
    damaged = Path(board.log_dir) / "kernelviz" / "step-00000002.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.warns(UserWarning, match="could not read .*step-00000002") as caught:
        fit(KernelVizCallback(**EVERY_STEP), logger=board, ckpt_path=path)
    assert len(warned(caught)) == 1
    assert "its pictures may be lost; the others are kept" in warned(caught)[0].lower()
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

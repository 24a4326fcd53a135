"""The recorder: time-outs of folders and loggers, and how long the training waits."""

import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import STEPS, logged_images, steps_on_disk, warned
from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from test_failures import trained_weights

from kernelviz_callback import KernelVizCallback, register_logger
from kernelviz_callback.training import failures, recorder
from kernelviz_callback.training.renderer import Renderer
from kernelviz_callback.training.run_lock import lock_run_folder
from kernelviz_callback.training.run_state import RunState

EVERY_STEP = {"every_n_train_steps": 1}

# --- a folder that cannot be reached ------------------------------------------------------------


class Clock:
    """Stands for the module ``time`` in `failures`: time passes only when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(failures, "time", clock)
    return clock


def test_a_training_does_not_wait_for_a_folder_that_times_out(
    fit, monkeypatch, clock: Clock, closing_line
) -> None:
    """After the time-out the folder is not tried again at every snapshot."""
    tried: list[str] = []
    has_begun = threading.Event()

    class Begin(Callback):
        def on_train_start(self, *_: Any) -> None:
            has_begun.set()  # the hook of the callback before has returned

    def time_out(*_: Any, **__: Any) -> Any:
        tried.append(threading.current_thread().name)
        assert has_begun.wait(60), "the first hook does not wait"
        clock.now += 30
        raise TimeoutError("the network is away")

    expected = trained_weights(fit)
    monkeypatch.setattr(recorder, "open_run_folder", time_out)
    callback = KernelVizCallback(early_steps=False)
    with pytest.warns(UserWarning, match="could not write to .*network is away") as caught:
        found = trained_weights(fit, callback, Begin(), max_epochs=2)
    assert len(warned(caught)) == 1
    assert torch.equal(found, expected)
    assert tried == ["kernelviz-files"]
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
    fit, clock: Clock, own_loggers: None, tmp_path: Path
) -> None:
    def log(logger: Far, images: Any, step: int) -> None:
        logger.tried.append(step)
        clock.now += 30
        raise RuntimeError("the server is away")

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


# --- a folder that does not answer -----------------------------------------------------------


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Renames of snapshot files do not return until this event is set."""
    monkeypatch.setattr(recorder, "MOST_WAITING", 3)
    monkeypatch.setattr(recorder, "_FILE_PATIENCE", 1.0)
    answer, replace = threading.Event(), Path.replace

    def wait(path: Path, target: Path) -> Path:
        if "step-" in Path(target).name:
            answer.wait()
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", wait)
    yield answer
    answer.set()
    end_all_threads()


def end_all_threads() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("kernelviz"):
            thread.join()


def test_a_training_ends_if_the_folder_never_answers(fit, stuck, closing_line) -> None:
    expected = trained_weights(fit)
    start = time.monotonic()
    with pytest.warns(UserWarning, match="kernelviz: ") as caught:
        found = trained_weights(fit, KernelVizCallback(**EVERY_STEP))
    assert torch.equal(found, expected)
    left_out, given_up = warned(caught)
    assert "at step 3 could not keep one more snapshot in memory" in left_out
    assert "could not be written within 1 s" in given_up
    assert f"{STEPS + 1} lost" in closing_line()
    times, seconds = waits(closing_line())
    assert times <= 2
    assert seconds < 1.5
    assert time.monotonic() - start < 60


def test_snapshots_in_memory_are_written_when_the_folder_answers(
    fit, stuck, closing_line, caplog: pytest.LogCaptureFixture
) -> None:
    class Answers(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 5:
                stuck.set()
                while not list(Path(trainer.log_dir).rglob("step-00000002*")):
                    time.sleep(0.01)
                time.sleep(0.2)

    with pytest.warns(UserWarning, match="at step 3 could not keep one more snapshot"):
        trainer = fit(KernelVizCallback(**EVERY_STEP), Answers())
    assert steps_on_disk(trainer.log_dir) == [0, 1, 2, 6, 7, 8]
    assert list(logged_images(trainer.log_dir)["kernels/conv"]) == [0, 1, 2, 6, 7, 8]
    assert "3 lost (steps 3, 4, 5)" in closing_line()
    again = [r.getMessage() for r in caplog.records if "could again" in r.getMessage()]
    assert again == ["kernelviz: at step 6 could again keep one more snapshot in memory"]


def test_a_folder_that_answers_after_the_end_has_the_snapshots_and_is_unlocked(
    fit, monkeypatch
) -> None:
    monkeypatch.setattr(recorder, "MOST_WAITING", 3)
    monkeypatch.setattr(recorder, "_FILE_PATIENCE", 0.3)
    answer, open_run_folder = threading.Event(), recorder.open_run_folder

    def open_late(*args: Any, **options: Any) -> Any:
        answer.wait()
        return open_run_folder(*args, **options)

    monkeypatch.setattr(recorder, "open_run_folder", open_late)
    callback = KernelVizCallback(**EVERY_STEP)
    with pytest.warns(UserWarning, match="kernelviz: ") as caught:
        trainer = fit(callback)
    assert "could not be written within 0 s" in warned(caught)[-1]
    assert steps_on_disk(trainer.log_dir) == []
    attempt = RunState.from_dict(callback.state_dict()).attempt
    answer.set()
    end_all_threads()
    assert steps_on_disk(trainer.log_dir) == [0, 1, 2]
    lock = lock_run_folder(trainer.log_dir, last=attempt)
    assert (lock.folder.name, lock.avoided, lock.is_resumed) == ("kernelviz", None, True)
    assert lock.was_killed, "the next attempt logs the pictures that are missing"
    lock.release()


def test_a_logger_that_never_answers_costs_its_pictures_only(
    fit, monkeypatch, own_loggers: None, closing_line, tmp_path: Path
) -> None:
    answer = threading.Event()
    register_logger(Far, lambda *_: answer.wait())
    monkeypatch.setattr(recorder, "MOST_WAITING", 3)
    monkeypatch.setattr(recorder, "_PICTURE_PATIENCE", 1.0)
    monkeypatch.setattr(recorder, "_PICTURE_PATIENCE_AT_END", 1.0)
    expected = trained_weights(fit)
    with pytest.warns(UserWarning, match="kernelviz: ") as caught:
        found = trained_weights(fit, KernelVizCallback(**EVERY_STEP), logger=Far())
    [folder] = tmp_path.rglob("kernelviz")
    avoided = lock_run_folder(folder.parent)
    assert avoided.folder.name == "kernelviz-2", "pictures may still be written to the first"
    avoided.release()
    answer.set()
    end_all_threads()
    lock = lock_run_folder(folder.parent)
    assert lock.avoided is None
    lock.release()
    assert torch.equal(found, expected)
    left_out, given_up = warned(caught)
    assert "could not draw one more snapshot" in left_out
    assert "pictures could not be drawn and logged within 1 s" in given_up
    assert f"{STEPS + 1} snapshots written" in closing_line()
    assert "lost" not in closing_line()


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
    found = re.search(r"training waited for snapshots (\d+) times, (\S+) s in all", closing_line)
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

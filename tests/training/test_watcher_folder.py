"""`KernelWatcher.close`, and the folder of a plain loop that is resumed or begun again."""

import copy
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import logged_images, steps_on_disk, warned
from forked import run_python
from plain_loop import network
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from kernelviz_callback import KernelWatcher, list_snapshots
from kernelviz_callback.training import watcher as watcher_module


def test_a_resumed_loop_writes_to_the_same_folder(tmp_path: Path) -> None:
    model = network()
    with KernelWatcher(model, tmp_path, scale="run") as watcher:
        for step in (0, 1, 2):
            watcher.snapshot(step)
        saved = copy.deepcopy(watcher.state_dict())
    torch.save(saved, tmp_path / "state.pt")
    with KernelWatcher(model, tmp_path, scale="run") as watcher:
        watcher.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        watcher.snapshot(2)
        watcher.snapshot(3)
        with pytest.raises(RuntimeError, match="before the first snapshot"):
            watcher.load_state_dict(saved)
    assert steps_on_disk(tmp_path) == [0, 1, 2, 3]
    assert not (tmp_path / "kernelviz-2").exists()


def test_another_loop_writes_to_a_new_folder(tmp_path: Path) -> None:
    for _ in range(2):
        with KernelWatcher(network(), tmp_path) as watcher:
            watcher.snapshot(0)
    assert steps_on_disk(tmp_path) == [0]
    assert list(list_snapshots(tmp_path / "kernelviz-2")) == [0]


def test_a_snapshot_after_close_is_written_to_the_same_folder(tmp_path: Path) -> None:
    watcher = KernelWatcher(network(), tmp_path)
    for step in (0, 1):
        watcher.snapshot(step)
        watcher.close()
    assert steps_on_disk(tmp_path) == [0, 1]
    assert list(logged_images(tmp_path)["kernels/0"]) == [0, 1]


def test_close_ends_all_threads(tmp_path: Path) -> None:
    before = threading.active_count()
    with KernelWatcher(network(), tmp_path) as watcher:
        watcher.snapshot(0)
    assert threading.active_count() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_close_in_a_forked_child_leaves_everything_to_the_parent(tmp_path: Path) -> None:
    code = """
import os, sys
from torch import nn
from kernelviz_callback import KernelWatcher
watcher = KernelWatcher(nn.Conv2d(3, 4, 3), sys.argv[1])
watcher.snapshot(0)
child = os.fork()
if child == 0:
    watcher.close()
    print("closed", flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
watcher.snapshot(1)
watcher.close()
"""
    done = run_python("-c", code, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["closed"]
    assert "could not" not in done.stderr
    assert done.stderr.count("snapshots written") == 1
    assert steps_on_disk(tmp_path) == [0, 1]
    assert list(logged_images(tmp_path)["kernels/Conv2d"]) == [0, 1]


@pytest.mark.loses_something
def test_an_event_file_that_never_answers_does_not_stop_the_program(
    tmp_path: Path, monkeypatch, recwarn: Any
) -> None:
    answer, close = threading.Event(), EventFileWriter.close

    def close_late(writer: EventFileWriter) -> None:
        answer.wait(30)
        close(writer)

    monkeypatch.setattr(EventFileWriter, "close", close_late)
    monkeypatch.setattr(watcher_module, "_CLOSE_PATIENCE", 0.2)
    start = time.monotonic()
    with KernelWatcher(network(), tmp_path) as watcher:
        watcher.snapshot(0)
    assert time.monotonic() - start < 20
    [said] = warned(recwarn)
    assert "could not close the event file: TimeoutError: it was not written within 0 s" in said
    answer.set()
    for thread in threading.enumerate():
        if thread.name == "kernelviz-events":
            thread.join()
    assert list(logged_images(tmp_path)["kernels/0"]) == [0]


@pytest.mark.loses_something
@pytest.mark.parametrize("loggers", [None, []])
def test_a_folder_that_cannot_be_written_gives_a_warning(
    tmp_path: Path, recwarn: Any, loggers: list[Any] | None
) -> None:
    (tmp_path / "file").write_text("in the way")
    with KernelWatcher(network(), tmp_path / "file", loggers=loggers) as watcher:
        watcher.snapshot(0)
    assert "Training goes on" in warned(recwarn)[0]

"""Several trainings record in one log directory: which of them is the newest."""

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from kernelviz_callback import KernelWatcher, Snapshot, compare, save_snapshot
from kernelviz_callback.checkpoints.find import find_checkpoints
from kernelviz_callback.cli import main
from kernelviz_callback.snapshots.run_folders import list_recorded


def record(log_dir: Path, *steps: int) -> None:
    with KernelWatcher(nn.Sequential(nn.Conv2d(3, 4, 3)), log_dir) as watcher:
        for step in steps:
            watcher.snapshot(step)


def test_every_reader_takes_the_newest_training_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record(tmp_path, 0, 1)
    record(tmp_path, 0, 2)
    first, second = tmp_path / "kernelviz", tmp_path / "kernelviz-2"
    start = [r.getMessage() for r in caplog.records if "snapshots go to" in r.getMessage()]
    assert f"go to {second}, because {first} has those of another training" in start[1]
    assert "because" not in start[0]
    expected = [str(second / f"step-0000000{step}.safetensors") for step in (0, 2)]
    readers = {
        "Python": lambda: compare(tmp_path),
        "evolve": lambda: main(["evolve", str(tmp_path)]),
        "compare": lambda: main(["compare", str(tmp_path)]),
        "show": lambda: main(["show", str(tmp_path), "--list"]),
    }
    for name, read in readers.items():
        caplog.clear()
        read()
        [said] = [r for r in caplog.records if "2 trainings" in r.getMessage()]
        assert f"the newest is used, {second.name}" in said.getMessage(), name
        assert f"in {tmp_path}: {first.name}" in said.getMessage(), name
    assert find_checkpoints(tmp_path) == expected
    assert [column.name for column in compare(tmp_path).columns] == expected
    caplog.clear()
    assert len(find_checkpoints(first)) == 2
    assert not caplog.records, "a folder that is named is used without a word"


def test_a_resumed_training_is_newer_than_those_that_began_after_it(tmp_path: Path) -> None:
    for name, began in (("kernelviz", 30), ("kernelviz-10", 10), ("kernelviz-2", 20)):
        save_snapshot(Snapshot(0, 0, 0.0, {"conv": torch.ones(2, 3, 3, 3)}, {}), tmp_path / name)
        (tmp_path / name / ".run").write_text(f"{name}\n{began}")
    (tmp_path / "kernelviz-3").mkdir()
    names = [folder.name for folder in list_recorded(tmp_path)]
    assert names == ["kernelviz-10", "kernelviz-2", "kernelviz"]
    for folder in list_recorded(tmp_path):
        (folder / ".run").unlink()
    names = [folder.name for folder in list_recorded(tmp_path)]
    assert names == ["kernelviz", "kernelviz-2", "kernelviz-10"]


def test_snapshots_are_found_if_the_first_folder_was_deleted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    only = Snapshot(7, 0, 0.0, {"conv": torch.ones(2, 3, 3, 3)}, {})
    path = save_snapshot(only, tmp_path / "kernelviz-2")
    assert find_checkpoints(tmp_path) == [str(path)]
    assert not caplog.records

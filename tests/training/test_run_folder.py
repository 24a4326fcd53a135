"""What a training finds in its run folder: snapshots, and which pictures may be missing."""

from pathlib import Path

import pytest
import torch

from kernelviz_callback.snapshots.attempt import Attempt
from kernelviz_callback.snapshots.format import save_snapshot
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.training.run_folder import RunFolder, open_run_folder


def snapshot(step: int, filters: int = 2) -> Snapshot:
    return Snapshot(step, 0, 0.0, {"conv": torch.zeros(filters, 3, 2, 2)}, {})


def kill(found: RunFolder) -> None:
    found.lock.release(finished=False)


def begin(log_dir: Path, last: Attempt | None, first: int) -> RunFolder:
    return open_run_folder(log_dir, last=last, first=snapshot(first), most_unlogged=3)


def steps(paths: list[Path]) -> list[int]:
    return [int(path.stem[-8:]) for path in paths]


def record(found: RunFolder, *of_steps: int) -> None:
    for step in of_steps:
        save_snapshot(snapshot(step), found.lock.folder)


def test_a_new_training_finds_nothing(tmp_path: Path) -> None:
    found = begin(tmp_path, None, 0)
    assert (found.kept, found.maybe_unlogged, found.set_aside) == ([], [], [])
    assert (found.has_first, found.has_probe) == (False, False)
    found.lock.release()


def test_a_resumed_training_finds_its_snapshots(tmp_path: Path) -> None:
    found = begin(tmp_path, None, 0)
    record(found, 0, 1, 2, 3, 4, 5)
    found.lock.release()
    again = begin(tmp_path, found.lock.attempt, 4)
    assert steps(again.kept) == [0, 1, 2, 3, 4]
    assert again.set_aside == [again.lock.folder / "cut-off-1" / "step-00000005.safetensors"]
    assert again.maybe_unlogged == []
    again.lock.release()
    other = open_run_folder(
        tmp_path, last=found.lock.attempt, first=snapshot(4, filters=8), most_unlogged=3
    )
    assert not other.has_first, "the layer has more filters now"
    other.lock.release()


def test_pictures_that_a_kill_lost_are_remembered_until_they_are_logged(tmp_path: Path) -> None:
    found = begin(tmp_path, None, 0)
    record(found, *range(6))
    kill(found)
    for new in ([6, 7], [8, 9, 10, 11]):
        found = begin(tmp_path, found.lock.attempt, new[0] - 1)
        assert steps(found.maybe_unlogged) == list(range(3, new[0]))
        record(found, *new)
        kill(found)
    found = begin(tmp_path, found.lock.attempt, 11)
    assert steps(found.maybe_unlogged) == list(range(3, 12))
    found.mark_logged()
    kill(found)
    found = begin(tmp_path, found.lock.attempt, 11)
    assert steps(found.maybe_unlogged) == [9, 10, 11]
    found.lock.release()


def test_a_folder_that_cannot_be_read_is_unlocked(tmp_path: Path, monkeypatch) -> None:
    found = begin(tmp_path, None, 0)
    record(found, 0)
    kill(found)

    def fail(*_: object, **__: object) -> None:
        raise OSError("not now")

    monkeypatch.setattr("kernelviz_callback.training.run_folder.set_aside", fail)
    with pytest.raises(OSError, match="not now"):
        begin(tmp_path, found.lock.attempt, 0)
    monkeypatch.undo()
    again = begin(tmp_path, found.lock.attempt, 0)
    assert (again.lock.is_resumed, again.lock.was_killed) == (True, True)
    again.lock.release()

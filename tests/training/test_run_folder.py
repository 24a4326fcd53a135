"""What a training finds of itself: its snapshots, and those whose pictures may be lost."""

from pathlib import Path

import pytest
import torch

from kernelviz_callback.snapshots.format import save_snapshot
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.training.run_folder import RunFolder, open_run_folder
from kernelviz_callback.training.run_lock import LastClaim


def snapshot(step: int, filters: int = 2) -> Snapshot:
    return Snapshot(step, 0, 0.0, {"conv": torch.zeros(filters, 3, 2, 2)}, {})


def kill(found: RunFolder) -> None:
    found.claim.release(finished=False)


def begin(log_dir: Path, run: str | None, first: int) -> RunFolder:
    return open_run_folder(log_dir, last=LastClaim(run), first=snapshot(first), most_unsure=3)


def steps(paths: list[Path]) -> list[int]:
    return [int(path.stem[-8:]) for path in paths]


def record(found: RunFolder, *of_steps: int) -> None:
    for step in of_steps:
        save_snapshot(snapshot(step), found.claim.folder)


def test_a_new_training_finds_nothing(tmp_path: Path) -> None:
    found = begin(tmp_path, None, 0)
    assert (found.kept, found.unsure, found.set_aside, found.has_first) == ([], [], [], False)
    found.claim.release()


def test_a_resumed_training_finds_its_snapshots(tmp_path: Path) -> None:
    found = begin(tmp_path, None, 0)
    record(found, 0, 1, 2, 3, 4, 5)
    found.claim.release()
    again = begin(tmp_path, found.claim.run, 4)
    assert steps(again.kept) == [0, 1, 2, 3, 4]
    assert again.set_aside == [5]
    assert again.unsure == []
    again.claim.release()
    other = open_run_folder(
        tmp_path, last=LastClaim(found.claim.run), first=snapshot(4, filters=8), most_unsure=3
    )
    assert not other.has_first, "the layer has other filters now"
    other.claim.release()


def test_what_a_kill_made_unsure_stays_so_until_it_is_logged(tmp_path: Path) -> None:
    found = begin(tmp_path, None, 0)
    record(found, *range(6))
    kill(found)
    for new in ([6, 7], [8, 9, 10, 11]):
        found = begin(tmp_path, found.claim.run, new[0] - 1)
        assert steps(found.unsure) == list(range(3, new[0]))
        record(found, *new)
        kill(found)
    found = begin(tmp_path, found.claim.run, 11)
    assert steps(found.unsure) == list(range(3, 12))
    found.are_sure()
    kill(found)
    found = begin(tmp_path, found.claim.run, 11)
    assert steps(found.unsure) == [9, 10, 11]
    found.claim.release()


def test_a_folder_that_cannot_be_read_is_given_back(tmp_path: Path, monkeypatch) -> None:
    found = begin(tmp_path, None, 0)
    record(found, 0)
    kill(found)

    def fail(*_: object, **__: object) -> None:
        raise OSError("not now")

    monkeypatch.setattr("kernelviz_callback.training.run_folder.set_aside", fail)
    with pytest.raises(OSError, match="not now"):
        begin(tmp_path, found.claim.run, 0)
    monkeypatch.undo()
    again = begin(tmp_path, found.claim.run, 0)
    assert (again.claim.continues, again.claim.was_killed) == (True, True)
    again.claim.release()

"""Two trainings never write to one folder, and one that goes on gets its own again."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kernelviz_callback import Geometry, Snapshot, save_snapshot
from kernelviz_callback.training.run_lock import claim_folder

HOLD = """
import os, sys, time
from kernelviz_callback.training.run_lock import claim_folder
claim = claim_folder(sys.argv[1], run=sys.argv[2] or None)
print(claim.folder.name, claim.run, flush=True)
if os.fork() == 0:  # as a loader's worker does, that outlives its killed parent for a while
    time.sleep(30)
    os._exit(0)
time.sleep(60)
"""


def leave_a_snapshot(folder) -> None:
    geometry = Geometry("Conv2d", (1, 1), (0, 0), (1, 1), 1)
    save_snapshot(Snapshot(0, 0, 0.0, {"c": torch.ones(1, 1, 1, 1)}, {"c": geometry}), folder)


@pytest.fixture
def other(tmp_path: Path):
    """A living process that has claimed a folder below ``tmp_path``."""
    started = []

    def start(run: str = "") -> tuple[subprocess.Popen[str], str, str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path), run], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        name, identity = process.stdout.readline().split()
        return process, name, identity

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("where", ["local", "memory://claims-{}"])
def test_new_trainings_get_folders_of_their_own(tmp_path: Path, where: str) -> None:
    log_dir = tmp_path if where == "local" else where.format(tmp_path.name)
    names = []
    for _ in range(3):
        claim = claim_folder(log_dir)
        names.append(claim.folder.name)
        leave_a_snapshot(claim.folder)
        claim.release()
    assert names == ["kernelviz", "kernelviz-2", "kernelviz-3"]


def test_two_trainings_in_one_process_are_kept_apart(tmp_path: Path) -> None:
    first, second = claim_folder(tmp_path), claim_folder(tmp_path)
    assert (first.folder.name, second.folder.name) == ("kernelviz", "kernelviz-2")
    assert second.avoided == first.folder
    first.release()
    second.release()
    third = claim_folder(tmp_path)
    assert third.folder.name == "kernelviz", "nothing was written there"
    third.release()


def test_reading_the_folder_keeps_it_claimed(tmp_path: Path) -> None:
    """Closing a file that it has locked must not cost a process the lock."""
    claim = claim_folder(tmp_path / "logs")
    shutil.copytree(claim.folder, tmp_path / "uploaded")
    code = (
        "import sys; from kernelviz_callback.training.run_lock import claim_folder\n"
        "print(claim_folder(sys.argv[1]).folder.name)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "logs")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "kernelviz-2"
    assert not claim.is_lost()
    claim.release()


def test_a_claim_knows_whether_its_folder_is_still_its_own(tmp_path: Path) -> None:
    claim = claim_folder(tmp_path)
    assert not claim.is_lost()
    shutil.rmtree(claim.folder)
    assert claim.is_lost()
    usurper = claim_folder(tmp_path)
    assert usurper.folder == claim.folder
    assert claim.is_lost()
    claim.release()
    usurper.release()


@pytest.mark.parametrize("where", ["local", "memory://again-{}"])
def test_a_training_that_goes_on_gets_its_folder_again(tmp_path: Path, where: str) -> None:
    log_dir = tmp_path if where == "local" else where.format(tmp_path.name)
    runs = []
    for _ in range(3):
        claim = claim_folder(log_dir)
        leave_a_snapshot(claim.folder)
        runs.append((claim.run, claim.folder))
        claim.release()
    for run, folder in runs:
        claim = claim_folder(log_dir, run=run)
        assert (claim.folder, claim.run, claim.continues) == (folder, run, True)
        claim.release()


def test_an_attempt_is_later_than_the_one_before_whatever_the_clock_says(tmp_path: Path) -> None:
    """A node whose clock is years ahead, then one whose clock is right."""
    claim = claim_folder(tmp_path)
    leave_a_snapshot(claim.folder)
    claim.release()
    ahead = 10 * claim.attempt
    (claim.folder / ".run").write_text(f"{claim.run}\n{ahead}")
    attempts = []
    for _ in range(3):
        again = claim_folder(tmp_path, run=claim.run)
        assert again.continues
        assert not again.is_lost()
        attempts.append(again.attempt)
        again.release()
    assert attempts == [ahead + 1, ahead + 2, ahead + 3]
    other = claim_folder(tmp_path)
    assert claim.attempt <= other.attempt < ahead
    other.release()


def test_an_attempt_is_later_than_the_one_that_the_training_remembers(tmp_path: Path) -> None:
    """Its folder was deleted, and the clock is behind."""
    claim = claim_folder(tmp_path, run="me", after=2**51)
    assert (claim.run, claim.attempt, claim.continues) == ("me", 2**51 + 1, False)
    claim.release()


def test_a_stranger_who_writes_does_not_take_ones_identity(tmp_path: Path, other) -> None:
    other()
    claim = claim_folder(tmp_path, run="me")
    assert (claim.folder.name, claim.run) == ("kernelviz-2", "me")
    claim.release()


def test_a_training_that_goes_on_elsewhere_starts_a_folder(tmp_path: Path) -> None:
    claim = claim_folder(tmp_path / "a")
    claim.release()
    foreign = claim_folder(tmp_path / "b")
    leave_a_snapshot(foreign.folder)
    foreign.release()
    moved = claim_folder(tmp_path / "b", run=claim.run)
    assert moved.folder.name == "kernelviz-2"
    assert not moved.continues
    moved.release()


def test_a_folder_that_another_process_writes_to_is_avoided(tmp_path: Path, other) -> None:
    process, name, run = other()
    assert name == "kernelviz"
    mine = claim_folder(tmp_path)
    resumed = claim_folder(tmp_path, run=run)
    assert (mine.folder.name, resumed.folder.name) == ("kernelviz-2", "kernelviz-3")
    assert mine.avoided == resumed.avoided == tmp_path / "kernelviz"
    mine.release()
    resumed.release()

    process.kill()
    process.wait()
    resumed = claim_folder(tmp_path, run=run)
    assert (resumed.folder.name, resumed.continues) == ("kernelviz", True)
    resumed.release()


def test_two_processes_that_resume_the_same_run_are_kept_apart(tmp_path: Path, other) -> None:
    first = claim_folder(tmp_path)
    leave_a_snapshot(first.folder)
    first.release()
    _, name, _ = other(first.run)
    assert name == "kernelviz"
    second = claim_folder(tmp_path, run=first.run)
    assert second.folder.name == "kernelviz-2"
    assert not second.continues
    assert second.run != first.run
    second.release()


def test_what_is_no_folder_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "kernelviz").write_text("a file where the folder should be")
    claim = claim_folder(tmp_path)
    assert claim.folder.name == "kernelviz-2"
    claim.release()

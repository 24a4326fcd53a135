"""Two trainings never write to one run folder, and a resumed training gets its folder again."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kernelviz_callback import Geometry, Snapshot, save_snapshot
from kernelviz_callback.snapshots.attempt import Attempt
from kernelviz_callback.training.run_lock import lock_run_folder

HOLD = """
import os, sys, time
from kernelviz_callback.snapshots.attempt import Attempt
from kernelviz_callback.training.run_lock import lock_run_folder
lock = lock_run_folder(sys.argv[1], last=Attempt(sys.argv[2], 0) if sys.argv[2] else None)
alive, say_alive = os.pipe()
if os.fork() == 0:  # like a worker of a DataLoader, which runs on after its parent is killed
    os.write(say_alive, b"!")
    time.sleep(30)
    os._exit(0)
os.read(alive, 1)  # a fork that has not run yet still holds the lock
print(lock.folder.name, lock.attempt.training, flush=True)
time.sleep(60)
"""


def write_a_snapshot(folder) -> None:
    geometry = Geometry("Conv2d", (1, 1), (0, 0), (1, 1), 1)
    save_snapshot(Snapshot(0, 0, 0.0, {"c": torch.ones(1, 1, 1, 1)}, {"c": geometry}), folder)


@pytest.fixture
def other_process(tmp_path: Path):
    """Starts processes that lock a run folder below ``tmp_path`` and keep running."""
    started = []

    def start(training: str = "") -> tuple[subprocess.Popen[str], str, str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path), training], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        name, identity = process.stdout.readline().split()
        return process, name, identity

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("where", ["local", "memory://locks-{}"])
def test_new_trainings_get_folders_of_their_own(tmp_path: Path, where: str) -> None:
    log_dir = tmp_path if where == "local" else where.format(tmp_path.name)
    names = []
    for _ in range(3):
        lock = lock_run_folder(log_dir)
        names.append(lock.folder.name)
        write_a_snapshot(lock.folder)
        lock.release()
    assert names == ["kernelviz", "kernelviz-2", "kernelviz-3"]


def test_two_trainings_in_one_process_are_kept_apart(tmp_path: Path) -> None:
    first, second = lock_run_folder(tmp_path), lock_run_folder(tmp_path)
    assert (first.folder.name, second.folder.name) == ("kernelviz", "kernelviz-2")
    assert second.avoided == first.folder
    first.release()
    second.release()
    third = lock_run_folder(tmp_path)
    assert third.folder.name == "kernelviz", "nothing was written there"
    third.release()


def test_a_copy_of_the_folder_does_not_unlock_it(tmp_path: Path) -> None:
    """A process may read and close its own lock file without losing the lock."""
    lock = lock_run_folder(tmp_path / "logs")
    shutil.copytree(lock.folder, tmp_path / "uploaded")
    code = (
        "import sys; from kernelviz_callback.training.run_lock import lock_run_folder\n"
        "print(lock_run_folder(sys.argv[1]).folder.name)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "logs")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "kernelviz-2"
    assert not lock.is_lost()
    lock.release()


def test_a_lock_is_lost_when_its_folder_is_deleted(tmp_path: Path) -> None:
    lock = lock_run_folder(tmp_path)
    assert not lock.is_lost()
    shutil.rmtree(lock.folder)
    assert lock.is_lost()
    second = lock_run_folder(tmp_path)
    assert second.folder == lock.folder
    assert lock.is_lost()
    lock.release()
    second.release()


@pytest.mark.parametrize("where", ["local", "memory://again-{}"])
def test_a_resumed_training_gets_its_folder_again(tmp_path: Path, where: str) -> None:
    log_dir = tmp_path if where == "local" else where.format(tmp_path.name)
    locked = []
    for _ in range(3):
        lock = lock_run_folder(log_dir)
        write_a_snapshot(lock.folder)
        locked.append((lock.attempt.training, lock.folder))
        lock.release()
    for training, folder in locked:
        lock = lock_run_folder(log_dir, last=Attempt(training, 0))
        assert (lock.folder, lock.attempt.training, lock.is_resumed) == (folder, training, True)
        lock.release()


def test_attempt_numbers_increase_though_a_clock_was_ahead(tmp_path: Path) -> None:
    """The first node's clock is years ahead; the clock of the second is right."""
    lock = lock_run_folder(tmp_path)
    write_a_snapshot(lock.folder)
    lock.release()
    ahead = 10 * lock.attempt.number
    (lock.folder / ".run").write_text(f"{lock.attempt.training}\n{ahead}")
    attempts = []
    for _ in range(3):
        again = lock_run_folder(tmp_path, last=Attempt(lock.attempt.training, 0))
        assert again.is_resumed
        assert not again.is_lost()
        attempts.append(again.attempt.number)
        again.release()
    assert attempts == [ahead + 1, ahead + 2, ahead + 3]
    other = lock_run_folder(tmp_path)
    assert lock.attempt.number <= other.attempt.number < ahead
    other.release()


def test_an_attempt_number_is_larger_than_that_in_the_checkpoint(tmp_path: Path) -> None:
    """The folder was deleted, and the clock is behind."""
    lock = lock_run_folder(tmp_path, last=Attempt("me", 2**51))
    assert (lock.attempt, lock.is_resumed) == (Attempt("me", 2**51 + 1), False)
    lock.release()


def test_a_training_keeps_its_identity_beside_another(tmp_path: Path, other_process) -> None:
    other_process()
    lock = lock_run_folder(tmp_path, last=Attempt("me", 0))
    assert (lock.folder.name, lock.attempt.training) == ("kernelviz-2", "me")
    lock.release()


def test_a_training_resumed_in_another_log_directory_gets_a_new_folder(tmp_path: Path) -> None:
    lock = lock_run_folder(tmp_path / "a")
    lock.release()
    foreign = lock_run_folder(tmp_path / "b")
    write_a_snapshot(foreign.folder)
    foreign.release()
    moved = lock_run_folder(tmp_path / "b", last=lock.attempt)
    assert moved.folder.name == "kernelviz-2"
    assert not moved.is_resumed
    moved.release()


def test_a_folder_that_another_process_has_locked_is_avoided(tmp_path: Path, other_process) -> None:
    process, name, training = other_process()
    assert name == "kernelviz"
    mine = lock_run_folder(tmp_path)
    resumed = lock_run_folder(tmp_path, last=Attempt(training, 0))
    assert (mine.folder.name, resumed.folder.name) == ("kernelviz-2", "kernelviz-3")
    assert mine.avoided == resumed.avoided == tmp_path / "kernelviz"
    mine.release()
    resumed.release()

    process.kill()
    process.wait()
    resumed = lock_run_folder(tmp_path, last=Attempt(training, 0))
    assert (resumed.folder.name, resumed.is_resumed) == ("kernelviz", True)
    resumed.release()


def test_two_processes_that_resume_the_same_training_are_kept_apart(
    tmp_path: Path, other_process
) -> None:
    first = lock_run_folder(tmp_path)
    write_a_snapshot(first.folder)
    first.release()
    _, name, _ = other_process(first.attempt.training)
    assert name == "kernelviz"
    second = lock_run_folder(tmp_path, last=first.attempt)
    assert second.folder.name == "kernelviz-2"
    assert not second.is_resumed
    assert second.attempt.training != first.attempt.training
    second.release()


def test_a_file_in_place_of_the_folder_is_avoided(tmp_path: Path) -> None:
    (tmp_path / "kernelviz").write_text("a file where the folder should be")
    lock = lock_run_folder(tmp_path)
    assert lock.folder.name == "kernelviz-2"
    lock.release()

"""Two trainings never write to one run folder, and a resumed training gets its folder again."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from forked import run_python

from kernelviz_callback import Geometry, Snapshot, save_snapshot
from kernelviz_callback.snapshots.attempt import Attempt
from kernelviz_callback.training import run_lock
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


def make_damaged(path: Path, damage: str) -> None:
    if damage == "directory":
        path.mkdir()
    elif damage == "pipe":
        os.mkfifo(path)
    elif damage == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes({"bytes": b"\xff\xfe\n1", "digits": b"me\n" + 5000 * b"1"}[damage])


@pytest.mark.parametrize("damage", ["bytes", "digits", "directory", "pipe", "device"])
@pytest.mark.parametrize("is_resumed", [False, True])
def test_a_folder_with_a_damaged_identity_is_left_to_its_owner(
    tmp_path: Path, damage: str, is_resumed: bool
) -> None:
    before = lock_run_folder(tmp_path)
    write_a_snapshot(before.folder)
    before.release()
    identity = before.folder / ".run"
    identity.unlink()
    make_damaged(identity, damage)
    lock = lock_run_folder(tmp_path, last=before.attempt if is_resumed else None)
    assert (lock.folder.name, lock.is_resumed) == ("kernelviz-2", False)
    assert (lock.attempt.training == before.attempt.training) == is_resumed
    [said] = lock.damaged
    assert said.startswith(f"{before.folder}: its file .run is damaged: ")
    assert not lock.is_lost()
    lock.release()
    again = lock_run_folder(tmp_path, last=lock.attempt)
    assert (again.folder.name, again.is_resumed) == ("kernelviz-2", True)
    again.release()


def test_a_lock_is_kept_if_its_identity_is_damaged_meanwhile(tmp_path: Path) -> None:
    lock = lock_run_folder(tmp_path)
    (lock.folder / ".run").write_bytes(b"\xff")
    assert not lock.is_lost()
    lock.release()


@pytest.mark.parametrize("link", ["symlink", "hard link", "dangling symlink", "directory", "pipe"])
def test_a_lock_file_that_is_something_else_is_not_written(tmp_path: Path, link: str) -> None:
    precious, folder = tmp_path / "precious", tmp_path / "logs" / "kernelviz"
    precious.write_text("a file of the user")
    folder.mkdir(parents=True)
    if link == "symlink":
        (folder / ".lock").symlink_to(precious)
    elif link == "hard link":
        (folder / ".lock").hardlink_to(precious)
    elif link == "dangling symlink":
        (folder / ".lock").symlink_to(tmp_path / "absent")
    else:
        make_damaged(folder / ".lock", link)
    lock = lock_run_folder(tmp_path / "logs")
    assert lock.folder.name == "kernelviz-2"
    assert len(lock.damaged) == 1
    assert f"{folder}: its .lock " in lock.damaged[0]
    lock.release()
    assert precious.read_text() == "a file of the user"
    assert not (tmp_path / "absent").exists()


def test_a_second_release_unlocks_no_other_folder(tmp_path: Path) -> None:
    """The system gives the number of a closed file to the next file that is opened."""
    first = lock_run_folder(tmp_path / "a")
    first.release()
    second = lock_run_folder(tmp_path / "b")
    first.release()
    assert (second.folder / ".lock").read_bytes() == b"held"
    other = lock_run_folder(tmp_path / "b")
    assert other.avoided == second.folder
    other.release()
    second.release()


def test_a_damaged_folder_of_the_training_is_named_once(tmp_path: Path) -> None:
    before = lock_run_folder(tmp_path)
    before.release()
    (before.folder / ".lock").write_bytes(b"of another program")
    lock = lock_run_folder(tmp_path, last=before.attempt)
    assert lock.folder.name == "kernelviz-2"
    assert lock.damaged == (f"{before.folder}: its .lock was written by another program",)
    lock.release()


@pytest.mark.parametrize("mark", [b"held", b"hheld"])
def test_a_folder_is_found_again_after_attempts_of_any_version_were_killed(
    tmp_path: Path, mark: bytes
) -> None:
    """Version 1.0.0 left ``hheld`` after a second killed attempt."""
    before = lock_run_folder(tmp_path)
    write_a_snapshot(before.folder)
    before.release()
    (before.folder / ".lock").write_bytes(mark)
    lock = lock_run_folder(tmp_path, last=before.attempt)
    assert (lock.folder, lock.is_resumed, lock.was_killed) == (before.folder, True, True)
    assert lock.damaged == ()
    assert (lock.folder / ".lock").read_bytes() == b"held"
    lock.release()
    assert (lock.folder / ".lock").read_bytes() == b""


@pytest.mark.parametrize("content", [b"h", b"heldheld", b"hheld of another program"])
def test_a_lock_file_with_other_content_is_left_alone(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "kernelviz"
    folder.mkdir()
    (folder / ".lock").write_bytes(content)
    lock = lock_run_folder(tmp_path)
    assert lock.folder.name == "kernelviz-2"
    assert lock.damaged == (f"{folder}: its .lock was written by another program",)
    assert (folder / ".lock").read_bytes() == content
    lock.release()


@pytest.mark.parametrize("what", ["file", "dangling symlink"])
def test_what_is_not_a_folder_is_avoided_and_named(tmp_path: Path, what: str) -> None:
    place = tmp_path / "kernelviz"
    if what == "file":
        place.write_text("a file where the folder should be")
    else:
        place.symlink_to(tmp_path / "absent")
    lock = lock_run_folder(tmp_path)
    assert lock.folder.name == "kernelviz-2"
    assert lock.damaged == (f"{place} is not a folder",)
    lock.release()


def test_the_files_of_the_lock_have_the_permissions_of_the_umask(tmp_path: Path) -> None:
    code = (
        "import os, sys; from kernelviz_callback.training.run_lock import lock_run_folder\n"
        "os.umask(0o027); lock_run_folder(sys.argv[1]).release()"
    )
    done = run_python("-c", code, str(tmp_path))
    assert done.returncode == 0, done.stderr
    for name in (".run", ".lock"):
        assert (tmp_path / "kernelviz" / name).stat().st_mode & 0o777 == 0o640


def test_a_folder_that_cannot_be_listed_is_unlocked(tmp_path: Path, monkeypatch) -> None:
    def fail(folder: Path) -> None:
        raise OSError("the network drive is away")

    with monkeypatch.context() as away:
        away.setattr(run_lock, "list_snapshots", fail)
        with pytest.raises(OSError, match="network drive"):
            lock_run_folder(tmp_path)
    lock = lock_run_folder(tmp_path)
    assert (lock.folder.name, lock.avoided) == ("kernelviz", None)
    lock.release()

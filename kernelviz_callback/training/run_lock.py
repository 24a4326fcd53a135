"""Lock the run folder against other trainings.

Two files in the run folder are used for this. ``.run`` has the identity of the training and the
number of its last attempt. ``.lock`` is locked while the training runs; the operating system
unlocks it when the process ends, even after ``kill -9``. Remote storage has no locks: there, only
``.run`` separates the trainings.
"""

import contextlib
import errno
import os
import stat
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kernelviz_callback.snapshots.attempt import Attempt
from kernelviz_callback.snapshots.names import list_snapshots
from kernelviz_callback.storage import (
    Folder,
    Location,
    as_absolute,
    read_whole,
    remove_leftovers,
    write_whole,
)

_FOLDER_NAME = "kernelviz"
_IDENTITY_FILE = ".run"
_LOCK_FILE = ".lock"
_MOST_FOLDERS = 1000
_MOST_BYTES = 200  # of each of the two files
_MARK = b"held"  # content of the lock file while the folder is locked
_MARK_OF_1_0_0 = b"hheld"  # after a killed attempt, version 1.0.0 wrote the mark at the second byte
_BUSY = -1  # what `_lock` returns if the folder is locked already

_locked: set[int] = set()  # file descriptors of the lock files that this process has locked


@dataclass(frozen=True)
class RunLock:
    """The lock of a run folder. Until it is released, other trainings write to other folders.

    Attributes:
        folder: ``<log_dir>/kernelviz``, or ``kernelviz-2``, ... if the folders before it are taken.
        attempt: Identity of the recording that begins here.
        is_resumed: Whether an earlier attempt of this training used the folder.
        avoided: The first folder that was not used because another training had locked it. None if
            there was no such folder.
        damaged: A sentence for each folder that was not used because of a file in it.
        was_killed: Whether the last attempt in the folder was killed, or released its lock with
            ``finished=False``.
    """

    folder: Folder
    attempt: Attempt
    is_resumed: bool
    avoided: Folder | None
    damaged: tuple[str, ...]
    was_killed: bool
    _descriptor: int | None

    def is_lost(self) -> bool:
        """Check whether the folder was deleted, even if another training has made it again."""
        try:
            with contextlib.suppress(_Damaged):  # then the lock file alone tells
                if _read_identity(self.folder).training != self.attempt.training:
                    return True
            if self._descriptor is None or not isinstance(self.folder, Path):
                return False
            locked, found = os.fstat(self._descriptor), (self.folder / _LOCK_FILE).stat()
            return not os.path.samestat(locked, found)
        except FileNotFoundError:
            return True
        except OSError:
            return False

    def release(self, *, finished: bool = True) -> None:
        """Let other trainings lock the folder. A second call changes nothing.

        Args:
            finished: Whether everything was written. If not, the next attempt has ``was_killed``.
        """
        if self._descriptor in _locked:
            if finished:
                with contextlib.suppress(OSError):
                    os.truncate(self._descriptor, 0)
            _unlock(self._descriptor)


def lock_run_folder(log_dir: Location, *, last: Attempt | None = None) -> RunLock:
    """Choose the run folder of a training and lock it.

    A resumed training gets the folder that it used before. If that folder is locked, the training
    gets another folder and a new identity. A new training gets a folder without snapshots. A folder
    whose ``.run`` or ``.lock`` is damaged, or is not a file, is taken for that of a stranger.

    Args:
        log_dir: Path or URL of the parent folder. It is made if it does not exist.
        last: The last attempt of a resumed training, None for a new training.

    Raises:
        OSError: If nothing can be written there, or if too many run folders are taken or locked.
    """
    log_dir = as_absolute(log_dir)
    log_dir.mkdir(parents=True, exist_ok=True)
    training = None if last is None else last.training
    avoided: Folder | None = None
    damaged: list[str] = []
    is_own_locked = False
    for folder in _candidates(log_dir, training):
        try:
            found = _find_identity(folder)
            is_own = found is not None and found.training == training
            descriptor = _lock(folder) if isinstance(folder, Path) else None
        except _Damaged as error:
            damaged.append(f"{folder}{error}")
            continue
        if descriptor == _BUSY:
            avoided = avoided or folder
            is_own_locked = is_own_locked or is_own
        elif not is_own and list_snapshots(folder):
            _unlock(descriptor)
        else:
            earlier = [each.number for each in (last, found if is_own else None) if each]
            attempt = Attempt(
                training if training and not is_own_locked else uuid.uuid4().hex,
                max([time.time_ns() // 1_000_000, *(number + 1 for number in earlier)]),
            )
            try:
                was_killed = _set_mark(descriptor)
                content = f"{attempt.training}\n{attempt.number}"
                write_whole(folder / _IDENTITY_FILE, content.encode())
                remove_leftovers(folder)
            except BaseException:
                _unlock(descriptor)
                raise
            return RunLock(folder, attempt, is_own, avoided, tuple(damaged), was_killed, descriptor)
    raise OSError(errno.EMFILE, f"{_MOST_FOLDERS} run folders are taken or locked", str(log_dir))


def _candidates(log_dir: Folder, training: str | None) -> Iterator[Folder]:
    """Yield the folders to try: those that the training used before, then every one by number."""
    if training is not None:
        for folder in log_dir.glob(f"{_FOLDER_NAME}*"):
            with contextlib.suppress(_Damaged, OSError):
                if _read_identity(folder).training == training:
                    yield folder
    for number in range(1, _MOST_FOLDERS + 1):
        yield log_dir / (_FOLDER_NAME if number == 1 else f"{_FOLDER_NAME}-{number}")


class _Damaged(Exception):
    """A run folder has something else in the place of our files. The message says what."""


def _find_identity(folder: Folder) -> Attempt | None:
    """Create a folder if it does not exist, and return the last attempt that used it.

    Returns:
        None if no attempt used it.

    Raises:
        _Damaged: If the folder is not a folder, or its attempt cannot be read.
        OSError: If it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise _Damaged(" is not a folder") from None
    try:
        return _read_identity(folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if not isinstance(folder, Path):
            raise  # perhaps the connection is down
        raise _Damaged(f": its file {_IDENTITY_FILE} cannot be read: {error.strerror}") from error


def _read_identity(folder: Folder) -> Attempt:
    path = folder / _IDENTITY_FILE
    try:
        training, _, number = read_whole(path, _MOST_BYTES).decode().partition("\n")
        return Attempt(training, int(number) if number.isdecimal() else 0)
    except ValueError as error:
        raise _Damaged(f": its file {_IDENTITY_FILE} is damaged: {error}") from error


def _lock(folder: Path) -> int | None:
    """Lock a folder.

    Returns:
        The file descriptor of the lock file. None if the file system has no locks. ``_BUSY`` if
        the folder is locked already.

    Raises:
        _Damaged: If the lock file is not one that this module has written.
        OSError: If it cannot be opened.
    """
    path = folder / _LOCK_FILE
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise _Damaged(f": its {_LOCK_FILE} is not a file") from error
        if isinstance(error, PermissionError):
            raise _Damaged(f": its {_LOCK_FILE} cannot be written: {error.strerror}") from error
        raise
    try:
        _check_lock_file(descriptor)
        _lock_file(descriptor)
    except OSError as error:
        os.close(descriptor)
        return _BUSY if error.errno in (errno.EACCES, errno.EAGAIN) else None
    except _Damaged:
        os.close(descriptor)
        raise
    _locked.add(descriptor)
    return descriptor


def _check_lock_file(descriptor: int) -> None:
    """Check that a file is empty or has our mark, so that nothing of others is overwritten."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise _Damaged(f": its {_LOCK_FILE} is not a file")
    content = os.read(descriptor, _MOST_BYTES)
    if content not in (b"", _MARK, _MARK_OF_1_0_0):
        raise _Damaged(f": its {_LOCK_FILE} was written by another program")


def _set_mark(descriptor: int | None) -> bool:
    """Write the mark into a lock file. `RunLock.release` removes it.

    Returns:
        Whether the file had the mark already, see `RunLock.was_killed`.
    """
    if descriptor is None:
        return False
    had_mark = os.fstat(descriptor).st_size > 0
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, _MARK)
    os.truncate(descriptor, len(_MARK))
    return had_mark


def _unlock(descriptor: int | None) -> None:
    if descriptor is not None:
        _locked.discard(descriptor)
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _lock_file(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _unlock_all() -> None:
    for descriptor in list(_locked):
        _unlock(descriptor)


# A forked child, such as a worker of a DataLoader, must not keep the locks after its parent ended.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_all)

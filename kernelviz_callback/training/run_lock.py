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
from io import FileIO
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

_locked: set[FileIO] = set()  # the lock files that this process has locked


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
    _file: FileIO | None

    def is_lost(self) -> bool:
        """Check whether the folder was deleted, even if another training has made it again."""
        try:
            with contextlib.suppress(_Damaged):  # then only the lock files are compared
                if _read_identity(self.folder).training != self.attempt.training:
                    return True
            if self._file is None or self._file.closed or not isinstance(self.folder, Path):
                return False
            locked, found = os.fstat(self._file.fileno()), (self.folder / _LOCK_FILE).stat()
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
        if self._file in _locked:
            if finished:
                with contextlib.suppress(OSError):
                    self._file.truncate(0)
            _unlock(self._file)


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
            file = _lock(folder) if isinstance(folder, Path) else None
        except _Damaged as error:
            damaged.append(f"{folder}{error}")
            continue
        except _Busy:
            avoided = avoided or folder
            is_own_locked = is_own_locked or is_own
            continue
        try:
            if not is_own and list_snapshots(folder):
                _unlock(file)
                continue
            earlier = [each.number for each in (last, found if is_own else None) if each]
            attempt = Attempt(
                training if training and not is_own_locked else uuid.uuid4().hex,
                max([time.time_ns() // 1_000_000, *(number + 1 for number in earlier)]),
            )
            was_killed = _set_mark(file)
            content = f"{attempt.training}\n{attempt.number}"
            write_whole(folder / _IDENTITY_FILE, content.encode())
            remove_leftovers(folder)
        except BaseException:
            _unlock(file)
            raise
        return RunLock(folder, attempt, is_own, avoided, tuple(damaged), was_killed, file)
    raise OSError(errno.EMFILE, f"{_MOST_FOLDERS} run folders are taken or locked", str(log_dir))


def _candidates(log_dir: Folder, training: str | None) -> Iterator[Folder]:
    """Yield the folders to try: those that the training used before, then the others by number."""
    own: set[str] = set()
    if training is not None:
        for folder in log_dir.glob(f"{_FOLDER_NAME}*"):
            with contextlib.suppress(_Damaged, OSError):
                if _read_identity(folder).training == training:
                    own.add(folder.name)
                    yield folder
    for number in range(1, _MOST_FOLDERS + 1):
        name = _FOLDER_NAME if number == 1 else f"{_FOLDER_NAME}-{number}"
        if name not in own:
            yield log_dir / name


class _Busy(Exception):
    """A run folder is locked already."""


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


def _lock(folder: Path) -> FileIO | None:
    """Lock a folder.

    Returns:
        The lock file. None if the file system has no locks.

    Raises:
        _Busy: If the folder is locked already.
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
    file = FileIO(descriptor, "r+")
    try:
        _check_lock_file(file)
        _lock_file(descriptor)
    except OSError as error:
        file.close()
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise _Busy from error
        return None
    except _Damaged:
        file.close()
        raise
    _locked.add(file)
    return file


def _check_lock_file(file: FileIO) -> None:
    """Check that a file is empty or has our mark, so that nothing of others is overwritten."""
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise _Damaged(f": its {_LOCK_FILE} is not a file")
    content = file.read(_MOST_BYTES)
    if content not in (b"", _MARK, _MARK_OF_1_0_0):
        raise _Damaged(f": its {_LOCK_FILE} was written by another program")


def _set_mark(file: FileIO | None) -> bool:
    """Write the mark into a lock file. `RunLock.release` removes it.

    Returns:
        Whether the file had the mark already, see `RunLock.was_killed`.
    """
    if file is None:
        return False
    had_mark = os.fstat(file.fileno()).st_size > 0
    file.seek(0)
    file.write(_MARK)
    file.truncate()
    return had_mark


def _unlock(file: FileIO | None) -> None:
    if file is not None:
        _locked.discard(file)
        with contextlib.suppress(OSError):
            file.close()


def _lock_file(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _unlock_all() -> None:
    for file in list(_locked):
        _unlock(file)


# A forked child, such as a worker of a DataLoader, must not keep the locks after its parent ended.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_all)

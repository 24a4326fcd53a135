"""Whose folder it is: two trainings never write to the same one, not even at the same time.

A run folder holds the identity of its training with the number of the last attempt, and a lock file
that the training holds while it lives; the operating system takes the lock back however the process
ends. Remote stores know no locks: there only the identity tells trainings apart.
"""

import contextlib
import errno
import os
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kernelviz_callback.snapshots.names import list_snapshots
from kernelviz_callback.storage import (
    Folder,
    Location,
    as_folder,
    remove_leftovers,
    write_whole,
)

_NAME = "kernelviz"
_IDENTITY = ".run"
_LOCK = ".lock"
_MOST_FOLDERS = 1000
_BUSY = -1

_held: set[int] = set()  # descriptors of locked files


class LastClaim(NamedTuple):
    """What a training that goes on knows of its last attempt; see `Claim`."""

    run: str | None = None
    attempt: int = 0


@dataclass(frozen=True)
class Claim:
    """The right to write snapshots into a folder until it is released.

    Attributes:
        folder: ``<log_dir>/kernelviz``, or ``kernelviz-2``, ... where others are taken.
        run: Identity of the training.
        attempt: When this was claimed, in milliseconds since 1970. Of a training that goes on it is
            later than any before, whatever the clocks of the machines say.
        continues: Whether the folder was this training's before.
        avoided: The folder that it would have got if another training did not write there now.
        was_killed: Whether the last training that had the folder never gave it back.
    """

    folder: Folder
    run: str
    attempt: int
    continues: bool
    avoided: Folder | None
    was_killed: bool
    _lock: int | None

    def is_lost(self) -> bool:
        """Tell whether somebody has deleted the folder, and perhaps claimed it since."""
        try:
            if _read_identity(self.folder)[0] != self.run:
                return True
            if self._lock is None or not isinstance(self.folder, Path):
                return False
            return not os.path.samestat(os.fstat(self._lock), (self.folder / _LOCK).stat())
        except FileNotFoundError:
            return True
        except OSError:
            return False

    def release(self, *, finished: bool = True) -> None:
        """Let others claim the folder. Releasing twice is once.

        Args:
            finished: Whether all is written; if not, it is as if the training had been killed.
        """
        if self._lock in _held:
            if finished:
                with contextlib.suppress(OSError):
                    os.truncate(self._lock, 0)
            _unlock(self._lock)


def claim_folder(log_dir: Location, *, run: str | None = None, after: int = 0) -> Claim:
    """Choose and claim the folder of a training.

    Args:
        log_dir: Path or URL; made if need be.
        run: Identity of a training that goes on. It gets its folder again, unless another process
            writes there right now: then it is a training of its own. Any other training gets a
            folder without snapshots.
        after: Number of its last attempt, should the folder not tell.

    Raises:
        OSError: If nothing can be written there.
    """
    log_dir = as_folder(log_dir)
    log_dir.mkdir(parents=True, exist_ok=True)
    avoided: Folder | None = None
    is_forked = False
    for folder in _candidates(log_dir, run):
        if folder.exists() and not folder.is_dir():
            continue
        found, last_attempt = _identity(folder)
        continues = run is not None and found == run
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder) if isinstance(folder, Path) else None
        if lock == _BUSY:
            avoided = avoided or folder
            is_forked = is_forked or continues
        elif not continues and list_snapshots(folder):
            _unlock(lock)
        else:
            own = run if run and not is_forked else uuid.uuid4().hex
            before = max(after, last_attempt if continues else 0)
            attempt = max(time.time_ns() // 1_000_000, before + 1)
            try:
                was_killed = _mark_held(lock)
                write_whole(folder / _IDENTITY, f"{own}\n{attempt}".encode())
                remove_leftovers(folder)
            except BaseException:
                _unlock(lock)
                raise
            return Claim(folder, own, attempt, continues, avoided, was_killed, lock)
    raise OSError(errno.EMFILE, f"{_MOST_FOLDERS} run folders are taken or locked", str(log_dir))


def _candidates(log_dir: Folder, run: str | None) -> Iterator[Folder]:
    if run is not None:
        yield from (f for f in log_dir.glob(f"{_NAME}*") if _identity(f)[0] == run)
    for number in range(1, _MOST_FOLDERS + 1):
        yield log_dir / (_NAME if number == 1 else f"{_NAME}-{number}")


def _identity(folder: Folder) -> tuple[str | None, int]:
    """Of the training that had the folder last, and the number of its attempt."""
    try:
        return _read_identity(folder)
    except OSError:
        return None, 0


def _read_identity(folder: Folder) -> tuple[str, int]:
    run, _, attempt = (folder / _IDENTITY).read_text().partition("\n")
    return run, int(attempt) if attempt.isdecimal() else 0


def _lock(folder: Path) -> int | None:
    """Lock a folder: a descriptor to close, None where locks are unknown, _BUSY."""
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT)
    try:
        _lock_file(descriptor)
    except OSError as error:
        os.close(descriptor)
        return _BUSY if error.errno in (errno.EACCES, errno.EAGAIN) else None
    _held.add(descriptor)
    return descriptor


def _mark_held(descriptor: int | None) -> bool:
    """Mark a locked file as held, and tell whether it was so already."""
    if descriptor is None:
        return False
    before = os.read(descriptor, 1)
    os.write(descriptor, b"held")
    return bool(before)


def _unlock(descriptor: int | None) -> None:
    if descriptor is not None:
        _held.discard(descriptor)
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _lock_file(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _let_go() -> None:
    """In a forked child, such as a loader's worker: the lock is not its own to keep alive."""
    for descriptor in list(_held):
        _unlock(descriptor)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)

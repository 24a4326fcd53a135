"""Write files, in local folders or at any URL that fsspec opens."""

import contextlib
import ctypes
import errno
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from upath import UPath

Location: TypeAlias = str | Path | UPath
Folder: TypeAlias = Path | UPath

_AS_BYTES = getattr(os, "O_BINARY", 0)  # Windows changes line ends without it
_LOCAL = ("", "file", "local")
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # errors of writing alone


def as_folder(location: Location) -> Folder:
    """Convert a path or URL to a path object: a `Path` if it is local, else a `UPath`.

    Example:
        >>> as_folder("file:///tmp/run"), as_folder("memory://run") / "kernelviz"
        (PosixPath('/tmp/run'), MemoryPath('/run/kernelviz', protocol='memory'))
    """
    path = UPath(location)
    return Path(path.path) if path.protocol in _LOCAL else path


def as_absolute(location: Location) -> Folder:
    """Convert a path or URL as `as_folder` does, and make a relative path absolute.

    Use it for a path that is kept: ``os.chdir`` changes what a relative path stands for.

    Example:
        >>> as_absolute("runs") == Path.cwd() / "runs"
        True
    """
    path = as_folder(location)
    # If the working directory was deleted, a relative path stands for nothing, and stays.
    with contextlib.suppress(FileNotFoundError):
        return path.absolute()
    return path


def open_new(path: Path) -> int:
    """Create a file and open it for writing. It has the permissions that the umask allows.

    Raises:
        FileExistsError: If there is anything at ``path``, also a symbolic link.
        OSError: If the file cannot be created.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _AS_BYTES
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def open_to_read(path: Folder) -> BinaryIO:
    """Open a file to read bytes. Nothing else is opened: a pipe or a device may never end.

    Raises:
        ValueError: If a local path is a pipe, a device, a socket or a folder.
        OSError: If the file cannot be opened.
    """
    if not isinstance(path, Path):
        return path.open("rb")
    # Without waiting: no other program may have opened a pipe to write to it.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _AS_BYTES)
    try:
        check_regular(os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def check_regular(mode: int) -> None:
    """Check the ``st_mode`` of a path.

    Raises:
        ValueError: If it is that of a pipe, a device, a socket or a folder.
    """
    if not stat.S_ISREG(mode):
        raise ValueError("not a file, but a folder, a pipe, a device or a socket")


def read_whole(path: Folder, most: int) -> bytes:
    """Read a file, see `open_to_read`, unless it is too large.

    Args:
        path: The file.
        most: Number of bytes that it may have.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file has more bytes, or is not a file.
        OSError: If the file cannot be read.
    """
    with open_to_read(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        limit = f"{most >> 20} MiB" if most >= 2**20 else f"{most} bytes"
        raise ValueError(f"it has more than {limit}")
    return content


def write_whole(path: Folder, content: bytes) -> None:
    """Write a file atomically: readers see the whole file or no file, even after a ``kill -9``.

    A local file is written under a temporary name and then renamed. Remote storage shows a file
    only when it is complete. The folder is created if it does not exist.

    Raises:
        OSError: If the file cannot be written. The temporary file is removed then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(path, Path):
        path.write_bytes(content)
        return
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with os.fdopen(open_new(temporary), "wb") as file:
            file.write(content)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def replace_when_complete(path: Path) -> Iterator[Path]:
    """Let the body write a temporary file, then rename it to ``path``.

    An existing file at ``path`` stays until the new one is complete.

    Yields:
        Path of the temporary file, in the same folder and with the same suffix.

    Raises:
        OSError: If the file cannot be created, replaced, or has no room. The message is one line
            that names ``path``. Other errors of the body stay as they are.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        os.close(open_new(temporary))
        yield temporary
        temporary.replace(path)
    except OSError as error:
        # The error of a write, other than that of opening a file, does not say which file it was.
        is_unnamed = error.filename is None and error.errno in _NO_ROOM
        if not is_unnamed and temporary.name not in str(error.filename):
            raise
        reason = error.strerror or error
        raise OSError(f"{path}: it cannot be written: {reason}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Folder) -> None:
    """Remove the temporary files that a killed process left in a folder."""
    if isinstance(folder, Path):
        for path in folder.glob(".*.tmp"):
            with contextlib.suppress(OSError):
                path.unlink()


def move(path: Folder, target: Folder) -> None:
    """Move a file within its storage. The folder of the target is created if it does not exist.

    Raises:
        OSError: If the file cannot be moved.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(path, Path) and isinstance(target, Path):
        path.replace(target)
    else:
        target.write_bytes(path.read_bytes())
        path.unlink()


def reserve(path: Path, extra: int) -> None:
    """Let the disk keep room behind the end of a file. The size of the file does not change.

    Where the system or the file system cannot do this, nothing happens.

    Args:
        path: The file. It and its folder are created if they do not exist.
        extra: Number of bytes.

    Raises:
        OSError: If the disk is full, a quota is reached, or the file cannot be written. What an
            earlier call reserved stays reserved.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        fallocate = _fallocate()
        if fallocate is None:
            return
        disk = os.fstatvfs(file)
        # ext4 would fill the disk before it fails.
        is_full = disk.f_blocks > 0 and disk.f_bavail * disk.f_frsize < extra
        number = errno.ENOSPC if is_full else 0
        if not is_full and fallocate(file, _KEEP_SIZE, os.fstat(file).st_size, extra):
            number = ctypes.get_errno()
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(file)


@cache
def _fallocate() -> Any:
    """Return the function of the C library. `os.posix_fallocate` would make the file longer."""
    if sys.platform != "linux":
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)
    return function

"""Write files, in local folders or at any URL that fsspec opens."""

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from upath import UPath

Location: TypeAlias = str | Path | UPath
Folder: TypeAlias = Path | UPath

_LOCAL = ("", "file", "local")


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
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def read_small(path: Folder, most: int) -> bytes:
    """Read a small file, which another program may have replaced by anything.

    Args:
        path: Path or URL of the file.
        most: Largest number of bytes.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is larger or not a regular file.
        OSError: If it cannot be read.
    """
    if isinstance(path, Path) and path.exists() and not path.is_file():
        raise ValueError("it is not a file")
    with path.open("rb") as file:
        content: bytes = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most} bytes")
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
        OSError: If the file cannot be written. The message is one line that names ``path``.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        os.close(open_new(temporary))
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if temporary.name not in str(error.filename):
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


def check_can_grow(path: Path, extra: int) -> None:
    """Check that a file can grow by a number of bytes, without changing the file.

    Use it before a writer that cannot recover from a failed write, such as TensorBoard's. The bytes
    are allocated in a temporary file, which is removed.

    Args:
        path: The file, which may not exist yet. Its folder is created.
        extra: Number of bytes.

    Raises:
        OSError: If the disk is full, a quota is reached, or the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    size = path.stat().st_size if path.exists() else 0
    with tempfile.TemporaryFile(dir=path.parent, buffering=0) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), size, extra)
            return
        file.seek(size)
        while extra > 0:
            extra -= file.write(bytes(extra))

"""Files in a folder that may be remote: an ordinary path, or any URL that fsspec opens."""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TypeAlias

from upath import UPath

Location: TypeAlias = str | Path | UPath
Folder: TypeAlias = Path | UPath

_LOCAL = ("", "file", "local")


def as_folder(location: Location) -> Folder:
    """Turn a path or URL into something to write below: a `Path` where it is local.

    Example:
        >>> as_folder("file:///tmp/run"), as_folder("memory://run") / "kernelviz"
        (PosixPath('/tmp/run'), MemoryPath('/run/kernelviz', protocol='memory'))
    """
    path = UPath(location)
    return Path(path.path) if path.protocol in _LOCAL else path


def write_whole(path: Folder, content: bytes) -> None:
    """Write a file so that readers see all of it or nothing, also after a ``kill -9``.

    A local file gets a temporary name and is then renamed; remote stores show an object only when
    it is complete. The folder is made if need be.

    Raises:
        OSError: If it cannot be written; the temporary file is removed then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(path, Path):
        path.write_bytes(content)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(folder: Folder) -> None:
    """Remove the half-written files of a process that was killed."""
    if isinstance(folder, Path):
        for path in folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)


def move(path: Folder, target: Folder) -> None:
    """Move a file within its storage; the target's folder is made if need be.

    Raises:
        OSError: If it cannot be moved.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(path, Path) and isinstance(target, Path):
        path.replace(target)
    else:
        target.write_bytes(path.read_bytes())
        path.unlink()


def rehearse_growth(path: Path, extra: int) -> None:
    """Make sure that a file can grow by ``extra`` bytes, and leave nothing behind.

    For a file that somebody else writes, who would not survive the failure.

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

"""Files that a command makes: whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Let a file be written beside its place, under a name of the same suffix, and move it there.

    What was there before stays until the new one is complete.

    Raises:
        OSError: If it cannot be written; one line that names it.
    """
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield beside
        beside.replace(path)
    except OSError as error:
        if beside.name not in str(error.filename):
            raise
        reason = error.strerror or error
        raise OSError(f"{path}: it cannot be written there: {reason}") from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)

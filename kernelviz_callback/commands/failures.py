"""What a command cannot read or write: each is said in a line, and the rest goes on."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from kernelviz_callback.checkpoints.find import find_checkpoints


class Failures:
    """Says what failed, and keeps the exit status that follows from it."""

    def __init__(self) -> None:
        self.status = 0

    @contextmanager
    def survive(self) -> Iterator[None]:
        """Say what the body could not read or write, and go on after it."""
        try:
            yield
        except BrokenPipeError:
            raise
        except (ValueError, OSError) as error:
            self.say(error)

    def say(self, error: Exception) -> None:
        """Say what failed."""
        tqdm.write(f"kernelviz: {error}", file=sys.stderr)
        self.status = 2

    def expand(self, files: Iterable[str]) -> list[str]:
        """List the checkpoints that names stand for, see `find_checkpoints`."""
        names: list[str] = []
        for given in files:
            with self.survive():
                names += find_checkpoints(given)
        return names


def check_folders(outputs: Iterable[Path]) -> None:
    """Refuse what could not be written before the work is done.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    for path in outputs:
        if not path.parent.is_dir():
            raise FileNotFoundError(f"{path}: there is no folder {path.parent} to write to")

"""Errors of a command: report what cannot be read or written, and continue with the rest."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from kernelviz_callback.checkpoints.find import find_checkpoints, without_repeated_shards


class FileErrors:
    """Reports errors, and keeps the exit status of the command.

    Attributes:
        status: 0, or 2 after an error.
    """

    def __init__(self) -> None:
        self.status = 0
        self._said: set[str] = set()

    @contextmanager
    def catch(self) -> Iterator[None]:
        """Report an error of the body, and continue after the body."""
        try:
            yield
        except (ValueError, OSError, ModuleNotFoundError) as error:
            self.report(error)

    def report(self, error: Exception) -> None:
        """Print an error in one line."""
        self.note(error)
        self.status = 2

    def note(self, message: object) -> None:
        """Print a message that is not an error in one line. A repeated one is not printed."""
        if str(message) not in self._said:
            self._said.add(str(message))
            tqdm.write(f"kernelviz: {message}", file=sys.stderr)

    def expand(self, files: Iterable[str]) -> list[str]:
        """List the checkpoints that the names stand for, see `find_checkpoints`.

        A shell replaces a glob by the names of all files. So here, too, the shards of one model are
        one checkpoint, and side files are left out.
        """
        names: list[str] = []
        for given in without_repeated_shards(files):
            with self.catch():
                names += find_checkpoints(given)
        return names


def check_folders(outputs: Iterable[Path]) -> None:
    """Check that the folders of output files exist, before the work is done.

    Raises:
        FileNotFoundError: If a folder does not exist.
    """
    for path in outputs:
        if not path.parent.is_dir():
            raise FileNotFoundError(
                f"{path}: the folder {path.parent} does not exist; create it or name another"
            )

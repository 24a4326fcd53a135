"""Errors of a command: report what cannot be read or written, and continue with the rest."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from kernelviz_callback.checkpoints.find import find_checkpoints


class FileErrors:
    """Reports errors, and keeps the exit status of the command.

    Attributes:
        status: 0, or 2 after an error.
    """

    def __init__(self) -> None:
        self.status = 0

    @contextmanager
    def catch(self) -> Iterator[None]:
        """Report an error of the body, and continue after the body."""
        try:
            yield
        except (ValueError, OSError, ModuleNotFoundError) as error:
            self.report(error)

    def report(self, error: Exception) -> None:
        """Print an error in one line."""
        tqdm.write(f"kernelviz: {error}", file=sys.stderr)
        self.status = 2

    def expand(self, files: Iterable[str]) -> list[str]:
        """List the checkpoints that the names stand for, see `find_checkpoints`."""
        names: list[str] = []
        for given in files:
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

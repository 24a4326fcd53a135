"""The run folders in a log directory: each training has one of its own."""

import re
from contextlib import suppress

from kernelviz_callback.snapshots.attempt import Attempt
from kernelviz_callback.snapshots.names import list_snapshots
from kernelviz_callback.storage import Folder, read_whole

IDENTITY_FILE = ".run"
_FOLDER = re.compile(r"kernelviz(?:-([1-9]\d{0,3}))?")
_MOST_BYTES = 200  # of the identity file


def run_folder_name(number: int) -> str:
    """Return the name of a run folder.

    Args:
        number: 1 for the first training in the log directory, and so on.

    Example:
        >>> run_folder_name(1), run_folder_name(2)
        ('kernelviz', 'kernelviz-2')
    """
    return "kernelviz" if number == 1 else f"kernelviz-{number}"


def read_attempt(folder: Folder) -> Attempt:
    """Read the last attempt that used a run folder.

    Raises:
        FileNotFoundError: If no attempt used it.
        ValueError: If the file with the attempt is damaged.
        OSError: If it cannot be read.
    """
    content = read_whole(folder / IDENTITY_FILE, _MOST_BYTES).decode()
    training, _, number = content.partition("\n")
    return Attempt(training, int(number) if number.isdecimal() else 0)


def list_recorded(log_dir: Folder) -> list[Folder]:
    """List the run folders that have snapshots.

    Returns:
        The folders in the order in which their last attempts began. Folders that do not state this
        come first, in the order of their numbers.
    """
    found = [(path, _FOLDER.fullmatch(path.name)) for path in log_dir.iterdir()]
    folders = [(int(match[1] or 1), path) for path, match in found if match]
    folders = [(number, path) for number, path in folders if list_snapshots(path)]
    return [path for number, path in sorted(folders, key=lambda f: (_began(f[1]), f[0]))]


def _began(folder: Folder) -> int:
    with suppress(ValueError, OSError):
        return read_attempt(folder).number
    return 0

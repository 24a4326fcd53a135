"""Names of snapshot files."""

import re
from pathlib import PurePosixPath

from kernelviz_callback.storage import Folder, Location, as_folder, move

_SNAPSHOT = re.compile(r"step-(\d{8,})\.safetensors")

_FILE_NAME = re.compile(r"step-(\d{8,})\.safetensors")
_OF_A_STEP = re.compile(r".*step-(\d{8,})\.(safetensors|png|jpg)")


def list_snapshots(folder: Location) -> dict[int, Folder]:
    """Find the snapshots of a run: step to path, in the order of the steps.

    Returns:
        Empty if the folder has none or does not exist.
    """
    folder = as_folder(folder)
    names = (_FILE_NAME.fullmatch(p.name) for p in (folder.iterdir() if folder.is_dir() else ()))
    return dict(sorted((int(match[1]), folder / match[0]) for match in names if match))


def set_aside(folder: Location, *, after: int) -> list[int]:
    """Move what was written after a step into ``cut-off-1`` (``-2``, ...) below the folder.

    A training that resumes at a step takes the later ones again; those of the attempt that was cut
    off would stand between its own.

    Returns:
        The steps whose snapshots were moved.
    """
    folder = as_folder(folder)
    found = [(path, _OF_A_STEP.fullmatch(path.name)) for path in folder.iterdir()]
    later = [path for path, match in found if match and int(match[1]) > after]
    number = 1
    while (folder / f"cut-off-{number}").exists():
        number += 1
    for path in later:
        move(path, folder / f"cut-off-{number}" / path.name)
    steps = (_FILE_NAME.fullmatch(path.name) for path in later)
    return sorted(int(match[1]) for match in steps if match)


def snapshot_name(step: int) -> str:
    """File name of the snapshot of a step.

    Example:
        >>> snapshot_name(128)
        'step-00000128.safetensors'
    """
    return f"step-{step:08d}.safetensors"


def snapshot_step(name: str) -> int | None:
    """The step that the name of a snapshot of ours tells; None of any other file."""
    ours = _SNAPSHOT.fullmatch(PurePosixPath(name).name)
    return int(ours[1]) if ours else None

"""Find the checkpoints that a path, glob or folder on the command line stands for."""

import re

from kernelviz_callback.checkpoints.checkpoint import (
    STEP_IN_NAME,
    TORCHVISION,
    open_checkpoint,
    prefix_errors,
)
from kernelviz_callback.checkpoints.distributed import INDEX
from kernelviz_callback.snapshots.names import list_snapshots
from kernelviz_callback.storage import Folder, Location, as_folder

_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".safetensors")
# Subfolders of a run folder that hold checkpoints.
_SUBFOLDERS = ("kernelviz", "checkpoints")
_NUMBER = re.compile(r"(\d+)")
_GLOB = re.compile(r"[*?\[]")


def find_checkpoints(location: Location) -> list[str]:
    """List the checkpoints that a location stands for, in the order of their steps.

    Args:
        location: Path or URL of a file; a glob; a folder of snapshots or of checkpoints; a run
            folder; a folder of ``torch.distributed.checkpoint``; or ``"torchvision:..."``.

    Returns:
        One name or more, each for `open_checkpoint`.

    Raises:
        FileNotFoundError: If the location does not exist, or has no checkpoints.
        ValueError: If the glob is not valid.
    """
    name = str(location)
    if name.startswith(TORCHVISION):
        return [name]
    with prefix_errors(name):
        path = as_folder(location)
        if path.exists():
            return _expand(path, name)
        if not _GLOB.search(name):
            raise FileNotFoundError("the file or folder does not exist")
        found = _glob(name)
        if not found:
            raise FileNotFoundError("no file matches")
        return [one for each in found for one in _expand(each, str(each))]


def _expand(path: Folder, name: str) -> list[str]:
    return _in_folder(path, name) if path.is_dir() else [name]


def _in_folder(folder: Folder, name: str) -> list[str]:
    if (folder / INDEX).exists():
        return [name]
    snapshots = list_snapshots(folder)
    if snapshots:
        return list(map(str, snapshots.values()))
    files = [p for p in folder.iterdir() if p.suffix in _SUFFIXES or (p / INDEX).exists()]
    if files:
        return list(map(str, sorted(files, key=_sort_key)))
    for subfolder in _SUBFOLDERS:
        if (folder / subfolder).is_dir():
            return _in_folder(folder / subfolder, f"{name.rstrip('/')}/{subfolder}")
    raise FileNotFoundError(
        "found no checkpoint in this folder; expected snapshots (step-*.safetensors), files "
        f"ending in {', '.join(_SUFFIXES)}, or a subfolder {' or '.join(_SUBFOLDERS)} with them"
    )


def _glob(pattern: str) -> list[Folder]:
    beginning = _GLOB.split(pattern, maxsplit=1)[0]
    fixed = beginning[: beginning.rfind("/") + 1]
    base = as_folder(fixed or ".")
    return sorted(base.glob(pattern[len(fixed) :]), key=_sort_key) if base.is_dir() else []


def _sort_key(path: Folder) -> tuple[float, list[str]]:
    """Sort by the step, then by the path, where numbers in the path sort as numbers.

    If the name has no step (``last.ckpt``), the step is read from the file.
    """
    step = STEP_IN_NAME.search(path.name)
    natural = [part.zfill(20) if part.isdecimal() else part for part in _NUMBER.split(str(path))]
    return (int(step[1]) if step else _read_step(path)), natural


def _read_step(path: Folder) -> float:
    try:
        step = open_checkpoint(path).step
    except (OSError, ValueError):  # the error is reported later, when the file is read
        step = None
    return float("inf") if step is None else step

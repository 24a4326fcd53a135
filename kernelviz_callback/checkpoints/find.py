"""What a user may name on a command line, and the checkpoints that are meant by it."""

import re

from kernelviz_callback.checkpoints.checkpoint import (
    STEP_IN_NAME,
    TORCHVISION,
    named,
    open_checkpoint,
)
from kernelviz_callback.checkpoints.distributed import INDEX
from kernelviz_callback.snapshots.names import list_snapshots
from kernelviz_callback.storage import Folder, Location, as_folder

_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".safetensors")
# Where the checkpoints of a run are, below its folder.
_BELOW = ("kernelviz", "checkpoints")
_NUMBER = re.compile(r"(\d+)")
_GLOB = re.compile(r"[*?\[]")


def find_checkpoints(location: Location) -> list[str]:
    """List the checkpoints that a name stands for, in the order of their steps.

    Args:
        location: A file or its URL; a glob; a folder of snapshots, of checkpoints, of a whole run,
            or of ``torch.distributed.checkpoint``; or ``"torchvision:..."``.

    Returns:
        At least one name to give to `open_checkpoint`.

    Raises:
        FileNotFoundError: If there is nothing of that name, or nothing in it.
        ValueError: If it is no glob that can be looked for.
    """
    name = str(location)
    if name.startswith(TORCHVISION):
        return [name]
    with named(name):
        path = as_folder(location)
        if path.exists():
            return _meant_by(path, name)
        if not _GLOB.search(name):
            raise FileNotFoundError("there is no such file or folder")
        found = _matching(name)
        if not found:
            raise FileNotFoundError("no file matches")
        return [one for each in found for one in _meant_by(each, str(each))]


def _meant_by(path: Folder, name: str) -> list[str]:
    return _in_folder(path, name) if path.is_dir() else [name]


def _in_folder(folder: Folder, name: str) -> list[str]:
    if (folder / INDEX).exists():
        return [name]
    snapshots = list_snapshots(folder)
    if snapshots:
        return list(map(str, snapshots.values()))
    files = [p for p in folder.iterdir() if p.suffix in _SUFFIXES or (p / INDEX).exists()]
    if files:
        return list(map(str, sorted(files, key=_by_step)))
    for below in _BELOW:
        if (folder / below).is_dir():
            return _in_folder(folder / below, f"{name.rstrip('/')}/{below}")
    raise FileNotFoundError(
        "found no checkpoint in this folder; expected snapshots (step-*.safetensors), files "
        f"ending in {', '.join(_SUFFIXES)}, or a folder {' or '.join(_BELOW)} with such"
    )


def _matching(pattern: str) -> list[Folder]:
    beginning = _GLOB.split(pattern, maxsplit=1)[0]
    fixed = beginning[: beginning.rfind("/") + 1]
    base = as_folder(fixed or ".")
    return sorted(base.glob(pattern[len(fixed) :]), key=_by_step) if base.is_dir() else []


def _by_step(path: Folder) -> tuple[float, list[str]]:
    """The step, then the path with its numbers in the order of numbers.

    A checkpoint that does not tell its step in its name, a last or a best one, tells it inside.
    """
    step = STEP_IN_NAME.search(path.name)
    natural = [part.zfill(20) if part.isdecimal() else part for part in _NUMBER.split(str(path))]
    return (int(step[1]) if step else _step_inside(path)), natural


def _step_inside(path: Folder) -> float:
    try:
        step = open_checkpoint(path).step
    except (OSError, ValueError):  # whoever wants to read it will be told
        step = None
    return float("inf") if step is None else step

"""Find the checkpoints that a path, glob or folder on the command line stands for."""

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from kernelviz_callback.checkpoints.checkpoint import (
    TORCHVISION,
    open_checkpoint,
    step_in_name,
)
from kernelviz_callback.checkpoints.checkpoint_files import (
    SUBFOLDERS,
    checkpoints_in,
    distinct_checkpoints,
    explain_folder,
    is_checkpoint_folder,
    why_missing,
)
from kernelviz_callback.checkpoints.file_kinds import CHECKPOINT_SUFFIXES
from kernelviz_callback.checkpoints.open_weights import prefix_errors
from kernelviz_callback.snapshots.names import list_snapshots
from kernelviz_callback.storage import Folder, Location, as_folder

_LOGS = "lightning_logs"
_RUN = re.compile(r"version_\d+")
_NUMBER = re.compile(r"(\d+)")
_GLOB = re.compile(r"[*?\[]")
_UNKNOWN = float("inf")  # step or epoch of a checkpoint that does not state it


def find_checkpoints(location: Location) -> list[str]:
    """List the checkpoints that a location stands for, in the order of their steps.

    Args:
        location: Path or URL of a file; a glob; a folder of snapshots or of checkpoints; a run
            folder; a folder that is one checkpoint, such as ``checkpoint-500`` of Hugging Face; a
            folder with run folders ``version_N``, or with ``lightning_logs``; or
            ``"torchvision:..."``. Side files, such as ``optimizer.pt``, are left out, and the
            shards of one model are one checkpoint.

    Returns:
        One name or more, each for `open_checkpoint`.

    Raises:
        FileNotFoundError: If the location does not exist, or has no checkpoints.
        ValueError: If the name is empty, or the glob is not valid.
    """
    name = str(location)
    if not name:
        raise ValueError("expected the path of a checkpoint; found an empty name")
    if name.startswith(TORCHVISION):
        return [name]
    with prefix_errors(name):
        path = as_folder(location)
        if path.exists():
            return _expand(path, name)
        if not _GLOB.search(name):
            raise FileNotFoundError(why_missing(path))
        found = _glob(name)
        names: list[str] = []
        for each in found:
            with suppress(FileNotFoundError):  # a run that saved nothing
                names += _expand(each, str(each))
        if not names:
            what = f"checkpoint in the {len(found)} folders that match" if found else "file matches"
            raise FileNotFoundError(f"no {what}")
        return names


def without_repeated_shards(given: Iterable[str]) -> list[str]:
    """Leave out names of side files, and of shards of a model that an earlier name stands for.

    Hidden files are kept: the user has written their names.
    """
    names = list(given)
    paths = {n: as_folder(n) for n in names if "://" not in n and not n.startswith(TORCHVISION)}
    paths = {name: path for name, path in paths.items() if not path.name.startswith(".")}
    kept = set(distinct_checkpoints(paths.values()))
    return [name for name in names if paths.get(name) in {None, *kept}]


def find_newest(names: list[str]) -> str:
    """Return the newest of the checkpoints that `find_checkpoints` has found.

    This is the one with the highest step in the last run folder. If a checkpoint does not state its
    step, it is the file that was written last.
    """
    if len(names) == 1:
        return names[0]
    last = as_folder(names[-1])
    if not isinstance(last, Path) or _sort_key(last)[0] < _UNKNOWN:
        return names[-1]
    times = {
        name: path.stat().st_mtime
        for name in names
        if isinstance(path := as_folder(name), Path) and path.parent == last.parent
    }
    return max(reversed(times), key=lambda name: times[name])


def _expand(path: Folder, name: str) -> list[str]:
    return _in_folder(path, name) if path.is_dir() else [name]


def _in_folder(folder: Folder, name: str) -> list[str]:
    if is_checkpoint_folder(folder):
        return [name]
    snapshots = list_snapshots(folder)
    if snapshots:
        return list(map(str, snapshots.values()))
    found = checkpoints_in(folder)
    if found:
        return list(map(str, sorted(found, key=_sort_key)))
    for subfolder in SUBFOLDERS:
        if (folder / subfolder).is_dir():
            with suppress(FileNotFoundError):  # it is empty
                return _in_folder(folder / subfolder, f"{name.rstrip('/')}/{subfolder}")
    logs = folder / _LOGS if (folder / _LOGS).is_dir() else folder
    names: list[str] = []
    for run in sorted(logs.iterdir(), key=_natural):
        if _RUN.fullmatch(run.name) and run.is_dir():
            with suppress(FileNotFoundError):  # a run that saved nothing
                names += _in_folder(run, str(run))
    if names:
        return names
    raise FileNotFoundError(
        explain_folder(folder)
        or "found no checkpoint in this folder; expected snapshots (step-*.safetensors), files "
        f"ending in {', '.join(CHECKPOINT_SUFFIXES)}, or a subfolder "
        f"{', '.join(SUBFOLDERS)} or {_LOGS} with them"
    )


def _glob(pattern: str) -> list[Folder]:
    beginning = _GLOB.split(pattern, maxsplit=1)[0]
    fixed = beginning[: beginning.rfind("/") + 1]
    base = as_folder(fixed or ".")
    matches: list[Folder] = list(base.glob(pattern[len(fixed) :])) if base.is_dir() else []
    return sorted(distinct_checkpoints(sorted(matches, key=_natural)), key=_sort_key)


def _sort_key(path: Folder) -> tuple[float, float, list[str]]:
    """Sort by the step, then by the epoch, then by the path.

    If the name has no step (``last.ckpt``), step and epoch are read from the file.
    """
    step = step_in_name(path)
    return (*(_read_progress(path) if step is None else (step, 0)), _natural(path))


def _natural(path: Folder) -> list[str]:
    """Split a path so that numbers in it sort as numbers."""
    return [part.zfill(20) if part.isdecimal() else part for part in _NUMBER.split(str(path))]


def _read_progress(path: Folder) -> tuple[float, float]:
    try:
        opened = open_checkpoint(path)
    except (OSError, ValueError):  # the error is reported later, when the file is read
        return _UNKNOWN, _UNKNOWN
    numbers = (opened.step, opened.epoch)
    step, epoch = (_UNKNOWN if number is None else number for number in numbers)
    return step, epoch

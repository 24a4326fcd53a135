"""Names of the files in a run folder: which file belongs to which step."""

import hashlib
import re
from pathlib import PurePosixPath

from kernelviz_callback.storage import Folder, Location, as_folder, move

_SNAPSHOT = re.compile(r"step-(\d{8,})\.safetensors")
# ASCII only: some file systems know no other characters, and some take different ones for equal.
_NOT_IN_NAMES = re.compile(r"[^\w.-]", re.ASCII)
_LONGEST_STEM = 99  # characters; a step and a suffix follow, and a name may have 255 bytes
# A snapshot, or a picture that was drawn at the same step.
_SNAPSHOT_OR_PICTURE = re.compile(r".*step-(\d{8,})\.(safetensors|png|jpg)")


def snapshot_name(step: int) -> str:
    """Return the file name of the snapshot of a step.

    Example:
        >>> snapshot_name(128)
        'step-00000128.safetensors'
    """
    return f"step-{step:08d}.safetensors"


def snapshot_step(name: str) -> int | None:
    """Read the step from the name or path of a snapshot file; None for any other file.

    Example:
        >>> snapshot_step("runs/kernelviz/step-00000128.safetensors"), snapshot_step("last.ckpt")
        (128, None)
    """
    match = _SNAPSHOT.fullmatch(PurePosixPath(name).name)
    return int(match[1]) if match else None


def picture_stem(tag: str) -> str:
    """Return the beginning of the file name of a picture: at most 116 ASCII characters.

    Different tags have different names. A layer name that cannot be a part of a file name, or is
    too long, is changed, and a digest follows it.

    Args:
        tag: Kind of picture and name of the layer.

    Example:
        >>> picture_stem("kernels/net.conv1"), picture_stem("kernels/a/b")
        ('kernels-net.conv1', 'kernels-a-b~73644b72b93505f3')
    """
    kind, _, layer = tag.partition("/")
    stem = _NOT_IN_NAMES.sub("-", f"{kind}-{layer}")[:_LONGEST_STEM]
    if stem == f"{kind}-{layer}":
        return stem
    return f"{stem}~{hashlib.sha256(tag.encode(errors='surrogatepass')).hexdigest()[:16]}"


def list_snapshots(folder: Location) -> dict[int, Folder]:
    """Find the snapshots in a folder: step to path, in the order of the steps.

    Returns:
        An empty dict if the folder has no snapshots or does not exist.
    """
    folder = as_folder(folder)
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    found = ((snapshot_step(name), folder / name) for name in names)
    return dict(sorted((step, path) for step, path in found if step is not None))


def set_aside(folder: Location, *, after: int) -> list[Folder]:
    """Move all files of later steps into the subfolder ``cut-off-1`` (``-2``, ...).

    A training that resumes at step ``after`` takes the later steps again. Without this move, the
    snapshots that the interrupted attempt took would be mixed with the new ones.

    Args:
        folder: The folder of the snapshots and pictures.
        after: The last step whose files stay.

    Returns:
        The new paths of the snapshots, in the order of their steps.
    """
    folder = as_folder(folder)
    found = [(path, _SNAPSHOT_OR_PICTURE.fullmatch(path.name)) for path in folder.iterdir()]
    later = [path for path, match in found if match and int(match[1]) > after]
    number = 1
    while (folder / f"cut-off-{number}").exists():
        number += 1
    target = folder / f"cut-off-{number}"
    for path in later:
        move(path, target / path.name)
    return list(list_snapshots(target).values())

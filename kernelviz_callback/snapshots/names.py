"""Names of the files in a run folder: which file belongs to which step."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

from kernelviz_callback.storage import Folder, Location, as_folder, move

_SNAPSHOT = re.compile(r"step-(\d{8,})\.safetensors")
_NOT_PLAIN = re.compile(r"[^\w.-]")
# In addition, some file systems know no other characters, or take different ones for equal.
_NOT_PLAIN_ASCII = re.compile(_NOT_PLAIN.pattern, re.ASCII)
# Bytes of a layer name in a tag. A file name may have 255, in encrypted file systems 143, and a
# metric of MLflow 250 characters.
_LONGEST_LAYER = 110
_DIGEST = 16  # hexadecimal digits
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


def plain_tags(
    tags: Iterable[str], *, ascii_only: bool, longest: int = _LONGEST_LAYER
) -> dict[str, str]:
    """Rename tags so that file systems and logging services can store them.

    Different tags stay different, also where upper and lower case count as equal. In most tags
    nothing is changed. A digest follows the name of a layer if it is changed: it has other
    characters than letters, digits and ``_.-``, is too long, or differs from another layer only in
    upper and lower case.

    Args:
        tags: Tags of the same watched layers: ``<kind>``, ``<kind>/<layer>``, or
            ``kernelviz/<layer>/<number>``.
        ascii_only: Whether letters of other alphabets are replaced, too.
        longest: Bytes that the name of a layer may have in the new tag.

    Returns:
        Tag to new tag.

    Example:
        >>> list(plain_tags(["kernels/net.conv1", "kernels/a/b"], ascii_only=True).values())
        ['kernels/net.conv1', 'kernels/a-b-c14cddc033f64b9d']
        >>> list(plain_tags(["kernelviz/a.Conv/drift", "probe"], ascii_only=True).values())
        ['kernelviz/a.Conv/drift', 'probe']
    """
    parts = {tag: _split(tag) for tag in tags}
    layers = {layer for _, layer, _ in parts.values()}
    allowed = [layer for layer in layers if _plain(layer, ascii_only, longest) == layer]
    alike = Counter(layer.casefold() for layer in allowed)
    new = {layer: layer for layer in allowed if alike[layer.casefold()] == 1}
    for layer in layers - new.keys():
        digest = hashlib.sha256(layer.encode(errors="surrogatepass")).hexdigest()[:_DIGEST]
        new[layer] = f"{_plain(layer, ascii_only, longest - _DIGEST - 1)}-{digest}"
    return {tag: f"{before}{new[layer]}{after}" for tag, (before, layer, after) in parts.items()}


def _split(tag: str) -> tuple[str, str, str]:
    """Split a tag into what is before the name of the layer, the name, and what follows it."""
    kind, slash, layer = tag.partition("/")
    number = ""
    if kind == "kernelviz":
        layer, _, number = layer.rpartition("/")
        number = f"/{number}"
    return f"{kind}{slash}", layer, number


def _plain(layer: str, ascii_only: bool, longest: int) -> str:
    plain = (_NOT_PLAIN_ASCII if ascii_only else _NOT_PLAIN).sub("-", layer)
    return plain.encode()[:longest].decode(errors="ignore")


def list_snapshots(folder: Location) -> dict[int, Folder]:
    """Find the snapshots in a folder: step to path, in the order of the steps.

    Returns:
        An empty dict if the folder has no snapshots or does not exist.
    """
    folder = as_folder(folder)
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    found = ((snapshot_step(name), folder / name) for name in names)
    return dict(sorted((step, path) for step, path in found if step is not None))


def set_aside(folder: Location, *, after: int) -> list[int]:
    """Move all files of later steps into the subfolder ``cut-off-1`` (``-2``, ...).

    A training that resumes at step ``after`` takes the later steps again. Without this move, the
    snapshots that the interrupted attempt took would be mixed with the new ones.

    Args:
        folder: The folder of the snapshots and pictures.
        after: The last step whose files stay.

    Returns:
        The steps whose snapshots were moved.
    """
    folder = as_folder(folder)
    found = [(path, _SNAPSHOT_OR_PICTURE.fullmatch(path.name)) for path in folder.iterdir()]
    later = [path for path, match in found if match and int(match[1]) > after]
    number = 1
    while (folder / f"cut-off-{number}").exists():
        number += 1
    for path in later:
        move(path, folder / f"cut-off-{number}" / path.name)
    steps = (snapshot_step(path.name) for path in later)
    return sorted(step for step in steps if step is not None)

"""Short labels for the checkpoints of a comparison."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from kernelviz_callback.checkpoints.checkpoint_files import SUBFOLDERS


def distinct_labels(names: Sequence[str]) -> list[str]:
    """Shorten paths to distinct labels.

    Leading folders that all paths share are removed, and so is a suffix that all share. Folders
    that every run has, such as ``checkpoints``, are removed if the labels stay distinct. Equal
    labels are numbered.

    Example:
        >>> distinct_labels(["runs/a/last.ckpt", "runs/b/last.ckpt"])
        ['a/last', 'b/last']
        >>> distinct_labels(["net.pt", "net.pt"])
        ['net', 'net (2)']
    """
    split = [name.split("/") for name in names]
    while len({parts[0] for parts in split}) == 1 and all(len(parts) > 1 for parts in split):
        split = [parts[1:] for parts in split]
    short = [[*(p for p in parts[:-1] if p not in SUBFOLDERS), parts[-1]] for parts in split]
    if len(set(map(tuple, short))) == len(set(map(tuple, split))):
        split = short
    suffixes = {PurePosixPath(name).suffix for name in names}
    suffix = suffixes.pop() if len(suffixes) == 1 else ""
    labels: list[str] = []
    for parts in split:
        label = "/".join(parts).removesuffix(suffix)
        same = sum(other == label or other.startswith(f"{label} (") for other in labels)
        labels.append(f"{label} ({same + 1})" if same else label)
    return labels

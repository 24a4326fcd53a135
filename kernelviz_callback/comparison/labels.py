"""Short names for long paths."""

from collections.abc import Sequence
from pathlib import PurePosixPath


def distinct_labels(names: Sequence[str]) -> list[str]:
    """Leave out the folders that all names begin with, and the suffix that all end in.

    Names that are the same are numbered.

    Example:
        >>> distinct_labels(["runs/a/last.ckpt", "runs/b/last.ckpt"])
        ['a/last', 'b/last']
        >>> distinct_labels(["net.pt", "net.pt"])
        ['net', 'net (2)']
    """
    split = [name.split("/") for name in names]
    while len({parts[0] for parts in split}) == 1 and all(len(parts) > 1 for parts in split):
        split = [parts[1:] for parts in split]
    suffixes = {PurePosixPath(name).suffix for name in names}
    suffix = suffixes.pop() if len(suffixes) == 1 else ""
    labels: list[str] = []
    for parts in split:
        label = "/".join(parts).removesuffix(suffix)
        same = sum(other == label or other.startswith(f"{label} (") for other in labels)
        labels.append(f"{label} ({same + 1})" if same else label)
    return labels

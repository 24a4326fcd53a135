"""Choose the checkpoints that are pictured, and those whose weights are kept in memory."""

from collections.abc import Sequence

import torch

from kernelviz_callback.comparison.comparison import Column

MOST_PICTURED = 8
_MOST_BYTES = 64 * 2**20  # memory for the weights of all checkpoints that are kept


def indices_to_keep(count: int, size: int) -> set[int]:
    """Choose the checkpoints whose weights are kept, before their weights are known.

    Args:
        count: Number of checkpoints.
        size: Size of the weights of one checkpoint, in bytes.

    Returns:
        Indices from 0. All checkpoints if their weights fit into 64 MiB; else the first, the last,
        and some between, with growing distances, because early changes are larger.

    Example:
        >>> sorted(indices_to_keep(100, size=10 * 2**20))
        [0, 1, 3, 10, 31, 99]
    """
    fitting = max(2, _MOST_BYTES // max(1, size))
    if count <= fitting:
        return set(range(count))
    between = min(fitting, MOST_PICTURED) - 2
    return {0, count - 1, *(round((count - 1) ** (k / between)) for k in range(between))}


def choose_pictured(columns: Sequence[Column]) -> set[int]:
    """Choose the checkpoints to picture: the first, the last, and those between at equal changes.

    The change up to a checkpoint is the sum of the median changes of the filters from checkpoint to
    checkpoint. So more checkpoints are chosen where more changes.

    Args:
        columns: The checkpoints in their order. Only those with weights can be chosen.

    Returns:
        Indices of at most 8 columns.
    """
    kept = [i for i, column in enumerate(columns) if column.weights is not None]
    if len(kept) <= MOST_PICTURED:
        return set(kept)
    steps = torch.stack([column.change_from_previous.nanmedian() for column in columns])
    changes = steps.nan_to_num(0.0, posinf=0.0).cumsum(0)[kept]
    marks = torch.linspace(
        changes[0].item(), changes[-1].item(), MOST_PICTURED, dtype=torch.float32, device="cpu"
    )
    nearest = (changes[None] - marks[:, None]).abs().argmin(1).tolist()
    return {kept[0], kept[-1], *(kept[i] for i in nearest)}

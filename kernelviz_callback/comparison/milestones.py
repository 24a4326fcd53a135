"""Which checkpoints of many are pictured, and whose weights are therefore kept in memory."""

from collections.abc import Sequence

import torch

from kernelviz_callback.comparison.comparison import Column

MOST_PICTURED = 8
# All weights are kept until it is known which tell most, unless they would be more than this; then
# as many as fit, the first and the last at least.
_MOST_BYTES = 64 * 2**20


def places_to_keep(count: int, size: int) -> set[int]:
    """Tell of which checkpoints to keep the weights, before any is known.

    Args:
        count: Checkpoints to come.
        size: Of the weights of one, in bytes.

    Returns:
        All places from 0, or the first, the last, and some between whose distances double: early
        changes are the large ones.

    Example:
        >>> sorted(places_to_keep(100, size=10 * 2**20))
        [0, 1, 3, 10, 31, 99]
    """
    fitting = max(2, _MOST_BYTES // max(1, size))
    if count <= fitting:
        return set(range(count))
    between = min(fitting, MOST_PICTURED) - 2
    return {0, count - 1, *(round((count - 1) ** (k / between)) for k in range(between))}


def milestones(columns: Sequence[Column]) -> set[int]:
    """Choose what to picture: the first, the last, and those at equal parts of the way between.

    The way is the sum of the median filter's changes: where much happens, much is shown.

    Args:
        columns: In their order; those without weights cannot be chosen.
    """
    kept = [i for i, column in enumerate(columns) if column.weights is not None]
    if len(kept) <= MOST_PICTURED:
        return set(kept)
    steps = torch.stack([column.change_from_previous.nanmedian() for column in columns])
    way = steps.nan_to_num(0.0, posinf=0.0).cumsum(0)[kept]
    marks = torch.linspace(way[0].item(), way[-1].item(), MOST_PICTURED)
    nearest = (way[None] - marks[:, None]).abs().argmin(1).tolist()
    return {kept[0], kept[-1], *(kept[i] for i in nearest)}

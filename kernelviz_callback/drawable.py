"""Which layers are too large to be drawn: one rule for files, trainings and the Kernels tab.

The first layers of networks are far below these limits. Above them, a picture would take a minute,
or the memory of a small machine.
"""

from collections.abc import Sequence
from math import prod

_MOST_FILTERS = 2**13  # each filter is compared with each other one: ten seconds
_MOST_CHANNELS = 2**14
_LONGEST_SIDE = 2**12
_MOST_OF_A_FILTER = 2**16
_MOST_WEIGHTS = 2**27


def why_not_drawable(shape: Sequence[int]) -> str | None:
    """Return why a layer is too large to be drawn, as a sentence; None if it can be drawn.

    Args:
        shape: Shape of the weights: (N, C, kH, kW), (N, C, k) or (N, C, kD, kH, kW).

    Example:
        >>> why_not_drawable((64, 3, 7, 7))
        >>> why_not_drawable((200_000, 3, 1, 1))
        'it has 200,000 filters; at most 8,192 filters can be drawn; choose another layer'
    """
    filters, channels, *kernel = shape
    for count, most, what in (
        (filters, _MOST_FILTERS, "filters"),
        (channels, _MOST_CHANNELS, "input channels"),
        (max(kernel), _LONGEST_SIDE, "weights along one side of its kernels"),
        (channels * prod(kernel), _MOST_OF_A_FILTER, "weights in each filter"),
        (prod(shape), _MOST_WEIGHTS, "weights"),
    ):
        if count > most:
            return (
                f"it has {count:,} {what}; at most {most:,} {what} can be drawn; choose another "
                "layer"
            )
    return None

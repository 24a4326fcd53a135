"""A layer as float64, some filters at a time: there every float32 number has a square."""

from collections.abc import Iterator

import torch
from torch import Tensor

_MOST_NUMBERS = 2**17  # of a block: 1 MiB, what a processor's cache holds


def exact_blocks(weights: Tensor) -> Iterator[Tensor]:
    """Yield the filters of a layer in their order, in blocks that are float64.

    The square of a float32 number may be none: of 1e20 it is infinite, of 1e-23 zero. As a float64
    all of them have squares, and fourth powers, and sums of those. A whole layer in float64 would
    be twice its size in memory.

    Args:
        weights: Shape (N, ...), floating point, not modified.

    Example:
        >>> from torch import full
        >>> [norm] = [block.norm().item() for block in exact_blocks(full((1, 4), 1e20))]
        >>> f"{norm:.1e}"
        '2.0e+20'
    """
    for block in torch.split(weights, max(1, _MOST_NUMBERS * len(weights) // weights.numel())):
        yield block.double()

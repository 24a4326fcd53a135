"""Convert the filters of a layer to float64, a few at a time."""

from collections.abc import Iterator

import torch
from torch import Tensor

_MOST_NUMBERS = 2**17  # in a block, which has 1 MiB then and fits into the cache of a processor


def float64_blocks(weights: Tensor) -> Iterator[Tensor]:
    """Yield the filters of a layer in their order, in blocks of float64.

    The square of a float32 number may not be a float32 number: 1e20 has an infinite square, and
    the square of 1e-23 is zero. In float64 the squares, the fourth powers and their sums are
    correct. Blocks are used because a whole layer in float64 needs twice its memory.

    Args:
        weights: Shape (N, ...), floating point, not modified.

    Yields:
        Shape (n, ...), float64, on the device of ``weights``.

    Example:
        >>> from torch import full
        >>> [norm] = [block.norm().item() for block in float64_blocks(full((1, 4), 1e20))]
        >>> f"{norm:.1e}"
        '2.0e+20'
    """
    for block in torch.split(weights, max(1, _MOST_NUMBERS * len(weights) // weights.numel())):
        yield block.double()

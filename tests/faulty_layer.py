"""A layer with one fault of each kind, for the tests of filter health and of its pictures."""

import torch
from torch import Tensor


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def faulty_layer() -> tuple[Tensor, Tensor]:
    """Return a layer with one fault of each kind, and its weights at the previous snapshot."""
    weights = drawn(32, 3, 7, 7)
    weights[3] = 0
    weights[5] = weights[9] + 0.05 * drawn(3, 7, 7, seed=1)
    weights[7] *= 10
    weights[11, 1, 2, 3] = torch.nan
    weights[13] = -weights[14]
    weights[15] = 1.0
    previous = weights + 0.01 * drawn(32, 3, 7, 7, seed=2)
    previous[20] = weights[20]
    return weights, previous

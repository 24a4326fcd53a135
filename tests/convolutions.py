"""Convolutions with given weights, to compare."""

import torch
from torch import nn


def conv(weight: torch.Tensor) -> nn.Conv2d:
    """Make a 2-D convolution with these weights."""
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2])
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


def conv_of(weight: torch.Tensor) -> nn.Module:
    """Make a 1-D, 2-D or 3-D convolution with these weights."""
    kind = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}[weight.ndim]
    layer = kind(weight.shape[1], weight.shape[0], tuple(weight.shape[2:]))
    layer.weight.data = weight.clone()
    return layer


def random_weight() -> torch.Tensor:
    """Make the same random weights of 16 filters of 3x5x5 in each call."""
    return torch.randn(16, 3, 5, 5, generator=torch.Generator().manual_seed(0))

"""The planes of a weight: its slices, and the channels of each slice."""

import torch
from torch import Tensor

from kernelviz_callback.filters.planes import as_planes


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def test_planes_are_ordered_by_slice_and_then_by_channel() -> None:
    weights = drawn(2, 3, 4, 5, 6)
    planes = as_planes(weights)
    for slice_ in range(4):
        for channel in range(3):
            assert torch.equal(planes[:, slice_ * 3 + channel], weights[:, channel, slice_])
    assert torch.equal(as_planes(weights[:, :, 0, 0]), weights[:, :, None, 0, 0])
    assert torch.equal(as_planes(weights[:, :, 0]), weights[:, :, 0])

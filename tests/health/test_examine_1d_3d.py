"""The health of 1-D and 3-D layers."""

import pytest
import torch
from torch import Tensor

from kernelviz_callback import kernel_health


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("shape", [(16, 1, 25), (16, 3, 3, 5, 5)])
def test_verdicts_and_numbers_of_1d_and_3d_layers(shape: tuple[int, ...]) -> None:
    weights = drawn(*shape)
    weights[2] = 0
    weights[5] = weights[4]
    weights[7].flatten()[0] = float("inf")
    health = kernel_health(weights, first=drawn(*shape) + 0.1)
    assert health.shape == shape
    assert health.flagged("near-zero") == [2]
    assert health.flagged("duplicate") == [4, 5]
    assert health.flagged("non-finite") == [7]
    assert health.totals.drift > 0
    assert "colour needs a 2-D layer" in health.absent["colour_share"]
    assert health.filters.bandwidth[0] > 0
    assert health.filters.orientation.isfinite().any() == (len(shape) == 5)
    assert ("orientation" in health.absent) == (len(shape) == 3)


def test_a_1d_kernel_has_no_orientation() -> None:
    weights = drawn(12, 2, 16)
    sound, row = kernel_health(weights), kernel_health(weights[:, :, None])
    assert sound.absent["orientation"] == "a 1-D kernel has no direction"
    assert kernel_health(0 * weights).absent["orientation"] == sound.absent["orientation"]
    assert kernel_health(weights[..., :1]).absent["orientation"].startswith("a 1x1 kernel")
    assert "orientation" not in row.absent
    has_stripes = row.filters.frequency > 0
    assert (row.filters.orientation[has_stripes].round() == 90).all()
    assert torch.equal(sound.filters.bandwidth, row.filters.bandwidth)


def test_a_1d_kernel_with_a_tone_is_not_noise_like() -> None:
    weights = drawn(16, 1, 16)
    t = torch.arange(16.0)
    weights[0, 0] = torch.cos(1.2 * t) * torch.hann_window(16, periodic=False) + 0.1 * weights[0, 0]
    health = kernel_health(weights)
    assert "noise-like verdict" not in health.absent
    assert health.totals.noise_share > 0.8
    assert 0 not in health.flagged("noise-like")

"""The energy of a probe gives the same responses as a convolution with it."""

import pytest
import torch
from torch import Tensor

from kernelviz_callback import load_probe, measure_probe, summed_responses


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_responses_equal_those_of_a_convolution() -> None:
    probe, weights = load_probe(size=64).image, drawn(6, 3, 5, 5)
    energy = measure_probe(probe, (5, 5), channels=3, dilation=(2, 1))
    expected = summed_responses(probe, weights, dilation=(2, 1)).square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(energy.response_rms(weights), expected, rtol=1e-4, atol=1e-6)

    grouped = drawn(6, 1, 3, 3)
    energy = measure_probe(probe, (3, 3), channels=1, groups=3)
    expected = summed_responses(probe, grouped, groups=3).square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(energy.response_rms(grouped), expected, rtol=1e-4, atol=1e-6)

    grey = probe[:1].expand(64, -1, -1)
    deep = drawn(4, 64, 3, 3)
    energy = measure_probe(grey, (3, 3), channels=64)
    assert energy.moments.shape == (1, 9, 9)
    expected = summed_responses(grey, deep).square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(energy.response_rms(deep), expected, rtol=1e-3, atol=1e-5)


def test_filters_with_too_many_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 2048 weights"):
        measure_probe(torch.rand(300, 8, 8), (3, 3), channels=300)

"""The Fourier side of filter health, against sums written out and gratings that are known."""

import cmath
import math

import pytest
import torch
from torch import Tensor

from kernelviz_callback.spectrum import concentration, dominant_stripes, power_spectrum


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def grating(size: int, frequency: float, degrees: float, spread: float = 3.0) -> Tensor:
    """Stripes that rise by ``degrees`` from the horizontal, in a Gaussian window."""
    middle = (size - 1) / 2
    y, x = torch.meshgrid(torch.arange(size) - middle, torch.arange(size) - middle, indexing="ij")
    angle = math.radians(degrees)
    # Upwards is -y; a wave runs across its stripes.
    across = x * math.sin(angle) + y * math.cos(angle)
    window = torch.exp(-(x.square() + y.square()) / (2 * spread**2))
    return window * torch.cos(2 * math.pi * frequency * across)


@pytest.mark.parametrize("shape", [(2, 3, 3, 3), (3, 1, 4, 2), (1, 2, 5, 7), (2, 5, 1, 1)])
def test_power_is_the_transform_written_out(shape: tuple[int, ...]) -> None:
    weights = drawn(*shape)
    power = power_spectrum(weights)
    count, channels, height, width = shape
    for o in range(count):
        for i in range(2 * height - 1):
            for j in range(width):
                total = 0.0
                for c in range(channels):
                    term = sum(
                        float(weights[o, c, y, x])
                        * cmath.exp(
                            -2j * math.pi * (y * i / (2 * height - 1) + x * j / (2 * width - 1))
                        )
                        for y in range(height)
                        for x in range(width)
                    )
                    total += abs(term) ** 2
                assert power[o, i, j].item() == pytest.approx(total, rel=1e-4, abs=1e-4)


def test_concentration_is_the_sum_of_squared_autocorrelations() -> None:
    weights = drawn(3, 2, 4, 5)
    expected = []
    for filter_ in weights.double():
        squares = 0.0
        for dy in range(-3, 4):
            for dx in range(-4, 5):
                products = 0.0
                for y in range(4):
                    for x in range(5):
                        if 0 <= y + dy < 4 and 0 <= x + dx < 5:
                            products += float((filter_[:, y, x] * filter_[:, y + dy, x + dx]).sum())
                squares += (products / float(filter_.square().sum())) ** 2
        expected.append(squares)
    assert concentration(power_spectrum(weights)).tolist() == pytest.approx(expected, rel=1e-4)


def test_concentration_of_tiny_and_huge_weights() -> None:
    weights = drawn(4, 3, 5, 5)
    expected = concentration(power_spectrum(weights))
    for scale in (1e-15, 1e15):
        found = concentration(power_spectrum(weights * scale))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    assert concentration(power_spectrum(torch.zeros(1, 3, 5, 5))).isnan()


@pytest.mark.parametrize("degrees", [0, 30, 45, 60, 90, 120, 135, 150])
@pytest.mark.parametrize("frequency", [0.15, 0.25, 0.35])
def test_stripes(degrees: int, frequency: float) -> None:
    weights = grating(11, frequency, degrees)[None, None]
    stripes = dominant_stripes(power_spectrum(weights), (11, 11))
    away = (stripes.orientation.item() - degrees) % 180
    assert min(away, 180 - away) < 5
    assert stripes.frequency.item() == pytest.approx(frequency, abs=0.02)


def test_bandwidth_is_that_of_the_window() -> None:
    # The power of a Gaussian window of spread s falls to a half at sqrt(ln 2) / (2 pi s).
    weights = grating(31, 0.25, 90, spread=3)[None, None]
    stripes = dominant_stripes(power_spectrum(weights), (31, 31))
    expected = 2 * math.sqrt(math.log(2)) / (2 * math.pi * 3)
    assert stripes.bandwidth.item() == pytest.approx(expected, rel=0.15)


def test_a_blob_has_no_orientation_and_one_pixel_nothing() -> None:
    blob = dominant_stripes(power_spectrum(grating(7, 0.0, 0, spread=1.5)[None, None]), (7, 7))
    assert blob.frequency.item() == 0
    assert blob.orientation.isnan()
    assert blob.bandwidth.item() > 0
    for weights in (torch.zeros(1, 3, 5, 5), drawn(1, 3, 1, 1)):
        nothing = dominant_stripes(power_spectrum(weights), tuple(weights.shape[2:]))
        assert all(number.isnan().all() for number in nothing)

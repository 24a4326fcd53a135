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


def slow_stripes(filter_: Tensor) -> tuple[float, float, float]:
    """Frequency, orientation and bandwidth: sums written out, and a lobe that is walked."""
    _, height, width = filter_.shape
    power = {}
    for down in range(32):
        for across in range(32):
            waves = torch.tensor(
                [
                    [cmath.exp(-2j * math.pi * (y * down + x * across) / 32) for x in range(width)]
                    for y in range(height)
                ]
            )
            total = (filter_ * waves).sum((1, 2)).abs().square().sum()
            power[down, across] = total.item()
    top = max(power, key=power.__getitem__)

    def wrapped(steps: int) -> int:
        return (steps + 16) % 32 - 16

    def near(step: tuple[int, int]) -> bool:
        from_image = sum(wrapped(2 * t + s) ** 2 for t, s in zip(top, step, strict=True))
        return sum(s**2 for s in step) <= from_image

    def at(step: tuple[int, int]) -> float:
        return power[(top[0] + step[0]) % 32, (top[1] + step[1]) % 32]

    lobe, ahead = set(), [(0, 0)]
    while ahead:
        y, x = step = ahead.pop()
        if step in lobe or max(abs(y), abs(x)) == 16 or at(step) < at((0, 0)) / 2:
            continue
        lobe.add(step)
        ahead += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    kept = [step for step in lobe if near(step)]
    weight = sum(at(step) for step in kept)
    down, across = (
        (t + sum(at(s) * s[i] for s in kept) / weight + 16) % 32 - 16 for i, t in enumerate(top)
    )
    orientation = math.nan if top == (0, 0) else math.degrees(math.atan2(across, down)) % 180
    return math.hypot(down, across) / 32, orientation, 2 * math.sqrt(len(kept) / math.pi) / 32


@pytest.mark.parametrize("shape", [(6, 3, 5, 5), (6, 1, 4, 6), (6, 2, 7, 7), (6, 3, 3, 3)])
def test_stripes_of_any_filter(shape: tuple[int, ...]) -> None:
    weights = drawn(*shape)
    found = dominant_stripes(power_spectrum(weights), (shape[2], shape[3]))
    for i, filter_ in enumerate(weights):
        frequency, orientation, bandwidth = slow_stripes(filter_)
        assert found.frequency[i].item() == pytest.approx(frequency, abs=1e-4)
        assert found.bandwidth[i].item() == pytest.approx(bandwidth, abs=1e-4)
        assert found.orientation[i].isnan() == math.isnan(orientation)
        if not math.isnan(orientation):
            away = (found.orientation[i].item() - orientation) % 180
            assert min(away, 180 - away) < 0.1


def test_a_second_wave_does_not_bend_the_first() -> None:
    weights = (grating(11, 0.25, 0) + 0.9 * grating(11, 0.25, 90))[None, None]
    stripes = dominant_stripes(power_spectrum(weights), (11, 11))
    assert stripes.frequency.item() == pytest.approx(0.25, abs=0.01)
    assert stripes.orientation.item() == pytest.approx(0, abs=1)
    alone = dominant_stripes(power_spectrum(grating(11, 0.25, 0)[None, None]), (11, 11))
    assert stripes.bandwidth.item() == pytest.approx(alone.bandwidth.item(), rel=0.15)


@pytest.mark.parametrize("frequency", [0.0, 0.05, 0.1, 0.15, 0.25])
def test_frequencies_are_periodic(frequency: float) -> None:
    """A change of sign from pixel to pixel mirrors the axis at 1/4 cycle."""
    low = grating(31, frequency, 90)
    high = low * (1 - 2 * (torch.arange(31) % 2))
    found = [dominant_stripes(power_spectrum(w[None, None]), (31, 31)) for w in (low, high)]
    assert sum(s.frequency.item() for s in found) == pytest.approx(0.5, abs=1e-4)
    assert found[0].bandwidth.item() == pytest.approx(found[1].bandwidth.item())
    assert found[1].orientation.item() == pytest.approx(90)


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

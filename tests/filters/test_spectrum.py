"""Power spectra and dominant stripes against explicit sums and against known gratings."""

import cmath
import math
from pathlib import Path

import pytest
import torch
from forked import run_python
from torch import Tensor

from kernelviz_callback.filters.frequency import frequency_gain
from kernelviz_callback.filters.spectrum import concentration, dominant_stripes, power_spectrum

MEGABYTE = 1 << 20
EXAMINE = """
import sys, time
import torch
from hostile_files import peak_memory
from kernelviz_callback.filters.spectrum import concentration, dominant_stripes, power_spectrum

def examine(*shape):
    power = power_spectrum(torch.randn(shape, dtype=torch.float64))
    return dominant_stripes(power, shape[2:]), concentration(power)

torch.set_num_threads(1)  # waiting threads would count as busy
examine(2, 1, 3, 3)
before, began = peak_memory(), time.process_time()
examine(*map(int, sys.argv[1:]))
print(time.process_time() - began, peak_memory() - before)
"""


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def grating(size: int, frequency: float, degrees: float, spread: float = 3.0) -> Tensor:
    """Return stripes that rise by ``degrees`` from the horizontal, in a Gaussian window."""
    middle = (size - 1) / 2
    y, x = torch.meshgrid(torch.arange(size) - middle, torch.arange(size) - middle, indexing="ij")
    angle = math.radians(degrees)
    # The upward direction is -y, and the wave is perpendicular to its stripes.
    across = x * math.sin(angle) + y * math.cos(angle)
    window = torch.exp(-(x.square() + y.square()) / (2 * spread**2))
    return window * torch.cos(2 * math.pi * frequency * across)


@pytest.mark.parametrize(
    "shape",
    [(2, 3, 3, 3), (3, 1, 4, 2), (1, 2, 5, 7), (2, 5, 1, 1), (2, 2, 17, 16), (1, 2, 1, 373)],
)
def test_power_equals_an_explicit_sum(shape: tuple[int, ...]) -> None:
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
def test_stripes_of_a_grating(degrees: int, frequency: float) -> None:
    weights = grating(11, frequency, degrees)[None, None]
    stripes = dominant_stripes(power_spectrum(weights), (11, 11))
    away = (stripes.orientation.item() - degrees) % 180
    assert min(away, 180 - away) < 5
    assert stripes.frequency.item() == pytest.approx(frequency, abs=0.02)


def slow_stripes(filter_: Tensor, fine: tuple[int, int]) -> tuple[float, float, float]:
    """Compute frequency, orientation and bandwidth with explicit sums and a flood fill."""
    _, height, width = filter_.shape
    power = {}
    for down in range(fine[0]):
        for across in range(fine[1]):
            turns = down / fine[0], across / fine[1]
            waves = torch.tensor(
                [
                    [cmath.exp(-2j * math.pi * (y * turns[0] + x * turns[1])) for x in range(width)]
                    for y in range(height)
                ]
            )
            total = (filter_ * waves).sum((1, 2)).abs().square().sum()
            power[down, across] = total.item()
    top = max(power, key=power.__getitem__)

    def near(step: tuple[int, int]) -> bool:
        from_image = [(2 * t + s) / m for t, s, m in zip(top, step, fine, strict=True)]
        from_top = [s / m for s, m in zip(step, fine, strict=True)]
        return sum(f**2 for f in from_top) <= sum((f - round(f)) ** 2 for f in from_image)

    def at(step: tuple[int, int]) -> float:
        return power[(top[0] + step[0]) % fine[0], (top[1] + step[1]) % fine[1]]

    lobe, ahead = set(), [(0, 0)]
    while ahead:
        y, x = step = ahead.pop()
        is_round = any(2 * abs(s) >= m for s, m in zip(step, fine, strict=True))
        if step in lobe or is_round or at(step) < at((0, 0)) / 2:
            continue
        lobe.add(step)
        ahead += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    kept = [step for step in lobe if near(step)]
    weight = sum(at(step) for step in kept)
    down, across = (
        (t + sum(at(s) * s[i] for s in kept) / weight) / fine[i] for i, t in enumerate(top)
    )
    down, across = ((f + 0.5) % 1 - 0.5 for f in (down, across))
    orientation = math.nan if top == (0, 0) else math.degrees(math.atan2(across, down)) % 180
    area = len(kept) / (fine[0] * fine[1])
    bandwidth = area if 1 in fine else 2 * math.sqrt(area / math.pi)
    return math.hypot(down, across), orientation, bandwidth


@pytest.mark.parametrize(
    ("shape", "fine"),
    [
        ((6, 3, 5, 5), (32, 32)),
        ((6, 1, 4, 6), (32, 32)),
        ((6, 2, 7, 7), (32, 32)),
        ((6, 3, 3, 3), (32, 32)),
        ((2, 1, 3, 20), (32, 64)),
        ((6, 2, 1, 9), (1, 128)),
        ((6, 1, 5, 1), (64, 1)),
    ],
)
def test_stripes_of_random_filters(shape: tuple[int, ...], fine: tuple[int, int]) -> None:
    weights = drawn(*shape)
    found = dominant_stripes(power_spectrum(weights), (shape[2], shape[3]))
    for i, filter_ in enumerate(weights):
        frequency, orientation, bandwidth = slow_stripes(filter_, fine)
        assert found.frequency[i].item() == pytest.approx(frequency, abs=1e-4)
        assert found.bandwidth[i].item() == pytest.approx(bandwidth, abs=1e-4)
        assert found.orientation[i].isnan() == math.isnan(orientation)
        if not math.isnan(orientation):
            away = (found.orientation[i].item() - orientation) % 180
            assert min(away, 180 - away) < 0.1


def test_a_second_wave_does_not_change_the_stripes_of_the_first() -> None:
    weights = (grating(11, 0.25, 0) + 0.9 * grating(11, 0.25, 90))[None, None]
    stripes = dominant_stripes(power_spectrum(weights), (11, 11))
    assert stripes.frequency.item() == pytest.approx(0.25, abs=0.01)
    assert stripes.orientation.item() == pytest.approx(0, abs=1)
    alone = dominant_stripes(power_spectrum(grating(11, 0.25, 0)[None, None]), (11, 11))
    assert stripes.bandwidth.item() == pytest.approx(alone.bandwidth.item(), rel=0.15)


@pytest.mark.parametrize("frequency", [0.0, 0.05, 0.1, 0.15, 0.25])
def test_frequencies_are_periodic(frequency: float) -> None:
    """Alternating the signs of pixels maps the frequency f to 1/2 - f."""
    low = grating(31, frequency, 90)
    high = low * (1 - 2 * (torch.arange(31) % 2))
    found = [dominant_stripes(power_spectrum(w[None, None]), (31, 31)) for w in (low, high)]
    assert sum(s.frequency.item() for s in found) == pytest.approx(0.5, abs=1e-4)
    assert found[0].bandwidth.item() == pytest.approx(found[1].bandwidth.item())
    assert found[1].orientation.item() == pytest.approx(90)


def test_the_bandwidth_equals_that_of_the_window() -> None:
    # The power of a Gaussian window of spread s falls to a half at sqrt(ln 2) / (2 pi s).
    weights = grating(31, 0.25, 90, spread=3)[None, None]
    stripes = dominant_stripes(power_spectrum(weights), (31, 31))
    expected = 2 * math.sqrt(math.log(2)) / (2 * math.pi * 3)
    assert stripes.bandwidth.item() == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("taps", [31, 63, 127, 251])
def test_the_frequency_of_a_row_or_column_is_the_peak_of_its_gain(taps: int) -> None:
    frequencies = torch.tensor([0.12, 0.2, 0.25, 0.31, 0.36, 0.43])
    waves = torch.cos(2 * math.pi * frequencies[:, None] * torch.arange(taps))
    weights = (waves * torch.hann_window(taps, periodic=False))[:, None]
    gain = frequency_gain(weights)
    peak = gain.argmax(1) * 0.5 / (gain.shape[1] - 1)
    step = 0.5 / (gain.shape[1] - 1)
    found = dominant_stripes(power_spectrum(weights[:, :, None]), (1, taps))
    torch.testing.assert_close(found.frequency, peak, rtol=0, atol=step)
    torch.testing.assert_close(found.frequency, frequencies, rtol=0, atol=0.1 / taps)
    column = dominant_stripes(power_spectrum(weights[..., None]), (taps, 1))
    torch.testing.assert_close(column.frequency, found.frequency)
    torch.testing.assert_close(column.bandwidth, found.bandwidth)
    assert (found.orientation.round() == 90).all()
    assert (column.orientation.round() % 180 == 0).all()


@pytest.mark.parametrize("taps", [16, 63, 251, 1024])
def test_the_bandwidth_of_a_row_falls_with_its_length(taps: int) -> None:
    """It is 0.89 cycles per kernel for a rectangle, 1.44 for a Hann window: Harris, table I."""
    wave = torch.cos(2 * math.pi * 0.25 * torch.arange(taps) + 0.7)
    windowed = wave * torch.hann_window(taps, periodic=False)
    weights = torch.stack([wave, windowed])[:, None, None]
    found = dominant_stripes(power_spectrum(weights), (1, taps))
    # The first value of the window is zero, so its kernel has one weight less.
    periods = found.bandwidth * torch.tensor([taps, taps - 1])
    assert periods.tolist() == pytest.approx([0.89, 1.44], abs=0.15)


@pytest.mark.parametrize("size", [31, 51])
def test_the_frequency_of_a_large_kernel(size: int) -> None:
    frequencies = torch.tensor([0.2, 0.25, 0.36, 0.41])
    weights = torch.stack([grating(size, f, 90, spread=size) for f in frequencies.tolist()])
    found = dominant_stripes(power_spectrum(weights[:, None]), (size, size))
    torch.testing.assert_close(found.frequency, frequencies, rtol=0, atol=0.15 / size)


@pytest.mark.processes
@pytest.mark.parametrize("shape", [(64, 1, 1, 1024), (64, 1, 1, 4096), (64, 1, 51, 51)])
def test_large_kernels_take_little_time_and_memory(shape: tuple[int, ...]) -> None:
    done = run_python("-c", EXAMINE, *map(str, shape), cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    seconds, taken = map(float, done.stdout.split())
    assert taken < 100 * MEGABYTE
    assert seconds < 1.5


def test_a_blob_has_no_orientation_and_a_1x1_kernel_has_no_stripes() -> None:
    blob = dominant_stripes(power_spectrum(grating(7, 0.0, 0, spread=1.5)[None, None]), (7, 7))
    assert blob.frequency.item() == 0
    assert blob.orientation.isnan()
    assert blob.bandwidth.item() > 0
    for weights in (torch.zeros(1, 3, 5, 5), drawn(1, 3, 1, 1)):
        nothing = dominant_stripes(power_spectrum(weights), tuple(weights.shape[2:]))
        assert all(number.isnan().all() for number in nothing)

"""The limits of the null model against separate simulations."""

import math

import pytest
import torch

from kernelviz_callback import kernel_health
from kernelviz_callback.filters.similarity import similarity
from kernelviz_callback.filters.spectrum import concentration, dominant_stripes, power_spectrum
from kernelviz_callback.health import null_model as null_model_module
from kernelviz_callback.health.null_model import FALSE_ALARM_RATE, null_model, smooth_filters


def normal(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(8, 1, 3, 3), (32, 1, 3, 3), (16, 3, 3, 3)])
def test_the_largest_cosine_of_random_filters(shape: tuple[int, int, int, int]) -> None:
    limit = null_model(shape).largest_cosine
    layers = normal(4000, *shape)
    exceeded = 0
    for weights in layers:
        exceeded += (similarity(weights).nearest_cosine.max() > limit).item()
    # A third of the rate for a layer. The tolerance is four standard deviations of the count.
    expected = 4000 * FALSE_ALARM_RATE / 3
    assert abs(exceeded - expected) < 4 * math.sqrt(expected)


@pytest.mark.parametrize("kernel", [(1, 5, 5), (3, 7, 7), (64, 3, 3)])
def test_noise_is_distinguished_from_smooth_filters(kernel: tuple[int, int, int]) -> None:
    null = null_model((8, *kernel))
    noise = concentration(power_spectrum(normal(1000, *kernel)))
    assert (noise <= null.noise_concentration).float().mean() > 0.95
    assert null.can_detect_noise
    generator = torch.Generator().manual_seed(11)
    for stripes in (True, False):
        smooth = smooth_filters(500, *kernel, stripes=stripes, generator=generator)
        assert (
            concentration(power_spectrum(smooth)) <= null.noise_concentration
        ).float().mean() < (0.05)


@pytest.mark.parametrize("taps", [16, 64])
def test_noise_is_detected_in_kernels_with_one_row_or_column(taps: int) -> None:
    row, column = (null_model((8, 1, *kernel)) for kernel in ((1, taps), (taps, 1)))
    assert row.can_detect_noise
    assert column.can_detect_noise
    generator = torch.Generator().manual_seed(5)
    frequency, phase, spread = torch.rand(3, 500, 1, 1, 1, generator=generator)
    t = torch.arange(taps) - (taps - 1) / 2
    wave = torch.cos(2 * math.pi * (1 / taps + (0.3 - 1 / taps) * frequency) * t + 7 * phase)
    gabor = wave * torch.exp(-0.5 * (t / taps / (0.18 + 0.17 * spread)).square())
    gabor = gabor / gabor.square().mean((1, 2, 3), keepdim=True).sqrt()
    noisy = gabor + 0.1 * normal(500, 1, 1, taps)
    found = concentration(power_spectrum(noisy)) > row.noise_concentration
    assert found.float().mean() > 0.95


@pytest.mark.parametrize("kernel", [(1, 63), (63, 1)])
def test_stripes_of_kernels_with_one_row_or_column_vary_along_it(kernel: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(5)
    stripes = smooth_filters(500, 1, *kernel, stripes=True, generator=generator)
    frequency = dominant_stripes(power_spectrum(stripes), kernel).frequency
    assert frequency.min() > 0.5 / 63
    assert frequency.max() < 0.31
    assert frequency.mean().item() == pytest.approx((1 / 63 + 0.3) / 2, abs=0.015)
    # A blob has a width of 0.18 to 0.35 kernels. The width of its power is smaller by the factor
    # sqrt(1/2), and smaller still at the ends of a kernel.
    blobs = smooth_filters(500, 1, *kernel, stripes=False, generator=generator).flatten(1).square()
    t = torch.arange(63.0)
    middle = (blobs @ t / blobs.sum(1))[:, None]
    spread = ((blobs * (t - middle).square()).sum(1) / blobs.sum(1)).sqrt() / 63
    assert 0.15 < spread.median().item() < 0.2


def test_shapes_that_are_too_small_for_a_limit() -> None:
    assert not null_model((64, 3, 3, 3)).can_detect_noise
    assert not null_model((64, 3, 1, 1)).can_detect_noise
    assert math.isnan(null_model((1, 3, 5, 5)).largest_cosine)
    assert math.isnan(null_model((8, 1, 1, 1)).largest_cosine)
    assert math.isnan(null_model((8, 1, 5, 5), groups=8).largest_cosine)


def test_the_null_model_is_computed_once_for_a_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    null = null_model((10, 2, 5, 5), 1)
    monkeypatch.setattr(null_model_module, "_norm_limits", None)
    monkeypatch.setattr(null_model_module, "noise_limits", None)
    assert null_model((10, 2, 5, 5), 1) is null
    kernel_health(normal(10, 2, 5, 5))
    with pytest.raises(TypeError):
        null_model((11, 2, 5, 5))


def test_the_global_random_state_does_not_change() -> None:
    null_model.cache_clear()
    before = torch.get_rng_state()
    null_model((9, 2, 5, 5))
    assert torch.equal(torch.get_rng_state(), before)

"""The yardstick: closed forms against simulations of their own."""

import math

import pytest
import torch

from kernelviz_callback import kernel_health
from kernelviz_callback import null_model as room
from kernelviz_callback.null_model import FALSE_ALARM_RATE, null_model, smooth_filters
from kernelviz_callback.similarity import similarity
from kernelviz_callback.spectrum import concentration, power_spectrum


def normal(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(8, 1, 3, 3), (32, 1, 3, 3), (16, 3, 3, 3)])
def test_the_largest_cosine_of_random_filters(shape: tuple[int, int, int, int]) -> None:
    limit = null_model(shape).largest_cosine
    layers = normal(4000, *shape)
    exceeded = 0
    for weights in layers:
        exceeded += (similarity(weights).nearest_cosine.max() > limit).item()
    # A third of the layer's rate; four standard deviations of the count.
    expected = 4000 * FALSE_ALARM_RATE / 3
    assert abs(exceeded - expected) < 4 * math.sqrt(expected)


@pytest.mark.parametrize("kernel", [(1, 5, 5), (3, 7, 7), (64, 3, 3)])
def test_noise_and_what_is_not(kernel: tuple[int, int, int]) -> None:
    null = null_model((8, *kernel))
    noise = concentration(power_spectrum(normal(1000, *kernel)))
    assert (noise <= null.noise_concentration).float().mean() > 0.95
    assert null.knows_noise
    generator = torch.Generator().manual_seed(11)
    for stripes in (True, False):
        smooth = smooth_filters(500, *kernel, stripes=stripes, generator=generator)
        assert (
            concentration(power_spectrum(smooth)) <= null.noise_concentration
        ).float().mean() < (0.05)


def test_what_is_too_small_to_tell() -> None:
    assert not null_model((64, 3, 3, 3)).knows_noise
    assert not null_model((64, 3, 1, 1)).knows_noise
    assert math.isnan(null_model((1, 3, 5, 5)).largest_cosine)
    assert math.isnan(null_model((8, 1, 1, 1)).largest_cosine)
    assert math.isnan(null_model((8, 1, 5, 5), groups=8).largest_cosine)


def test_it_is_computed_once_a_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    null = null_model((10, 2, 5, 5), 1)
    monkeypatch.setattr(room, "_norm_limits", None)
    monkeypatch.setattr(room, "_noise_limits", None)
    assert null_model((10, 2, 5, 5), 1) is null
    kernel_health(normal(10, 2, 5, 5))
    with pytest.raises(TypeError):
        null_model((11, 2, 5, 5))


def test_the_global_generators_are_left_alone() -> None:
    null_model.cache_clear()
    before = torch.get_rng_state()
    null_model((9, 2, 5, 5))
    assert torch.equal(torch.get_rng_state(), before)

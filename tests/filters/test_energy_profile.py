"""The energy profile of a layer against that of gradient descent on real photographs."""

import pytest
import torch
from skimage import data
from torch import Tensor

from kernelviz_callback.filters.energy_profile import (
    CHANCE_RATE,
    LEAST_COMPONENTS,
    energy_profile,
    expected_profile,
)
from kernelviz_callback.filters.patches import Patches, measure_patches


@pytest.fixture(scope="module")
def patches() -> Patches:
    photo = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None].float() / 255
    return measure_patches(photo, (5, 5), stride=(2, 2), padding=[(0, 0), (0, 0)], dilation=(1, 1))


def descend(patches: Patches, filters: int, steps: int) -> tuple[Tensor, float]:
    """Fit linear filters to random targets by plain gradient descent from zero.

    Returns:
        The filters, and the training time tau: the number of steps times the learning rate.
    """
    rows = patches.sample[0].double() - patches.mean[0]
    targets = torch.randn(len(rows), filters, generator=torch.Generator().manual_seed(1)).double()
    rate = 0.5 / patches.components.variances[0].item()
    squares, products = rows.T @ rows / len(rows), rows.T @ targets / len(rows)
    weights = torch.zeros(rows.shape[1], filters, dtype=torch.float64)
    for _ in range(steps):
        weights -= rate * (squares @ weights - products)  # the gradient of the squared error
    return weights.T.reshape(filters, 3, 5, 5), steps * rate


@pytest.mark.parametrize("steps", [100, 3000])
def test_gradient_descent_gives_the_expected_profile(patches: Patches, steps: int) -> None:
    weights, tau = descend(patches, 256, steps)
    found = energy_profile(weights, patches)
    assert found.learned > 0.99
    expected = expected_profile(patches, tau)
    correlation = torch.corrcoef(torch.stack([found.expected, expected]))[0, 1]
    assert correlation > 0.999
    whitening = -torch.expm1(-tau * patches.components.variances).mean().item()
    assert found.whitening == pytest.approx(whitening, abs=0.03)


def test_random_layers_exceed_the_chance_level_as_rarely_as_it_says(patches: Patches) -> None:
    generator = torch.Generator().manual_seed(2)
    layers = torch.randn(400, 32, 3, 5, 5, generator=generator)
    found = [energy_profile(weights, patches) for weights in layers]
    assert len({profile.chance for profile in found}) == 1
    share = sum(profile.learned > profile.chance for profile in found) / len(found)
    assert share == pytest.approx(CHANCE_RATE, abs=0.025)
    assert found[0].chance < 0.5


def test_the_energy_is_the_mean_square_along_each_component(patches: Patches) -> None:
    weights = torch.randn(7, 3, 5, 5)
    covariance = patches.sample[0].double().T.cov()
    variances, directions = torch.linalg.eigh(covariance)
    expected = [
        torch.stack([(w.flatten().double() @ u) ** 2 for w in weights]).mean().sqrt()
        for u in directions.flip(1).T[:3]
    ]
    sampled = Patches(patches.mean, covariance[None], patches.sample, patches.count)
    found = energy_profile(weights, sampled)
    torch.testing.assert_close(found.energy[:3], torch.stack(expected))
    torch.testing.assert_close(sampled.components.variances, variances.flip(0))


def test_filters_with_nan_are_left_out(patches: Patches) -> None:
    weights = torch.randn(7, 3, 5, 5)
    expected = energy_profile(weights, patches).energy
    broken = torch.cat([weights, torch.full((1, 3, 5, 5), torch.nan)])
    torch.testing.assert_close(energy_profile(broken, patches).energy, expected)


def test_the_scale_of_the_data_changes_nothing_but_tau(patches: Patches) -> None:
    weights = torch.randn(16, 3, 5, 5)
    large = Patches(
        patches.mean * 255, patches.covariance * 255**2, patches.sample * 255, patches.count
    )
    found, expected = energy_profile(weights, large), energy_profile(weights, patches)
    assert found.learned == pytest.approx(expected.learned)
    assert found.chance == pytest.approx(expected.chance)


def test_few_components_and_constant_data_have_no_fit() -> None:
    flat = Patches(torch.ones(1, 25), torch.zeros(1, 25, 25), torch.ones(1, 4, 25), 4)
    found = energy_profile(torch.randn(8, 1, 5, 5), flat)
    assert found.learned != found.learned
    size = LEAST_COMPONENTS - 1
    small = Patches(torch.zeros(1, size), torch.eye(size)[None], torch.ones(1, 4, size), 4)
    assert energy_profile(torch.randn(8, size, 1), small).learned != found.learned

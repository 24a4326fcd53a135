"""Mixtures of channels, against NumPy's singular value decomposition."""

import numpy as np
import pytest
import torch
from torch import Tensor

from kernelviz_callback.comparison.shared_plane import mix_channels
from kernelviz_callback.filters.principal import principal_planes


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kernel", [(3, 3), (9,), (2, 3, 3)])
@pytest.mark.parametrize("channels", [5, 40])
def test_mixtures_are_sums_weighted_by_the_left_singular_vector(
    kernel: tuple[int, ...], channels: int
) -> None:
    first, last = drawn(6, channels, *kernel), drawn(6, channels, *kernel, seed=1)
    given = first.clone()
    mixed = mix_channels([first, last])
    shares = []
    for i in range(6):
        matrix = last[i].double().flatten(1).numpy()
        left, values, _ = np.linalg.svd(matrix, full_matrices=False)
        channel_weights = left[:, 0] * (1 if (left[:, 0] @ matrix).sum() > 0 else -1)
        shares.append(values[0] ** 2 / (values**2).sum())
        for weights, tiles in zip((first, last), mixed.layers, strict=True):
            expected = channel_weights @ weights[i].double().flatten(1).numpy()
            assert tiles[i].shape == (1, *kernel)
            assert np.allclose(tiles[i].flatten().numpy(), expected, atol=1e-5)
    assert sorted(shares)[2] == pytest.approx(mixed.explained, rel=1e-4)  # the lower of two middles
    assert (mixed.counts, mixed.is_shared) == ([channels, channels], True)
    assert torch.allclose(mixed.layers[-1], principal_planes(last).planes, atol=1e-5)
    assert torch.equal(first, given)


def test_the_difference_of_mixtures_is_the_mixture_of_the_difference() -> None:
    first, last = drawn(4, 8, 3, 3), drawn(4, 8, 3, 3, seed=1)
    one, two = mix_channels([first, last]).layers
    # Only the last checkpoint decides the channel weights.
    [of_difference, _] = mix_channels([last - first, last]).layers
    assert torch.allclose(two - one, of_difference, atol=1e-5)


@pytest.mark.parametrize("gone", [0.0, torch.nan, torch.inf])
def test_a_filter_missing_in_the_last_checkpoint_is_mixed_as_in_the_latest_with_it(
    gone: float,
) -> None:
    first, then, last = (drawn(4, 8, 3, 3, seed=s) for s in range(3))
    last[2] = gone
    tiles = mix_channels([first, then, last]).layers
    others = mix_channels([first, then]).layers
    assert torch.allclose(tiles[0][2], others[0][2], atol=1e-6)
    assert torch.allclose(tiles[1][2], others[1][2], atol=1e-6)
    assert tiles[2][2].isfinite().all() == (gone == 0)
    assert not torch.allclose(tiles[0][1], others[0][1], atol=1e-2)


def test_layers_with_different_channels_have_separate_mixtures() -> None:
    first, last = drawn(4, 8, 3, 3), drawn(4, 6, 5, 5)
    mixed = mix_channels([first, last])
    for weights, tiles in zip((first, last), mixed.layers, strict=True):
        assert torch.allclose(tiles, principal_planes(weights).planes, atol=1e-5)
    assert mixed.counts == [8, 6]
    note = mixed.note("B")
    assert note is not None
    assert "in this checkpoint, in B: " in note


@pytest.mark.parametrize("shape", [(4, 4, 3, 3), (4, 3, 5), (4, 64, 1, 1), (4, 64, 1)])
def test_layers_that_are_drawn_channel_by_channel_are_unchanged(shape: tuple[int, ...]) -> None:
    weights = drawn(*shape)
    mixed = mix_channels([weights, weights])
    assert all(layer is weights for layer in mixed.layers)
    assert mixed.note("B") is None

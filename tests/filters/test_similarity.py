"""Similarity of filters against slow references, also in blocks and in single precision."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from kernelviz_callback.filters import similarity as similarity_module
from kernelviz_callback.filters.similarity import similarity

SHAPES = [(6, 3, 3, 3), (5, 1, 5, 5), (7, 4, 2, 6), (4, 3, 7, 7), (40, 1, 3, 3)]


def drawn(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(5))
def test_orthogonality_equals_the_published_formula(seed: int) -> None:
    weights = drawn((16, 3, 3, 3), seed) * drawn((1, 1, 3, 3), seed + 9)
    rows = weights.double().numpy().reshape(16, -1)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    expected = 1 - np.abs(rows @ rows.T - np.eye(16)).sum() / (16 * 15)
    assert similarity(weights).orthogonality == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_effective_rank_equals_the_published_formula(shape: tuple[int, ...]) -> None:
    weights = drawn(shape)
    weights[1] = weights[0]
    values = np.linalg.svd(weights.double().numpy().reshape(shape[0], -1), compute_uv=False)
    share = values[values > 1e-9] / values.sum()
    expected = math.exp(-sum(p * math.log(p) for p in share))
    assert similarity(weights).effective_rank == pytest.approx(expected, rel=1e-6)


def test_effective_rank_of_equal_filters_is_one() -> None:
    assert similarity(drawn((1, 3, 5, 5)).repeat(64, 1, 1, 1)).effective_rank == pytest.approx(1)


def test_a_large_layer_has_the_same_numbers_in_single_precision() -> None:
    weights = drawn((160, 800, 3, 3))
    assert weights.numel() > similarity_module._MOST_EXACT_WEIGHTS
    exact = np.linalg.svd(weights.double().numpy().reshape(160, -1), compute_uv=False)
    share = exact / exact.sum()
    expected = math.exp(-sum(p * math.log(p) for p in share))
    assert similarity(weights).effective_rank == pytest.approx(expected, rel=1e-4)


def test_the_nearest_and_the_most_opposite_filter() -> None:
    weights = drawn((6, 3, 5, 5))
    weights[4], weights[5] = 2 * weights[1], -3 * weights[2]
    found = similarity(weights)
    flat = weights.double().numpy().reshape(6, -1)
    for i in range(6):
        cosines = {
            j: flat[i] @ flat[j] / np.linalg.norm(flat[i]) / np.linalg.norm(flat[j])
            for j in range(6)
            if j != i
        }
        # Multiples of a filter have equal cosines, so the indices are not unique.
        assert cosines[int(found.nearest[i])] == pytest.approx(max(cosines.values()))
        assert cosines[int(found.antiphase[i])] == pytest.approx(min(cosines.values()))
        assert found.nearest_cosine[i].item() == pytest.approx(max(cosines.values()))
        assert found.antiphase_cosine[i].item() == pytest.approx(min(cosines.values()))
    assert found.nearest_cosine[1].item() == pytest.approx(1)
    assert found.antiphase_cosine[2].item() == pytest.approx(-1)


def test_filters_of_different_groups_are_not_compared() -> None:
    weights = drawn((1, 2, 3, 3)).repeat(4, 1, 1, 1)
    weights[1::2] += 0.5
    found = similarity(weights, groups=2)
    assert found.nearest.tolist() == [1, 0, 3, 2]
    depthwise = similarity(weights, groups=4)
    assert depthwise.nearest.tolist() == [-1] * 4
    assert depthwise.nearest_cosine.isnan().all()


@pytest.mark.parametrize("groups", [1, 3])
def test_the_size_of_blocks_does_not_change_the_result(
    groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = drawn((30, 3, 3, 3))
    weights[7] = 0
    whole = similarity(weights, groups)
    monkeypatch.setattr(similarity_module, "_MOST_NUMBERS", 4 * 30)
    in_blocks = similarity(weights, groups)
    for one, other in zip(whole[:4], in_blocks[:4], strict=True):
        torch.testing.assert_close(one, other, equal_nan=True)
    assert in_blocks.orthogonality == pytest.approx(whole.orthogonality, abs=1e-12)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_filter_that_is_not_finite_is_left_out(bad: float) -> None:
    weights = drawn((6, 3, 5, 5))
    with_bad = weights.clone()
    with_bad[2, 1, 0, 0] = bad
    others = [0, 1, 3, 4, 5]
    found, expected = similarity(with_bad), similarity(weights[others])
    assert found.nearest[2] == found.antiphase[2] == -1
    assert found.nearest_cosine[2].isnan()
    torch.testing.assert_close(found.nearest_cosine[others], expected.nearest_cosine)
    assert found.orthogonality == pytest.approx(expected.orthogonality, abs=1e-12)
    assert similarity(with_bad).effective_rank == pytest.approx(
        similarity(weights[others]).effective_rank, rel=1e-9
    )


def test_a_filter_of_zeros_has_no_nearest_filter() -> None:
    weights = drawn((4, 1, 3, 3))
    weights[1] = 0
    found = similarity(weights)
    assert found.nearest[1] == -1
    assert 1 not in found.nearest
    rows = weights.double().flatten(1)
    rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-30)
    expected = 1 - (rows @ rows.T - torch.eye(4)).abs().sum().item() / 12
    assert found.orthogonality == pytest.approx(expected, abs=1e-6)


def test_a_filter_outside_candidates_is_not_nearest_but_has_a_nearest_filter() -> None:
    weights = drawn((6, 3, 5, 5))
    weights[4] = 1e-3 * weights[1]
    weights[5] = weights[1] + 0.1 * weights[2]
    assert similarity(weights).nearest[1] == 4
    found = similarity(weights, candidates=torch.arange(6) != 4)
    assert found.nearest[1] == 5
    assert found.nearest[4] == 1
    assert 4 not in found.antiphase
    assert found.orthogonality == similarity(weights).orthogonality


@pytest.mark.parametrize("shape", [(16, 3, 7, 7), (40, 1, 3, 3), (600, 1, 3, 3)])
def test_very_strong_and_very_weak_filters_can_be_compared(shape: tuple[int, ...]) -> None:
    weights = drawn(shape)
    expected = similarity(weights)
    weights[3] *= 1e20
    weights[4] *= 1e-25
    found = similarity(weights)
    torch.testing.assert_close(found.nearest_cosine, expected.nearest_cosine)
    assert found.effective_rank == pytest.approx(1)


@pytest.mark.parametrize("weights", [torch.zeros(3, 1, 2, 2), drawn((1, 1, 2, 2))])
def test_a_layer_without_two_filters_to_compare(weights: Tensor) -> None:
    found = similarity(weights)
    assert math.isnan(found.orthogonality)
    assert (found.nearest == -1).all()
    assert found.antiphase_cosine.isnan().all()

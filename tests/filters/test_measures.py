"""Each measure of filters against an independent slow reference, written from its formula."""

import math
import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from kernelviz_callback.filters import measures

SHAPES = [(6, 3, 3, 3), (5, 1, 5, 5), (7, 4, 2, 6), (4, 3, 7, 7), (40, 1, 3, 3)]


def drawn(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def neighbour_pairs(kernel: np.ndarray) -> list[tuple[float, float]]:
    height, width = kernel.shape
    pairs = []
    for y in range(height):
        for x in range(width):
            if x + 1 < width:
                pairs.append((kernel[y, x], kernel[y, x + 1]))
            if y + 1 < height:
                pairs.append((kernel[y, x], kernel[y + 1, x]))
    return pairs


def slow_autocorrelation(filter_: np.ndarray) -> float:
    products, variance = 0.0, 0.0
    for kernel in filter_:
        centred = kernel - kernel.mean()
        pairs = neighbour_pairs(centred)
        products += sum(a * b for a, b in pairs) / len(pairs)
        variance += kernel.var()
    return products / variance


def slow_roughness(filter_: np.ndarray) -> float:
    pairs = [pair for kernel in filter_ for pair in neighbour_pairs(kernel)]
    return sum((a - b) ** 2 for a, b in pairs) / sum(a * a + b * b for a, b in pairs)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("fast", "slow"),
    [
        (measures.autocorrelation, slow_autocorrelation),
        (measures.roughness, slow_roughness),
        (measures.filter_norms, lambda f: math.sqrt(sum(w * w for w in f.flatten()))),
    ],
)
def test_measures_equal_their_formulas(
    shape: tuple[int, ...], fast: Callable, slow: Callable
) -> None:
    weights = drawn(shape)
    expected = [slow(filter_) for filter_ in weights.double().numpy()]
    assert fast(weights).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_sparsity_equals_the_published_formula(shape: tuple[int, ...]) -> None:
    weights = drawn(shape)
    weights[0, 0] *= 1e-3
    largest = weights.abs().max()
    expected = [
        sum(float(kernel.abs().max()) < 0.01 * float(largest) for kernel in filter_) / shape[1]
        for filter_ in weights
    ]
    assert measures.sparsity(weights).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", [(16, 3, 3, 3), (4, 2, 1, 30), (9, 1, 3, 3)])
def test_variance_entropy_equals_the_published_formula(shape: tuple[int, ...], seed: int) -> None:
    weights = drawn(shape, seed) * drawn((1, 1, *shape[2:]), seed + 9)
    kernels = weights.double().numpy().reshape(shape[0] * shape[1], -1)
    values = np.linalg.svd(kernels - kernels.mean(0), compute_uv=False) ** 2
    share = values / values.sum()
    expected = -sum(p * math.log10(p) for p in share if p > 0)
    assert measures.variance_entropy(weights) == pytest.approx(expected, abs=1e-6)


def test_variance_entropy_of_long_kernels_takes_little_time() -> None:
    weights = drawn((64, 1, 1, 8192))
    began = time.thread_time()
    assert measures.variance_entropy(weights) == pytest.approx(math.log10(63), abs=0.01)
    assert time.thread_time() - began < 1


def test_colour_selectivity() -> None:
    red_green = torch.tensor([1.0, -1.0, 0.0])
    blue_yellow = torch.tensor([1.0, 1.0, -2.0])
    grey = torch.ones(3)
    weights = torch.stack([red_green, blue_yellow, grey, red_green + grey, grey * 0])
    selectivity, axis = measures.colour_selectivity(weights[:, :, None, None].expand(-1, -1, 2, 2))
    assert selectivity.tolist() == pytest.approx([1, 1, 0, 0.4, math.nan], abs=1e-6, nan_ok=True)
    assert axis.tolist() == pytest.approx([0, 90, math.nan, 0, math.nan], abs=1e-4, nan_ok=True)
    # A sum of the two axes has an angle between 0 and 90, a difference an angle above 90. The sign
    # of all weights has no effect.
    mixtures = [
        (1, 1, 45),
        (-1, 1, 135),
        (1, -1, 135),
        (math.sqrt(3), 1, 30),
        (-math.sqrt(3), 1, 150),
    ]
    mixed = torch.stack(
        [a * red_green / math.sqrt(2) + b * blue_yellow / math.sqrt(6) for a, b, _ in mixtures]
    )[:, :, None, None]
    for sign in (1, -1):
        _, axis = measures.colour_selectivity(sign * mixed)
        assert axis.tolist() == pytest.approx([degrees for *_, degrees in mixtures], abs=1e-4)
    with pytest.raises(ValueError, match="3 input channels; found 4"):
        measures.colour_selectivity(drawn((2, 4, 3, 3)))


def test_movement_equals_its_formula() -> None:
    now, then = drawn((5, 3, 3, 3), 1), drawn((5, 3, 3, 3), 2)
    then[4] = 0
    moved = measures.movement(now, then)
    for i in range(4):
        a, b = now[i].double().flatten().numpy(), then[i].double().flatten().numpy()
        assert moved.change[i].item() == pytest.approx(np.linalg.norm(a - b), rel=1e-5)
        relative = np.linalg.norm(a - b) / np.linalg.norm(b)
        assert moved.relative[i].item() == pytest.approx(relative, rel=1e-5)
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert moved.cosine[i].item() == pytest.approx(cosine, abs=1e-5)
    assert moved.relative[4].isinf()
    assert moved.cosine[4].isnan()
    drift = np.linalg.norm((now - then).numpy()) / np.linalg.norm(then.numpy())
    assert moved.drift == pytest.approx(drift, rel=1e-5)


def test_movement_of_weights_whose_squares_are_not_float32_numbers() -> None:
    now, then = drawn((5, 3, 3, 3), 1), drawn((5, 3, 3, 3), 2)
    expected = measures.movement(now, then)
    for scale in (1e-25, 1e25):
        found = measures.movement(now * scale, then * scale)
        torch.testing.assert_close(found.cosine, expected.cosine)
        torch.testing.assert_close(found.relative, expected.relative)
        assert found.drift == pytest.approx(expected.drift, rel=1e-5)


def test_a_constant_kernel_has_no_roughness_and_no_autocorrelation() -> None:
    weights = torch.full((1, 3, 5, 5), 0.3)
    assert measures.autocorrelation(weights).isnan()
    assert measures.roughness(weights) == 0


def test_dead_filters_and_one_exploding_filter_do_not_change_the_typical_norm() -> None:
    norms = torch.ones(20)
    norms[:12] = 1e-4
    norms[19] = 1e6
    assert measures.relative_norms(norms)[12:19].tolist() == [1.0] * 7
    assert measures.relative_norms(torch.zeros(3)).isnan().all()
    assert measures.relative_norms(torch.tensor([1.0, torch.nan]))[0] == 1


def test_largest_magnitude_ignores_values_that_are_not_finite() -> None:
    values = torch.tensor(
        [[1.0, -4.0], [torch.nan, 2.0], [torch.inf, -1.0], [torch.nan, torch.inf]]
    )
    assert measures.largest_magnitude(values).tolist() == [4.0, 2.0, 1.0, 0.0]


def slow_relative_norms(norms: list[float]) -> list[float]:
    ascending = sorted(norms)
    strong = ascending[(len(norms) - 1) - math.ceil((len(norms) - 1) / 10)]
    typical = [norm for norm in ascending if norm > 0.1 * strong]
    return [norm / statistics.median(typical) for norm in norms]


@given(
    exponents=st.lists(st.floats(-3, 3), min_size=1, max_size=40),
    dead=st.integers(0, 40),
)
def test_relative_norms_equal_their_definition(exponents: list[float], dead: int) -> None:
    norms = [10**e for e in exponents]
    norms[:dead] = [1e-9 * norm for norm in norms[:dead]]
    found = measures.relative_norms(torch.tensor(norms, dtype=torch.float64))
    assert found.tolist() == pytest.approx(slow_relative_norms(norms), rel=1e-9)


def test_six_of_eight_filters_may_die_or_one_may_explode() -> None:
    norms = torch.tensor([1e-6] * 6 + [1.0] * 2)
    assert (measures.relative_norms(norms) < 0.1).tolist() == [True] * 6 + [False] * 2
    norms = torch.tensor([1e-6] * 7 + [1.0])
    assert measures.relative_norms(norms).tolist() == pytest.approx([1] * 7 + [1e6])


@given(scale=st.floats(-36, 36).map(lambda e: 10**e), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_the_scale_of_the_weights_does_not_change_the_measures(scale: float, seed: int) -> None:
    weights = drawn((6, 3, 5, 5), seed).double()
    for measure in (
        measures.autocorrelation,
        measures.roughness,
        measures.sparsity,
        lambda w: measures.relative_norms(measures.filter_norms(w)),
        lambda w: measures.colour_selectivity(w)[0],
        lambda w: torch.tensor(measures.variance_entropy(w)),
    ):
        torch.testing.assert_close(measure(weights * scale), measure(weights), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_filter_that_is_not_finite_does_not_change_the_measures_of_others(bad: float) -> None:
    weights = drawn((6, 3, 5, 5))
    with_bad = weights.clone()
    with_bad[2, 1, 0, 0] = bad
    others = [0, 1, 3, 4, 5]
    for measure in (measures.autocorrelation, measures.roughness, measures.sparsity):
        assert torch.equal(measure(with_bad)[others], measure(weights)[others])

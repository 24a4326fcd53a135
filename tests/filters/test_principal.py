"""Principal planes against LAPACK's singular value decomposition of each filter."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from kernelviz_callback.filters.float64 import float64_blocks
from kernelviz_callback.filters.principal import principal_planes


def by_svd(weights: Tensor) -> tuple[np.ndarray, np.ndarray]:
    planes, explained = [], []
    for matrix in weights.double().flatten(2).numpy():
        _, values, rows = np.linalg.svd(matrix, full_matrices=False)
        plane = rows[0] * values[0]
        planes.append(plane if plane.sum() >= 0 else -plane)
        explained.append(values[0] ** 2 / (values**2).sum())
    return np.array(planes).reshape(len(weights), 1, *weights.shape[2:]), np.array(explained)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "shape",
    [(8, 64, 3, 3), (3, 2, 5, 5), (4, 25, 5, 5), (5, 6, 1, 7), (2, 9, 1, 1), (300, 128, 3, 3)],
    ids=str,
)
def test_a_plane_is_the_first_term_of_the_svd(shape: tuple[int, ...]) -> None:
    weights = drawn(*shape)
    before = weights.clone()
    found = principal_planes(weights.requires_grad_())
    planes, explained = by_svd(before)
    np.testing.assert_allclose(found.planes, planes, atol=2e-6 * np.abs(planes).max())
    np.testing.assert_allclose(found.explained, explained, rtol=1e-6)
    least = 1 / min(shape[1], shape[2] * shape[3])
    assert (found.explained >= least).all()
    assert (found.explained <= 1).all()
    assert torch.equal(weights, before)
    assert not found.planes.requires_grad


def test_planes_do_not_depend_on_blocks() -> None:
    weights = drawn(300, 128, 3, 3)
    assert len(list(float64_blocks(weights))) > 1
    whole = principal_planes(weights)
    separate = [principal_planes(weights[i : i + 1]) for i in (0, 150, 299)]
    for i, one in zip((0, 150, 299), separate, strict=True):
        torch.testing.assert_close(whole.planes[i], one.planes[0])


def test_no_other_pattern_is_a_better_approximation() -> None:
    weights = drawn(4, 16, 3, 3)
    found = principal_planes(weights)
    for filter_, plane in zip(weights.double(), found.planes.double(), strict=True):
        matrix = filter_.flatten(1)

        def error_of(pattern: Tensor, matrix: Tensor = matrix) -> float:
            shares = matrix @ pattern / pattern.square().sum()
            return (matrix - shares[:, None] * pattern).square().sum().item()

        best = error_of(plane.flatten())
        others = drawn(500, 9, seed=1).double()
        nearby = plane.flatten() + 0.05 * drawn(500, 9, seed=2).double()
        assert best <= min(map(error_of, [*others, *nearby])) + 1e-9


@pytest.mark.parametrize("size", [1, 3, 7])
def test_the_plane_of_one_channel_is_the_kernel_up_to_its_sign(size: int) -> None:
    weights = drawn(6, 1, size, size)
    found = principal_planes(weights)
    expected = weights * weights.sum((1, 2, 3)).sign()[:, None, None, None]
    torch.testing.assert_close(found.planes, expected)
    torch.testing.assert_close(found.explained, torch.ones(6))


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**31))
def test_planes_follow_the_order_of_filters_but_not_of_channels(n, channels, size, seed) -> None:
    weights = drawn(n, channels, size, size, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    found = principal_planes(weights)
    order = torch.randperm(n, generator=generator)
    torch.testing.assert_close(principal_planes(weights[order]).planes, found.planes[order])
    torch.testing.assert_close(principal_planes(weights * 3).planes, found.planes * 3)
    # The order and the signs of the channels do not change the sign of the plane.
    shuffled = weights[:, torch.randperm(channels, generator=generator)]
    signs = torch.randint(2, (channels,), generator=generator)[:, None, None] * 2.0 - 1
    found_again = principal_planes(shuffled * signs)
    values = torch.linalg.svdvals(weights.double().flatten(2))
    is_unique = values[:, 1:2].sum(1) < 0.99 * values[:, 0]
    kept = is_unique & (found.planes.sum((1, 2, 3)).abs() > 1e-3)
    torch.testing.assert_close(found_again.planes[kept], found.planes[kept], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shift", range(4))
def test_a_plane_that_sums_to_zero_has_a_stable_sign(shift: int) -> None:
    """The weights of an edge sum to zero up to rounding errors, which must not decide the sign."""
    edge = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    shares = drawn(1, 8, 1, 1, seed=shift)
    weights = shares * edge
    for sign in (1, -1):
        for noise in range(10):
            near = sign * weights * (1 + 1e-8 * drawn(1, 8, 3, 3, seed=noise))
            plane = principal_planes(near).planes[0, 0]
            assert plane[1, 2] > 0 > plane[1, 0]


def test_a_plane_keeps_its_sign_while_the_filter_changes() -> None:
    torch.manual_seed(0)
    pattern, shares = torch.rand(3, 3) - 0.2, torch.randn(64, 1, 1)
    weights = shares * pattern
    previous = principal_planes(weights[None]).planes
    for _ in range(200):
        weights = weights + 0.02 * torch.randn(64, 3, 3)
        plane = principal_planes(weights[None]).planes
        assert (plane * previous).sum() > 0
        previous = plane


def test_a_filter_of_zeros_has_a_zero_plane() -> None:
    found = principal_planes(torch.cat([torch.zeros(1, 5, 3, 3), torch.ones(1, 5, 3, 3)]))
    assert (found.planes[0] == 0).all()
    assert found.explained[0].isnan()
    assert found.explained[1] == 1


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_plane_is_nan_where_a_weight_is_not_finite(bad: float) -> None:
    weights = drawn(3, 8, 3, 3)
    clean = principal_planes(weights)
    weights[1, 4, 2, 0] = bad
    found = principal_planes(weights)
    is_bad = found.planes.isnan()
    assert is_bad[1, 0, 2, 0]
    assert is_bad.sum() == 1
    assert found.explained.isnan().tolist() == [False, True, False]
    weights[1, 4, 2, 0] = 0
    finite = principal_planes(weights).planes[1]
    torch.testing.assert_close(found.planes[1][~is_bad[1]], finite[~is_bad[1]])
    for i in (0, 2):
        assert torch.equal(found.planes[i], clean.planes[i])


@pytest.mark.parametrize("size", [1e-25, 1e-12, 1e12, 1e30])
def test_weights_whose_squares_are_not_float32_numbers(size: float) -> None:
    weights = drawn(4, 16, 3, 3)
    found, usual = principal_planes(weights * size), principal_planes(weights)
    torch.testing.assert_close(found.planes / size, usual.planes)
    torch.testing.assert_close(found.explained, usual.explained)


@pytest.mark.parametrize("values", [torch.zeros(3, 3), torch.zeros(0, 3, 3, 3)])
def test_weights_of_another_shape_are_refused(values: Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected filters of shape \(N, C, kH, kW\)"):
        principal_planes(values)

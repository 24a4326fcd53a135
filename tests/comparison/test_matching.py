"""Match filters, compared with brute force and NumPy."""

from itertools import permutations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kernelviz_callback.comparison.matching import (
    Layer,
    assign,
    chance_correlation,
    chance_cosine,
    cosines,
    has_same_order,
    mean_matched,
    response_correlations,
)
from kernelviz_callback.model.convolutions import Geometry
from kernelviz_callback.probe.probe import load_probe

PLAIN = Geometry("Conv2d", (1, 1), (0, 0), (1, 1), 1)


def test_cosines_agree_with_a_slow_loop() -> None:
    torch.manual_seed(0)
    ones, others = torch.randn(5, 2, 3, 4), torch.randn(7, 2, 3, 4)
    found = cosines(ones, others)
    for i, a in enumerate(ones.double().numpy()):
        for j, b in enumerate(others.double().numpy()):
            slow = (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())
            assert found[i, j].item() == pytest.approx(slow, abs=1e-6)


def test_cosines_of_zero_and_non_finite_filters_are_zero() -> None:
    ones = torch.ones(4, 1, 2, 2)
    ones[1], ones[2], ones[3] = 0, torch.nan, 1e30
    given = ones.clone()
    found = cosines(ones, ones)
    assert found[1].eq(0).all()
    assert found[2].eq(0).all()
    assert found[0, 3].item() == pytest.approx(1)
    assert torch.equal(ones.nan_to_num(), given.nan_to_num())


def test_cosines_of_different_shapes_are_an_error() -> None:
    with pytest.raises(ValueError, match="compare their responses"):
        cosines(torch.ones(2, 3, 3, 3), torch.ones(2, 3, 5, 5))


@pytest.mark.parametrize(("rows", "columns"), [(5, 5), (4, 6), (6, 4)])
def test_the_assignment_is_the_best_of_all_orders(rows: int, columns: int) -> None:
    similarity = torch.rand(rows, columns, generator=torch.Generator().manual_seed(1))
    partner = assign(similarity)
    paired = partner >= 0
    assert paired.sum() == min(rows, columns)
    assert len(set(partner[paired].tolist())) == int(paired.sum())
    wide = similarity if rows <= columns else similarity.T
    best = max(
        sum(wide[i, p].item() for i, p in enumerate(order))
        for order in permutations(range(wide.shape[1]), wide.shape[0])
    )
    assert similarity[paired, partner[paired]].sum().item() == pytest.approx(best)
    assert mean_matched(similarity) == pytest.approx(best / min(rows, columns))


def test_random_similarities_rarely_count_as_the_same_order() -> None:
    generator = torch.Generator().manual_seed(2)
    random = [torch.randn(16, 16, generator=generator) for _ in range(3000)]
    assert sum(map(has_same_order, random)) <= 1  # 3000 / 30,000


def test_the_limit_agrees_with_all_permutations() -> None:
    """The order is the same by Hoeffding's formula, or if no order is much better."""
    similarity = torch.rand(6, 6, generator=torch.Generator().manual_seed(3)).double() - 0.5
    seen = set()
    for lift in np.linspace(0, 3, 101):
        lifted = similarity + lift * torch.eye(6, dtype=torch.float64)
        sums = np.array([lifted[range(6), list(o)].sum().item() for o in permutations(range(6))])
        trace = lifted.trace().item()
        expected = trace > sums.mean() + 4.0 * sums.std() or trace >= 0.95 * sums.max() > 0
        assert has_same_order(lifted) == expected
        seen.add(expected)
    assert seen == {False, True}


def test_one_training_is_distinguished_from_another(gabor: torch.Tensor) -> None:
    torch.manual_seed(4)
    first = torch.randn(32, 3, 5, 5)
    later = 0.2 * first + torch.randn_like(first)
    assert has_same_order(cosines(first, later))
    assert not has_same_order(cosines(first, later[torch.randperm(32)]))
    assert has_same_order(cosines(gabor[:3], gabor[:3]))
    assert not has_same_order(cosines(gabor[:3], gabor[:3].flip(0)))


def test_response_correlations_agree_with_numpy() -> None:
    torch.manual_seed(5)
    probe = load_probe(torch.rand(3, 40, 36))
    ones, others = torch.randn(3, 3, 5, 5), torch.randn(4, 3, 5, 5)
    found = response_correlations(Layer(ones, PLAIN), Layer(others, PLAIN), probe)
    pictures = [F.conv2d(probe.image[None], w)[0].flatten(1).numpy() for w in (ones, others)]
    slow = np.corrcoef(*pictures)[:3, 3:]
    assert np.allclose(found.numpy(), slow, atol=1e-4)


def test_padding_a_kernel_does_not_change_its_responses() -> None:
    torch.manual_seed(6)
    small = torch.randn(4, 3, 3, 3)
    large = F.pad(small, (2, 2, 2, 2))
    found = response_correlations(
        Layer(small, PLAIN), Layer(large, PLAIN), load_probe(torch.rand(3, 50, 50))
    )
    assert torch.allclose(found.diagonal(), torch.ones(4), atol=1e-4)
    assert torch.equal(assign(found), torch.arange(4))


def test_grey_and_colour_layers_are_compared_on_the_same_scene() -> None:
    torch.manual_seed(7)
    grey = torch.randn(4, 1, 5, 5)
    luminance = torch.tensor([0.2989, 0.587, 0.114])[None, :, None, None]
    colour = grey * luminance
    found = response_correlations(Layer(grey, PLAIN), Layer(colour, PLAIN), load_probe(size=64))
    assert torch.allclose(found.diagonal(), torch.ones(4), atol=1e-3)


def test_chance_agrees_with_numpy() -> None:
    from scipy.optimize import linear_sum_assignment

    rng = np.random.default_rng(0)
    found = []
    for _ in range(20):
        a, b = rng.standard_normal((2, 32, 75))
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
        found.append((a @ b.T)[linear_sum_assignment(a @ b.T, maximize=True)].mean())
    ours = chance_cosine((32, 3, 5, 5), (32, 3, 5, 5))
    assert ours == pytest.approx(np.mean(found), abs=4 * np.std(found))
    torch.manual_seed(8)
    real = [torch.randn(32, 3, 5, 5) for _ in range(2)]
    assert mean_matched(cosines(*real)) == pytest.approx(ours, abs=0.05)


def test_chance_does_not_change_the_random_state_of_the_user() -> None:
    torch.manual_seed(9)
    before = torch.get_rng_state()
    layer = (8, 3, 3, 3), PLAIN
    chance = chance_correlation(layer, layer, load_probe(size=48))
    assert torch.equal(before, torch.get_rng_state())
    assert 0.2 < chance < 1
    chance_cosine.cache_clear()
    chance_cosine((8, 3, 3, 3), (8, 3, 3, 3))
    assert torch.equal(before, torch.get_rng_state())

"""Which snapshots of a training are shown, which filters of them, and what is read for it."""

from collections import Counter
from itertools import pairwise
from math import log

import pytest
import torch
from hypothesis import given, strategies as st
from reels import drawn, gathered

from kernelviz_callback.drawing.animation.caption import caption_lines
from kernelviz_callback.drawing.animation.sampling import (
    MOST_ROWS,
    Reading,
    film_steps,
    gather_reels,
)

STEPS = st.lists(st.integers(0, 10**7), min_size=1, max_size=60)


@given(STEPS, st.integers(1, 30))
def test_as_many_steps_as_may_be_with_the_first_and_the_last(steps: list[int], most: int) -> None:
    chosen = film_steps(steps, most)
    assert len(chosen) == min(most, len(set(steps)))
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(steps)
    assert chosen[-1] == max(steps)
    assert chosen[0] == min(steps) or most == 1


@given(STEPS, st.integers(2, 30))
def test_steps_are_those_nearest_to_equal_ratios(steps: list[int], most: int) -> None:
    """A naive twin: the nearest that leaves room for those before it and after."""
    ordered = sorted(set(steps))
    if len(ordered) <= most:
        assert film_steps(steps, most) == ordered
        return
    start, end = log(ordered[0] + 1), log(ordered[-1] + 1)
    previous = -1
    for k, step in enumerate(film_steps(steps, most)):
        target = start + (end - start) * k / (most - 1)
        places = range(previous + 1, len(ordered) - most + k + 1)
        distance = {place: abs(log(ordered[place] + 1) - target) for place in places}
        previous = ordered.index(step)
        assert distance[previous] == pytest.approx(min(distance.values()), abs=1e-9)


def test_the_early_steps_of_a_long_run_are_denser() -> None:
    chosen = film_steps(range(0, 1_000_001, 10), most=12)
    gaps = [later - earlier for earlier, later in pairwise(chosen)]
    assert gaps == sorted(gaps)
    assert gaps[0] < 100 < 500_000 < gaps[-1]


def test_of_ten_thousand_snapshots_few_are_read_and_each_once() -> None:
    read: Counter[int] = Counter()

    def reading(step: int) -> Reading:
        read[step] += 1
        return Reading(None, {"a": drawn(2, 3, 5, 5), "b": drawn(4, 1, 3, 3)})

    reels = gather_reels(range(10_000), reading)
    assert set(read.values()) == {1}
    assert len(read) == 24
    assert [shot.step for shot in reels["a"].shots] == sorted(read)
    assert [reel.taken for reel in reels.values()] == [10_000, 10_000]


@pytest.mark.parametrize("broken", [{0}, {99}, {3, 15}, {0, 1, 98, 99}, set(range(1, 99))])
def test_another_takes_the_place_of_what_cannot_be_read(broken: set[int]) -> None:
    said: list[int] = []

    def reading(step: int) -> Reading:
        if step in broken:
            raise (ValueError if step % 2 else OSError)("damaged")
        return Reading(None, {"conv": torch.full((1, 1, 1, 1), float(step))})

    reel = gather_reels(
        range(100), reading, most=8, on_unread=lambda step, error: said.append(step)
    )["conv"]
    whole = sorted(set(range(100)) - broken)
    assert [shot.step for shot in reel.shots] == film_steps(sorted({*range(100)} - {*said}), 8)
    assert reel.shots[0].step == whole[0]
    assert reel.shots[-1].step == whole[-1]
    assert all(shot.weights.item() == shot.step for shot in reel.shots)
    assert len(said) == len(set(said)) == reel.unread
    assert set(said) <= broken


def test_nothing_that_can_be_read_is_no_reel() -> None:
    def damaged(step: int) -> Reading:
        raise ValueError

    assert gather_reels([1, 2, 3], damaged) == {}
    assert gather_reels([], damaged) == {}


def test_a_layer_that_was_another_is_shown_from_where_it_is_the_last_one() -> None:
    weights = {0: drawn(4, 3, 3, 3), 5: drawn(8, 3, 3, 3), 9: drawn(8, 3, 3, 3)}
    reel = gathered(weights)
    assert [shot.step for shot in reel.shots] == [5, 9]
    assert reel.cut.shape == (8, 3, 3, 3)


def test_of_too_many_filters_those_that_went_furthest_are_kept() -> None:
    first = drawn(2 * MOST_ROWS, 3, 3, 3)
    moved = torch.randperm(len(first), generator=torch.Generator().manual_seed(1))[:MOST_ROWS]
    last = first + 1e-3
    last[moved] += 1
    last[moved[0]] = torch.nan
    reel = gathered({0: first, 7: first, 9: last})
    assert list(reel.cut.filters) == sorted(moved.tolist())
    assert torch.equal(reel.shots[1].weights, first[sorted(moved.tolist())])


@pytest.mark.parametrize(
    ("shape", "filters", "channels"),
    [
        ((64, 3, 7, 7), 64, 3),
        ((2048, 3, 7, 7), 128, 3),
        ((768, 3, 16, 16), 48, 3),
        ((512, 512, 3, 3), 128, 1),
        ((512, 64, 1, 1), 128, 4),
        ((4, 2, 224, 224), 1, 1),
        ((16, 1, 1, 1), 16, 1),
    ],
)
def test_what_is_kept_of_a_snapshot_is_bounded(
    shape: tuple[int, ...], filters: int, channels: int
) -> None:
    reel = gathered({0: torch.zeros(shape), 1: torch.ones(shape)})
    assert reel.shots[0].weights.shape == (filters, channels, *shape[2:])


def test_shots_are_copies_and_readings_are_left_alone() -> None:
    weights = {0: drawn(4, 3, 3, 3), 1: drawn(4, 3, 3, 3, seed=1)}
    before = {step: values.clone() for step, values in weights.items()}
    reel = gathered(weights)
    reel.shots[0].weights.zero_()
    assert all(torch.equal(weights[step], before[step]) for step in weights)


def test_one_scale_spans_all_shots() -> None:
    weights = {s: drawn(5, 3, 3, 3, seed=s) * (1 + s) for s in range(6)}
    weights[3][2] = torch.inf
    stacked = torch.stack(list(weights.values()))
    finite = stacked.where(stacked.isfinite(), 0).abs()
    reel = gathered(weights)
    assert torch.equal(reel.half_ranges("filter"), finite.amax((0, 2, 3, 4)))
    assert torch.equal(reel.half_ranges("layer"), finite.amax().expand(5))


def test_a_shot_that_diverged_does_not_end_the_colours() -> None:
    weights = {step: drawn(4, 3, 3, 3, seed=step) for step in range(6)}
    usual = gathered(weights).half_ranges("filter")
    assert gathered(weights).clipped is None
    weights[6] = weights[5] * 1e21
    diverged = gathered(weights)
    assert torch.equal(diverged.half_ranges("filter"), usual)
    assert diverged.clipped == (6, pytest.approx(weights[6].abs().max().item()))
    size = f"{weights[6].abs().max().item():.2g}"
    assert f"clipped: the largest |weight| at step 6 reaches {size}" in caption_lines(
        diverged, "film", shown=7
    )
    weights[6] = weights[5] * 100
    assert gathered(weights).clipped is None
    assert gathered({0: torch.zeros(4, 3, 3, 3), 1: torch.zeros(4, 3, 3, 3)}).clipped is None

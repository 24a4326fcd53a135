"""Which snapshots of a training are chosen, and how often each is read."""

from collections import Counter
from itertools import pairwise
from math import log

import pytest
import torch
from filter_sequences import drawn, sequence_of
from hypothesis import given, strategies as st

from kernelviz_callback.drawing.animation.caption import caption_lines
from kernelviz_callback.drawing.animation.sampling import Reading, choose_steps, read_sequences
from kernelviz_callback.filters.principal import principal_planes

STEPS = st.lists(st.integers(0, 10**7), min_size=1, max_size=60)


@given(STEPS, st.integers(1, 30))
def test_as_many_steps_as_possible_are_chosen_with_the_first_and_the_last(
    steps: list[int], most: int
) -> None:
    chosen = choose_steps(steps, most)
    assert len(chosen) == min(most, len(set(steps)))
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(steps)
    assert chosen[-1] == max(steps)
    assert chosen[0] == min(steps) or most == 1


@given(STEPS, st.integers(2, 30))
def test_chosen_steps_are_nearest_to_equal_ratios(steps: list[int], most: int) -> None:
    """A naive reference: the nearest step that leaves room for those before and after it."""
    ordered = sorted(set(steps))
    if len(ordered) <= most:
        assert choose_steps(steps, most) == ordered
        return
    start, end = log(ordered[0] + 1), log(ordered[-1] + 1)
    previous = -1
    for k, step in enumerate(choose_steps(steps, most)):
        target = start + (end - start) * k / (most - 1)
        places = range(previous + 1, len(ordered) - most + k + 1)
        distance = {place: abs(log(ordered[place] + 1) - target) for place in places}
        previous = ordered.index(step)
        assert distance[previous] == pytest.approx(min(distance.values()), abs=1e-9)


def test_early_steps_of_a_long_training_are_denser() -> None:
    chosen = choose_steps(range(0, 1_000_001, 10), most=12)
    gaps = [later - earlier for earlier, later in pairwise(chosen)]
    assert gaps == sorted(gaps)
    assert gaps[0] < 100 < 500_000 < gaps[-1]


def test_few_of_ten_thousand_snapshots_are_read_each_once() -> None:
    read: Counter[int] = Counter()

    def reading(step: int) -> Reading:
        read[step] += 1
        return Reading(None, {"a": drawn(2, 3, 5, 5), "b": drawn(4, 1, 3, 3)})

    sequences = read_sequences(range(10_000), reading)
    assert set(read.values()) == {1}
    assert len(read) == 24
    assert [frame.step for frame in sequences["a"].frames] == sorted(read)
    assert [sequence.available for sequence in sequences.values()] == [10_000, 10_000]


@pytest.mark.parametrize("broken", [{0}, {99}, {3, 15}, {0, 1, 98, 99}, set(range(1, 99))])
def test_another_snapshot_replaces_one_that_cannot_be_read(broken: set[int]) -> None:
    unreadable: list[int] = []

    def reading(step: int) -> Reading:
        if step in broken:
            raise (ValueError if step % 2 else OSError)("damaged")
        return Reading(None, {"conv": torch.full((1, 1, 1, 1), float(step))})

    sequence = read_sequences(
        range(100), reading, most=8, on_unreadable=lambda step, error: unreadable.append(step)
    )["conv"]
    whole = sorted(set(range(100)) - broken)
    remaining = sorted({*range(100)} - {*unreadable})
    assert [frame.step for frame in sequence.frames] == choose_steps(remaining, 8)
    assert sequence.frames[0].step == whole[0]
    assert sequence.frames[-1].step == whole[-1]
    assert all(frame.weights.item() == frame.step for frame in sequence.frames)
    assert len(unreadable) == len(set(unreadable)) == sequence.unreadable
    assert set(unreadable) <= broken


def test_there_is_no_sequence_if_no_snapshot_can_be_read() -> None:
    def damaged(step: int) -> Reading:
        raise ValueError

    assert read_sequences([1, 2, 3], damaged) == {}
    assert read_sequences([], damaged) == {}


def test_frames_of_another_shape_are_left_out() -> None:
    weights = {0: drawn(4, 3, 3, 3), 5: drawn(8, 3, 3, 3), 9: drawn(8, 3, 3, 3)}
    sequence = sequence_of(weights)
    assert [frame.step for frame in sequence.frames] == [5, 9]
    assert sequence.crop.shape == (8, 3, 3, 3)


def test_frames_are_copies_of_the_weights() -> None:
    weights = {0: drawn(4, 3, 3, 3), 1: drawn(4, 3, 3, 3, seed=1)}
    before = {step: values.clone() for step, values in weights.items()}
    sequence = sequence_of(weights)
    sequence.frames[0].weights.zero_()
    assert all(torch.equal(weights[step], before[step]) for step in weights)


def test_all_frames_share_one_scale() -> None:
    weights = {s: drawn(5, 3, 3, 3, seed=s) * (1 + s) for s in range(6)}
    weights[3][2] = torch.inf
    stacked = torch.stack(list(weights.values()))
    finite = stacked.where(stacked.isfinite(), 0).abs()
    sequence = sequence_of(weights)
    assert torch.equal(sequence.half_ranges("filter"), finite.amax((0, 2, 3, 4)))
    assert torch.equal(sequence.half_ranges("layer"), finite.amax().expand(5))


def test_a_diverged_frame_does_not_widen_the_scale() -> None:
    weights = {step: drawn(4, 3, 3, 3, seed=step) for step in range(6)}
    usual = sequence_of(weights).half_ranges("filter")
    assert sequence_of(weights).clipped is None
    weights[6] = weights[5] * 1e21
    diverged = sequence_of(weights)
    assert torch.equal(diverged.half_ranges("filter"), usual)
    assert diverged.clipped == (6, pytest.approx(weights[6].abs().max().item()))
    size = f"{weights[6].abs().max().item():.2g}"
    assert f"clipped: the largest |weight| at step 6 reaches {size}" in caption_lines(
        diverged, "film", shown=7
    )
    weights[6] = weights[5] * 100
    assert sequence_of(weights).clipped is None
    assert sequence_of({0: torch.zeros(4, 3, 3, 3), 1: torch.zeros(4, 3, 3, 3)}).clipped is None


def test_a_thinned_sequence_keeps_the_chosen_steps() -> None:
    sequence = sequence_of({step: drawn(2, 1, 3, 3, seed=step) for step in range(20)})
    thin = sequence.thin_out(5)
    assert [frame.step for frame in thin.frames] == choose_steps(range(20), 5)
    assert (thin.layer, thin.crop, thin.available) == ("conv", sequence.crop, 20)


def _turning(filters: int = 6, channels: int = 12) -> dict[int, torch.Tensor]:
    """Make filters that move slowly, each of one pattern whose sum crosses zero again and again."""
    generator = torch.Generator().manual_seed(5)
    shares = torch.randn(filters, channels, 1, 1, generator=generator)
    pattern = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    return {step: shares * (pattern + 0.05 * (-1) ** step) for step in range(20)}


def test_principal_planes_keep_the_signs_of_the_snapshot_before() -> None:
    weights = _turning()
    alone = [principal_planes(w).planes for w in weights.values()]
    assert sum((a * b).sum() < 0 for a, b in pairwise(alone)) == 19, "each alone changes its sign"
    sequence = sequence_of(weights)
    frames = [frame.weights for frame in sequence.frames]
    for before, after in pairwise(frames):
        assert ((before * after).flatten(1).sum(1) > 0).all()
    assert torch.equal(frames[-1], alone[-1]), "the last frame is the picture of the last snapshot"
    for frame, own in zip(frames, alone, strict=True):
        assert torch.equal(frame.abs(), own.abs())


@pytest.mark.parametrize("between", [0.0, torch.nan])
def test_signs_survive_a_snapshot_without_a_plane(between: float) -> None:
    weights = _turning()
    weights[7] = torch.full_like(weights[7], between)
    frames = [frame.weights for frame in sequence_of(weights).frames]
    for before, after in pairwise(frames[:7] + frames[8:]):
        assert ((before * after).flatten(1).sum(1) > 0).all()

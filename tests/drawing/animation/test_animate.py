"""The animation, decoded and held against the weights, frame by frame."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from reels import drawn, gathered, noise
from torch import Tensor

from kernelviz_callback.drawing.animation.animate import durations, evolution_gif, moving_pictures
from kernelviz_callback.drawing.animation.frame import Stage
from kernelviz_callback.drawing.animation.gif import CLEAR, encode_gif, fitted_palette, numbers_of
from kernelviz_callback.drawing.animation.sampling import Reel
from kernelviz_callback.drawing.animation.strip import MOST_BYTES
from kernelviz_callback.drawing.colour import diverging, to_levels

MAGENTA = [255, 0, 255]


def decoded(content: bytes) -> list[np.ndarray]:
    """The frames as a browser shows them, (H, W, 3)."""
    image = Image.open(io.BytesIO(content))
    frames = []
    for number in range(getattr(image, "n_frames", 1)):
        image.seek(number)
        frames.append(np.asarray(image.convert("RGB")).astype(int))
    return frames


def stage_of(reel: Reel, **options: Any) -> Stage:
    steps = [shot.step for shot in reel.shots]
    return Stage(reel, steps, reel.half_ranges(), scale="layer", **options)


def kernels_in(frame: np.ndarray, stage: Stage, shape: tuple[int, ...]) -> np.ndarray:
    """The middle pixel of every weight: (filters, planes, kH, kW, 3)."""
    filters, channels, height, width = shape
    planes, zoom = 1 if channels == 3 else channels, stage.zoom
    found = np.zeros((filters, planes, height, width, 3), int)
    for i in range(filters):
        tile = frame[stage.layout.box(i)]
        pitch = (tile.shape[1] + 2) // planes
        for p in range(planes):
            plane = tile[:, p * pitch :][:, : width * zoom]
            found[i, p] = plane[zoom // 2 :: zoom, zoom // 2 :: zoom]
            enlarged = found[i, p].repeat(zoom, 0).repeat(zoom, 1)
            assert np.array_equal(plane, enlarged), "a weight is one colour"
    return found


def colours_of(weights: Tensor, half_range: Tensor) -> np.ndarray:
    levels = to_levels(weights, half_range)
    colours = levels[:, None] if weights.shape[1] == 3 else diverging(levels)
    return colours.movedim(2, -1).numpy().astype(int)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_each_frame_is_the_kernels_within_a_level_of_127(channels: int) -> None:
    weights = {step: drawn(6, channels, 3, 4, seed=step) for step in (0, 1, 5, 30)}
    reel = gathered(weights)
    frames = decoded(evolution_gif(reel))
    half_range = reel.half_ranges()[0]
    assert len(frames) == 4
    for frame, values in zip(frames, weights.values(), strict=True):
        found = kernels_in(frame, stage_of(reel), tuple(values.shape))
        levels = to_levels(values, half_range)
        near = [
            diverging((levels.int() + d).clamp(1, 255).byte()).movedim(2, -1) for d in (-1, 0, 1)
        ]
        error = np.stack([np.abs(found - n.numpy().astype(int)).max(-1) for n in near]).min(0)
        assert error.max() == 0


def test_each_frame_is_the_colours_within_what_a_palette_costs() -> None:
    weights = {step: drawn(64, 3, 7, 7, seed=step) * (1 + step) for step in range(8)}
    reel = gathered(weights)
    frames = decoded(evolution_gif(reel))
    for frame, values in zip(frames, weights.values(), strict=True):
        found = kernels_in(frame, stage_of(reel), tuple(values.shape))
        error = found - colours_of(values, reel.half_ranges()[0])
        assert np.sqrt((error**2).mean()) < 12, "of 255, and of noise"
        assert abs(error.mean()) < 1, "no tint"


def test_few_colours_are_exact_and_grey_stays_grey() -> None:
    grey = drawn(9, 1, 5, 5).expand(-1, 3, -1, -1).clone()
    grey[:, :, 2, 2] = 0
    colourful = drawn(9, 3, 5, 5, seed=1)
    reel = gathered({0: grey, 1: colourful})
    found = kernels_in(decoded(evolution_gif(reel))[0], stage_of(reel), (9, 3, 5, 5))
    assert (found[:, 0, 2, 2] == 128).all()
    assert (found.max(-1) - found.min(-1)).max() <= 8
    assert np.abs(found - colours_of(grey, reel.half_ranges()[0])).max() <= 8


def test_the_frames_loop_and_the_last_one_stays() -> None:
    weights = {step: drawn(4, 3, 3, 3, seed=step) for step in range(20)}
    image = Image.open(io.BytesIO(evolution_gif(gathered(weights))))
    assert image.info["loop"] == 0
    seen = []
    for number in range(image.n_frames):
        image.seek(number)
        seen.append(image.info["duration"])
    assert seen == durations(20)
    assert seen[-1] > 4 * max(seen[:-1])


@given(st.integers(1, 200))
def test_a_training_takes_some_seconds(count: int) -> None:
    assert len(durations(count)) == count
    assert all(each % 10 == 0 for each in durations(count)), "a GIF counts hundredths"
    assert 2000 < sum(durations(count)) < 15_000


def test_the_clock_tells_the_time() -> None:
    steps = [0, 9, 99, 999]
    stage = stage_of(gathered({step: torch.zeros(4, 3, 3, 3) for step in steps}))
    shots = gathered({step: torch.zeros(4, 3, 3, 3) for step in steps}).shots
    filled = [(stage.time(shot)[-7] == 255).mean() for shot in shots]
    assert filled[0] < 0.01
    assert filled[1:] == pytest.approx([1 / 3, 2 / 3, 1], abs=0.01)


def test_what_does_not_change_costs_nothing() -> None:
    weights = drawn(64, 3, 7, 7)
    one = evolution_gif(gathered({0: weights}))
    many = evolution_gif(gathered({step: weights for step in range(24)}))
    assert len(decoded(many)) == 24
    assert len(many) < 1.7 * len(one), "24 clocks"


def test_a_broken_filter_is_striped_in_the_frame_it_breaks_in() -> None:
    weights = {step: drawn(6, 3, 5, 5, seed=step) for step in (0, 3)}
    weights[3][2] = torch.inf
    reel = gathered(weights)
    first, last = decoded(evolution_gif(reel))
    box = stage_of(reel).layout.box(2)
    assert not (first[box] == MAGENTA).all(-1).any()
    striped = (last[box] == MAGENTA).all(-1)
    assert 0.3 < striped.mean() < 0.7
    assert ((last[box] == 0).all(-1) | striped).all()
    assert not (last[stage_of(reel).layout.box(3)] == MAGENTA).all(-1).any()


HOSTILE = [
    (256, 3, 11, 11),
    (2048, 3, 7, 7),
    (512, 512, 3, 3),
    (64, 3, 7, 7),
    (64, 3, 1, 1),
    (2, 3, 224, 224),
]


@pytest.mark.parametrize("shape", HOSTILE, ids=str)
def test_not_even_noise_makes_an_animation_too_large(shape: tuple[int, ...]) -> None:
    content = evolution_gif(noise(*shape, steps=range(24)))
    assert len(content) <= MOST_BYTES
    frames = decoded(content)
    assert 12 <= len(frames) <= 24


@pytest.mark.parametrize("most_bytes", [400_000, 100_000, 20_000])
def test_a_smaller_limit_holds_with_the_first_and_the_last_frame(most_bytes: int) -> None:
    reel = gathered({step: drawn(64, 3, 7, 7, seed=step) for step in range(24)})
    content = evolution_gif(reel, most_bytes=most_bytes)
    assert len(content) <= most_bytes
    frames = decoded(content)
    zoom = next(z for z in range(1, 9) if stage_of(reel, zoom=z).still.shape == frames[0].shape)
    for frame, shot in zip((frames[0], frames[-1]), (reel.shots[0], reel.shots[-1]), strict=True):
        found = kernels_in(frame, stage_of(reel, zoom=zoom), (64, 3, 7, 7))
        error = found - colours_of(shot.weights, reel.half_ranges()[0])
        assert np.sqrt((error**2).mean()) < 8


def test_a_limit_below_one_frame_is_refused() -> None:
    reel = gathered({0: drawn(64, 3, 7, 7), 1: drawn(64, 3, 7, 7, seed=1)})
    with pytest.raises(ValueError, match="conv: expected kernels of which a frame fits in 3000"):
        evolution_gif(reel, most_bytes=3000)


def test_the_same_weights_are_the_same_bytes_and_torch_is_left_alone() -> None:
    reel = gathered({step: drawn(64, 3, 7, 7, seed=step) for step in range(6)})
    state = torch.get_rng_state(), np.random.get_state()[1].tolist(), torch.get_num_threads()
    assert evolution_gif(reel) == evolution_gif(reel)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.random.get_state()[1].tolist() == state[1]
    assert torch.get_num_threads() == state[2]


@given(
    st.lists(st.integers(0, CLEAR - 1), min_size=12, max_size=12),
    st.lists(st.integers(0, CLEAR - 1), min_size=12, max_size=12),
)
@settings(max_examples=30, deadline=None)
def test_frames_are_encoded_without_loss(first: list[int], second: list[int]) -> None:
    palette = np.random.default_rng(0).integers(0, 256, (CLEAR, 3)).astype(np.uint8)
    frames = [np.array(f, np.uint8).reshape(3, 4) for f in (first, first, second)]
    found = decoded(encode_gif(frames, palette, [100, 100, 100]))
    for frame, seen in zip(frames, found, strict=True):
        assert np.array_equal(seen, palette[frame])


def test_a_palette_has_the_fixed_colours_and_the_nearest_is_found() -> None:
    generator = np.random.default_rng(1)
    colours = generator.integers(0, 256, (5000, 3)).astype(np.uint8)
    fixed = generator.integers(0, 256, (20, 3)).astype(np.uint8)
    palette = fitted_palette(colours, fixed)
    assert np.array_equal(palette[:20], fixed)
    distances = ((colours[:, None].astype(int) - palette[None].astype(int)) ** 2).sum(-1)
    numbers = numbers_of(colours, palette)
    assert np.array_equal(distances[np.arange(5000), numbers], distances.min(1))


def test_true_colours_are_exact() -> None:
    """What becomes a video."""
    weights = {step: drawn(5, 3, 4, 4, seed=step) for step in (0, 1, 2)}
    reel = gathered(weights)
    stage = stage_of(reel, is_even=True)
    assert stage.zoom % 2 == 0
    frames = list(moving_pictures(stage, reel.shots, reel.half_ranges()))
    for frame, values in zip(frames, weights.values(), strict=True):
        found = kernels_in(frame, stage, (5, 3, 4, 4))
        assert np.array_equal(found, colours_of(values, reel.half_ranges()[0]))

"""The animation as a GIF: its decoded frames are compared with the weights."""

import io

import numpy as np
import pytest
import torch
from filter_sequences import decoded, drawn, noise_sequence, renderer_of, sequence_of
from hypothesis import given, strategies as st
from PIL import Image
from torch import Tensor

from kernelviz_callback.drawing.animation.animate import durations, evolution_gif, moving_pictures
from kernelviz_callback.drawing.animation.frame import FrameRenderer
from kernelviz_callback.drawing.animation.strip import MOST_BYTES
from kernelviz_callback.drawing.colour import diverging, to_levels

MAGENTA = [255, 0, 255]


def kernels_in(frame: np.ndarray, renderer: FrameRenderer, shape: tuple[int, ...]) -> np.ndarray:
    """Read the middle pixel of every weight: (filters, planes, kH, kW, 3)."""
    filters, channels, height, width = shape
    planes, zoom = 1 if channels == 3 else channels, renderer.zoom
    found = np.zeros((filters, planes, height, width, 3), int)
    for i in range(filters):
        tile = frame[renderer.layout.box(i)]
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
def test_red_and_blue_frames_are_exact_to_one_level_of_127(channels: int) -> None:
    weights = {step: drawn(6, channels, 3, 4, seed=step) for step in (0, 1, 5, 30)}
    sequence = sequence_of(weights)
    frames = decoded(evolution_gif(sequence))
    half_range = sequence.half_ranges()[0]
    assert len(frames) == 4
    for frame, values in zip(frames, weights.values(), strict=True):
        found = kernels_in(frame, renderer_of(sequence), tuple(values.shape))
        levels = to_levels(values, half_range)
        near = [
            diverging((levels.int() + d).clamp(1, 255).byte()).movedim(2, -1) for d in (-1, 0, 1)
        ]
        error = np.stack([np.abs(found - n.numpy().astype(int)).max(-1) for n in near]).min(0)
        assert error.max() == 0


def test_rgb_frames_differ_from_the_kernels_by_the_error_of_a_palette() -> None:
    weights = {step: drawn(64, 3, 7, 7, seed=step) * (1 + step) for step in range(8)}
    sequence = sequence_of(weights)
    frames = decoded(evolution_gif(sequence))
    for frame, values in zip(frames, weights.values(), strict=True):
        found = kernels_in(frame, renderer_of(sequence), tuple(values.shape))
        error = found - colours_of(values, sequence.half_ranges()[0])
        assert np.sqrt((error**2).mean()) < 12, "levels of 255; noise is the worst case"
        assert abs(error.mean()) < 1, "no tint"


def test_zero_is_exact_and_grey_kernels_stay_grey() -> None:
    grey = drawn(9, 1, 5, 5).expand(-1, 3, -1, -1).clone()
    grey[:, :, 2, 2] = 0
    colourful = drawn(9, 3, 5, 5, seed=1)
    sequence = sequence_of({0: grey, 1: colourful})
    found = kernels_in(decoded(evolution_gif(sequence))[0], renderer_of(sequence), (9, 3, 5, 5))
    assert (found[:, 0, 2, 2] == 128).all()
    assert (found.max(-1) - found.min(-1)).max() <= 8
    assert np.abs(found - colours_of(grey, sequence.half_ranges()[0])).max() <= 8


def test_frames_loop_and_the_last_frame_is_shown_longer() -> None:
    weights = {step: drawn(4, 3, 3, 3, seed=step) for step in range(20)}
    image = Image.open(io.BytesIO(evolution_gif(sequence_of(weights))))
    assert image.info["loop"] == 0
    seen = []
    for number in range(image.n_frames):
        image.seek(number)
        seen.append(image.info["duration"])
    assert seen == durations(20)
    assert seen[-1] > 4 * max(seen[:-1])


@given(st.integers(1, 200))
def test_an_animation_takes_some_seconds(count: int) -> None:
    assert len(durations(count)) == count
    assert all(each % 10 == 0 for each in durations(count)), "a GIF counts hundredths of a second"
    assert 2000 < sum(durations(count)) < 15_000


def test_frames_without_changes_add_few_bytes() -> None:
    weights = drawn(64, 3, 7, 7)
    one = evolution_gif(sequence_of({0: weights}))
    many = evolution_gif(sequence_of({step: weights for step in range(24)}))
    assert len(decoded(many)) == 24
    assert len(many) < 1.7 * len(one), "only the 24 time lines are added"


def test_a_non_finite_filter_is_striped_from_the_frame_where_it_appears() -> None:
    weights = {step: drawn(6, 3, 5, 5, seed=step) for step in (0, 3)}
    weights[3][2] = torch.inf
    sequence = sequence_of(weights)
    first, last = decoded(evolution_gif(sequence))
    box = renderer_of(sequence).layout.box(2)
    assert not (first[box] == MAGENTA).all(-1).any()
    striped = (last[box] == MAGENTA).all(-1)
    assert 0.3 < striped.mean() < 0.7
    assert ((last[box] == 0).all(-1) | striped).all()
    assert not (last[renderer_of(sequence).layout.box(3)] == MAGENTA).all(-1).any()


LARGE_SHAPES = [
    (256, 3, 11, 11),
    (2048, 3, 7, 7),
    (512, 512, 3, 3),
    (64, 3, 7, 7),
    (64, 3, 1, 1),
    (2, 3, 224, 224),
]


@pytest.mark.parametrize("shape", LARGE_SHAPES, ids=str)
def test_an_animation_of_noise_keeps_the_size_limit(shape: tuple[int, ...]) -> None:
    content = evolution_gif(noise_sequence(*shape, steps=range(24)))
    assert len(content) <= MOST_BYTES
    frames = decoded(content)
    assert 12 <= len(frames) <= 24


@pytest.mark.parametrize("most_bytes", [400_000, 100_000, 20_000])
def test_a_smaller_size_limit_keeps_the_first_and_the_last_frame(most_bytes: int) -> None:
    sequence = sequence_of({step: drawn(64, 3, 7, 7, seed=step) for step in range(24)})
    content = evolution_gif(sequence, most_bytes=most_bytes)
    assert len(content) <= most_bytes
    frames = decoded(content)
    size = frames[0].shape
    zoom = next(z for z in range(1, 9) if renderer_of(sequence, zoom=z).background.shape == size)
    ends = sequence.frames[0], sequence.frames[-1]
    for picture, frame in zip((frames[0], frames[-1]), ends, strict=True):
        found = kernels_in(picture, renderer_of(sequence, zoom=zoom), (64, 3, 7, 7))
        error = found - colours_of(frame.weights, sequence.half_ranges()[0])
        assert np.sqrt((error**2).mean()) < 8


def test_a_size_limit_below_one_frame_is_an_error() -> None:
    sequence = sequence_of({0: drawn(64, 3, 7, 7), 1: drawn(64, 3, 7, 7, seed=1)})
    with pytest.raises(ValueError, match="conv: expected kernels of which a frame fits in 3000"):
        evolution_gif(sequence, most_bytes=3000)


@pytest.mark.usefixtures("two_threads")
def test_equal_weights_give_equal_bytes_and_global_state_is_unchanged() -> None:
    sequence = sequence_of({step: drawn(64, 3, 7, 7, seed=step) for step in range(6)})
    state = torch.get_rng_state(), np.random.get_state()[1].tolist(), torch.get_num_threads()
    assert evolution_gif(sequence) == evolution_gif(sequence)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.random.get_state()[1].tolist() == state[1]
    assert torch.get_num_threads() == state[2]


def test_pictures_for_video_have_exact_colours() -> None:
    weights = {step: drawn(5, 3, 4, 4, seed=step) for step in (0, 1, 2)}
    sequence = sequence_of(weights)
    renderer = renderer_of(sequence, is_even=True)
    assert renderer.zoom % 2 == 0
    frames = list(moving_pictures(renderer, sequence.frames, sequence.half_ranges()))
    for frame, values in zip(frames, weights.values(), strict=True):
        found = kernels_in(frame, renderer, (5, 3, 4, 4))
        assert np.array_equal(found, colours_of(values, sequence.half_ranges()[0]))

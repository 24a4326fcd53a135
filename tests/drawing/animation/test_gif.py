"""Encoding of GIFs: decoded frames and palettes are compared with slow references."""

import numpy as np
from filter_sequences import decoded
from hypothesis import given, settings, strategies as st

from kernelviz_callback.drawing.animation.gif import (
    CLEAR,
    encode_gif,
    fit_palette,
    palette_indices,
)


@given(
    st.lists(st.integers(0, CLEAR - 1), min_size=12, max_size=12),
    st.lists(st.integers(0, CLEAR - 1), min_size=12, max_size=12),
)
@settings(max_examples=30)
def test_frames_are_encoded_without_loss(first: list[int], second: list[int]) -> None:
    palette = np.random.default_rng(0).integers(0, 256, (CLEAR, 3)).astype(np.uint8)
    frames = [np.array(f, np.uint8).reshape(3, 4) for f in (first, first, second)]
    found = decoded(encode_gif(frames, palette, [100, 100, 100]))
    for frame, seen in zip(frames, found, strict=True):
        assert np.array_equal(seen, palette[frame])


def test_a_palette_has_the_fixed_colours_and_the_nearest_colour_is_found() -> None:
    generator = np.random.default_rng(1)
    colours = generator.integers(0, 256, (5000, 3)).astype(np.uint8)
    fixed = generator.integers(0, 256, (20, 3)).astype(np.uint8)
    palette = fit_palette(colours, fixed)
    assert np.array_equal(palette[:20], fixed)
    distances = ((colours[:, None].astype(int) - palette[None].astype(int)) ** 2).sum(-1)
    indices = palette_indices(colours, palette)
    assert np.array_equal(distances[np.arange(5000), indices], distances.min(1))


def test_few_colours_are_in_the_palette_exactly() -> None:
    colours = np.array([[10, 20, 30], [200, 100, 0]], np.uint8)
    palette = fit_palette(colours.repeat(50, 0), np.array([[0, 0, 0]], np.uint8))
    assert palette.shape == (CLEAR, 3)
    assert np.array_equal(palette[palette_indices(colours, palette)], colours)

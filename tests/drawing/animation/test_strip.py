"""The film strip, frame by frame."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from reels import drawn, gathered, noise
from torch import Tensor

from kernelviz_callback.drawing.animation.caption import caption_lines
from kernelviz_callback.drawing.animation.strip import MOST_BYTES, FilmLayout, film_strip
from kernelviz_callback.drawing.colour import diverging, to_levels
from kernelviz_callback.drawing.encode import to_png
from kernelviz_callback.drawing.picture import Picture

MAGENTA = torch.tensor([255, 0, 255], dtype=torch.uint8)


def frame(picture: Picture, index: int, column: int) -> Tensor:
    assert isinstance(picture.layout, FilmLayout)
    return picture.pixels[picture.layout.frame(index, column)]


def pixels_of(weights: Tensor, half_range: Tensor) -> Tensor:
    """The colours of one filter, not enlarged: (H, W, 3)."""
    levels = to_levels(weights, half_range)
    return levels.permute(1, 2, 0) if len(weights) == 3 else diverging(levels)


@pytest.mark.parametrize("filters", [1, 5, 64, 100])
def test_every_weight_is_found_where_the_layout_says(filters: int) -> None:
    weights = {step: drawn(filters, 3, 5, 4, seed=step) for step in (0, 1, 7, 40)}
    picture = film_strip(gathered(weights))
    largest = torch.stack(list(weights.values())).abs().max()
    assert torch.equal(picture.half_ranges, largest.expand(filters))
    zoom = picture.layout.tile_height // 5
    for i in range(filters):
        for column, values in enumerate(weights.values()):
            expected = pixels_of(values[i], largest).repeat_interleave(zoom, 0)
            expected = expected.repeat_interleave(zoom, 1)
            assert torch.equal(frame(picture, i, column), expected)


@pytest.mark.parametrize(("channels", "shown"), [(1, 1), (2, 2), (4, 4)])
def test_channels_that_are_no_colours_stand_side_by_side(channels: int, shown: int) -> None:
    weights = {step: drawn(6, channels, 3, 3, seed=step) for step in (0, 9)}
    picture = film_strip(gathered(weights), scale="filter")
    zoom = picture.layout.tile_height // 3
    for i in range(6):
        half_range = torch.stack([w[i, :shown] for w in weights.values()]).abs().max()
        assert picture.half_ranges[i] == half_range
        for column, values in enumerate(weights.values()):
            tile = frame(picture, i, column)
            for channel in range(shown):
                left = channel * (3 * zoom + 1)
                plane = tile[zoom // 2 :: zoom, left + zoom // 2 :][:, : 3 * zoom : zoom]
                colours = diverging(to_levels(values[i, channel], half_range)).permute(1, 2, 0)
                assert torch.equal(plane, colours)


def test_of_more_channels_the_pattern_that_tells_most_is_drawn() -> None:
    weights = {step: drawn(6, 64, 3, 3, seed=step) for step in (0, 9)}
    picture = film_strip(gathered(weights), scale="filter")
    zoom = picture.layout.tile_height // 3
    for i in range(6):
        patterns = []
        for values in weights.values():
            _, sizes, vectors = torch.linalg.svd(values[i].flatten(1).double())
            pattern = (sizes[0] * vectors[0]).reshape(3, 3)
            patterns.append(pattern if pattern.sum() > 0 else -pattern)
        half_range = torch.stack(patterns).abs().max().float()
        assert picture.half_ranges[i] == pytest.approx(half_range.item(), rel=1e-5)
        for column, pattern in enumerate(patterns):
            plane = frame(picture, i, column)[zoom // 2 :: zoom, zoom // 2 :: zoom].int()
            colours = diverging(to_levels(pattern.float(), half_range)).permute(1, 2, 0)
            assert (plane - colours.int()).abs().max() <= 3, "one level, where rounding decides"


@given(
    filters=st.integers(1, 128),
    columns=st.integers(1, 12),
    channels=st.sampled_from([1, 2, 3, 5]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
@settings(max_examples=40, deadline=None)
def test_frames_lie_in_the_picture_and_never_on_each_other(
    filters: int, columns: int, channels: int, size: tuple[int, int]
) -> None:
    shots = {10**k: torch.ones(filters, channels, *size) for k in range(columns)}
    picture = film_strip(gathered(shots))
    covered = torch.zeros(picture.pixels.shape[:2], dtype=torch.int)
    count = len(gathered(shots).cut.filters)
    for index in range(count):
        for column in range(columns):
            covered[picture.layout.frame(index, column)] += 1
    assert covered.max() == 1
    layout = picture.layout
    assert covered.sum() == count * columns * layout.tile_height * layout.frame_width
    rows, columns_of_last = layout.box(count - 1)
    assert rows.stop <= picture.pixels.shape[0]
    assert columns_of_last.stop <= picture.pixels.shape[1]


def test_many_rows_are_folded_into_a_picture_about_as_wide_as_high() -> None:
    picture = film_strip(gathered({2**k: drawn(64, 3, 7, 7, seed=k) for k in range(12)}))
    height, width, _ = picture.pixels.shape
    assert 1 / 1.5 < height / width < 1.5
    assert picture.layout.columns == 2
    assert picture.layout.rows == 32


def test_columns_are_the_first_the_last_and_log_spaced_between() -> None:
    weights = {step: torch.full((2, 3, 1, 1), float(step)) for step in range(1000)}
    picture = film_strip(gathered(weights))
    levels = [frame(picture, 0, c)[0, 0, 0].item() for c in range(picture.layout.frames)]
    steps = [(level - 128) / 127 * 999 for level in levels]
    assert len(steps) == 12
    assert steps[0] == 0
    assert steps[-1] == 999
    assert steps[6] < 50 < 500 < steps[-1]


def test_a_broken_filter_is_striped_and_named_and_leaves_the_scale_alone() -> None:
    weights = {step: drawn(6, 3, 5, 5, seed=step) for step in (0, 3)}
    weights[3][2] = torch.nan
    reel = gathered(weights)
    picture = film_strip(reel)
    assert not (frame(picture, 2, 0) == MAGENTA).all(2).any()
    assert (frame(picture, 2, 1) == MAGENTA).all(2).any()
    assert picture.half_ranges.isfinite().all()
    assert "NaN or infinite in 1 of 6 filters (striped magenta): 2" in caption_lines(
        reel, "film", 2
    )


def test_a_single_snapshot_is_a_film_of_one_column() -> None:
    reel = gathered({64: drawn(8, 3, 3, 3)})
    picture = film_strip(reel)
    assert picture.layout.frames == 1
    assert "the only snapshot, step 64" in caption_lines(reel, "film", 1)


def test_the_caption_says_what_is_left_out() -> None:
    reel = gathered({step: drawn(300, 16, 3, 3, seed=step) for step in range(30)})
    assert caption_lines(reel, "film", 12) == [
        "conv film · 128 of 300 filters 16x3x3, those that changed most",
        "12 of 30 snapshots, steps 0 to 29, early ones denser",
        "each tile: the principal plane of 16 channels; red is positive, blue negative, white zero",
    ]


@pytest.mark.parametrize(
    "shape",
    [
        (256, 3, 11, 11),
        (2048, 3, 7, 7),
        (512, 512, 3, 3),
        (64, 3, 7, 7),
        (128, 64, 5, 5),
        (122, 3, 10, 10),
        (2, 3, 224, 224),
        (1, 2, 500, 500),
    ],
    ids=str,
)
def test_not_even_noise_makes_a_film_too_large(shape: tuple[int, ...]) -> None:
    picture = film_strip(noise(*shape, steps=(3**k for k in range(13))))
    assert len(to_png(picture.pixels)) <= MOST_BYTES


def test_the_number_of_the_last_step_is_not_cut_off() -> None:
    steps = [99_990 * k for k in range(12)]
    picture = film_strip(gathered({step: torch.zeros(64, 3, 7, 7) for step in steps}))
    _, columns = picture.layout.frame(63, 11)
    assert columns.stop - columns.start < 7 * len(str(steps[-1])), "or there is nothing to test"
    # The lower of two lines of numbers, in which the last but one stands far to the left.
    lower = picture.pixels[picture.layout.top - 15 : picture.layout.top - 3, columns.start - 12 :]
    written = (lower != picture.pixels[0, 0]).any(2).any(0).nonzero().flatten() - 12
    middle = (columns.stop - columns.start) / 2
    assert abs((written.max() - middle) - (middle - written.min())) <= 3


def test_the_same_weights_are_the_same_film_and_stay_as_they_are() -> None:
    weights = {step: drawn(6, 3, 5, 5, seed=step) for step in range(5)}
    reel = gathered(weights)
    before = [shot.weights.clone() for shot in reel.shots]
    first, second = (film_strip(reel).pixels for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(s.weights, b) for s, b in zip(reel.shots, before, strict=True))

"""The film strip, frame by frame."""

import pytest
import torch
from filter_sequences import drawn, frame_in, noise_sequence, pixels_of, sequence_of
from hypothesis import given, settings, strategies as st

from kernelviz_callback.drawing.animation.caption import caption_lines
from kernelviz_callback.drawing.animation.strip import MOST_BYTES, film_strip
from kernelviz_callback.drawing.colour import diverging, to_levels
from kernelviz_callback.drawing.encode import to_png

MAGENTA = torch.tensor([255, 0, 255], dtype=torch.uint8)


@pytest.mark.parametrize("filters", [1, 5, 64, 100])
def test_every_weight_is_at_the_place_in_the_layout(filters: int) -> None:
    weights = {step: drawn(filters, 3, 5, 4, seed=step) for step in (0, 1, 7, 40)}
    picture = film_strip(sequence_of(weights))
    largest = torch.stack(list(weights.values())).abs().max()
    assert torch.equal(picture.half_ranges, largest.expand(filters))
    zoom = picture.layout.tile_height // 5
    for i in range(filters):
        for column, values in enumerate(weights.values()):
            expected = pixels_of(values[i], largest).repeat_interleave(zoom, 0)
            expected = expected.repeat_interleave(zoom, 1)
            assert torch.equal(frame_in(picture, i, column), expected)


@pytest.mark.parametrize(("channels", "shown"), [(1, 1), (2, 2), (4, 4)])
def test_one_two_or_four_channels_stand_side_by_side(channels: int, shown: int) -> None:
    weights = {step: drawn(6, channels, 3, 3, seed=step) for step in (0, 9)}
    picture = film_strip(sequence_of(weights), scale="filter")
    zoom = picture.layout.tile_height // 3
    for i in range(6):
        half_range = torch.stack([w[i, :shown] for w in weights.values()]).abs().max()
        assert picture.half_ranges[i] == half_range
        for column, values in enumerate(weights.values()):
            tile = frame_in(picture, i, column)
            for channel in range(shown):
                left = channel * (3 * zoom + 1)
                plane = tile[zoom // 2 :: zoom, left + zoom // 2 :][:, : 3 * zoom : zoom]
                colours = diverging(to_levels(values[i, channel], half_range)).permute(1, 2, 0)
                assert torch.equal(plane, colours)


def test_many_channels_are_drawn_as_their_principal_plane() -> None:
    weights = {step: drawn(6, 64, 3, 3, seed=step) for step in (0, 9)}
    picture = film_strip(sequence_of(weights), scale="filter")
    zoom = picture.layout.tile_height // 3
    for i in range(6):
        planes = []
        for values in weights.values():
            _, sizes, vectors = torch.linalg.svd(values[i].flatten(1).double())
            plane_of_filter = (sizes[0] * vectors[0]).reshape(3, 3)
            planes.append(plane_of_filter if plane_of_filter.sum() > 0 else -plane_of_filter)
        if (planes[0] * planes[1]).sum() < 0:  # a film has no plane that turns into its negative
            planes[0] = -planes[0]
        half_range = torch.stack(planes).abs().max().float()
        assert picture.half_ranges[i] == pytest.approx(half_range.item(), rel=1e-5)
        for column, plane_of_filter in enumerate(planes):
            plane = frame_in(picture, i, column)[zoom // 2 :: zoom, zoom // 2 :: zoom].int()
            colours = diverging(to_levels(plane_of_filter.float(), half_range)).permute(1, 2, 0)
            assert (plane - colours.int()).abs().max() <= 3, "one level, by rounding"


@given(
    filters=st.integers(1, 128),
    columns=st.integers(1, 12),
    channels=st.sampled_from([1, 2, 3, 5]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
@settings(max_examples=40)
def test_frames_are_in_the_picture_and_do_not_overlap(
    filters: int, columns: int, channels: int, size: tuple[int, int]
) -> None:
    frames = {10**k: torch.ones(filters, channels, *size) for k in range(columns)}
    picture = film_strip(sequence_of(frames))
    covered = torch.zeros(picture.pixels.shape[:2], dtype=torch.int)
    count = len(sequence_of(frames).crop.filters)
    for index in range(count):
        for column in range(picture.layout.frames):
            covered[picture.layout.frame(index, column)] += 1
    assert covered.max() == 1
    layout = picture.layout
    assert layout.frames == columns or max(size) > 8 * min(size)  # fewer frames of wide kernels
    assert covered.sum() == count * layout.frames * layout.tile_height * layout.frame_width
    rows, columns_of_last = layout.box(count - 1)
    assert rows.stop <= picture.pixels.shape[0]
    assert columns_of_last.stop <= picture.pixels.shape[1]


def test_many_rows_are_folded_into_a_picture_about_as_wide_as_high() -> None:
    picture = film_strip(sequence_of({2**k: drawn(64, 3, 7, 7, seed=k) for k in range(12)}))
    height, width, _ = picture.pixels.shape
    assert 1 / 1.5 < height / width < 1.5
    assert picture.layout.columns == 2
    assert picture.layout.rows == 32


def test_columns_are_the_first_the_last_and_log_spaced_steps_between() -> None:
    weights = {step: torch.full((2, 3, 1, 1), float(step)) for step in range(1000)}
    picture = film_strip(sequence_of(weights))
    levels = [frame_in(picture, 0, c)[0, 0, 0].item() for c in range(picture.layout.frames)]
    steps = [(level - 128) / 127 * 999 for level in levels]
    assert len(steps) == 12
    assert steps[0] == 0
    assert steps[-1] == 999
    assert steps[6] < 50 < 500 < steps[-1]


def test_a_non_finite_filter_is_striped_and_named_and_does_not_change_the_scale() -> None:
    weights = {step: drawn(6, 3, 5, 5, seed=step) for step in (0, 3)}
    weights[3][2] = torch.nan
    sequence = sequence_of(weights)
    picture = film_strip(sequence)
    assert not (frame_in(picture, 2, 0) == MAGENTA).all(2).any()
    assert (frame_in(picture, 2, 1) == MAGENTA).all(2).any()
    assert picture.half_ranges.isfinite().all()
    assert "NaN or infinite in 1 of 6 filters (striped magenta): 2" in caption_lines(
        sequence, "film", 2
    )


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
def test_a_film_of_noise_keeps_the_size_limit(shape: tuple[int, ...]) -> None:
    picture = film_strip(noise_sequence(*shape, steps=(3**k for k in range(13))))
    assert len(to_png(picture.pixels)) <= MOST_BYTES


def test_the_number_of_the_last_step_is_not_cut_off() -> None:
    steps = [99_990 * k for k in range(12)]
    picture = film_strip(sequence_of({step: torch.zeros(64, 3, 7, 7) for step in steps}))
    _, columns = picture.layout.frame(63, 11)
    assert columns.stop - columns.start < 7 * len(str(steps[-1])), (
        "the number must be wider than its column"
    )
    # The lower of the two lines of numbers: its last but one number is far to the left.
    lower = picture.pixels[picture.layout.top - 15 : picture.layout.top - 3, columns.start - 12 :]
    written = (lower != picture.pixels[0, 0]).any(2).any(0).nonzero().flatten() - 12
    middle = (columns.stop - columns.start) / 2
    assert abs((written.max() - middle) - (middle - written.min())) <= 3


def test_equal_weights_give_equal_films_and_are_not_modified() -> None:
    weights = {step: drawn(6, 3, 5, 5, seed=step) for step in range(5)}
    sequence = sequence_of(weights)
    before = [frame.weights.clone() for frame in sequence.frames]
    first, second = (film_strip(sequence).pixels for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(s.weights, b) for s, b in zip(sequence.frames, before, strict=True))


def test_a_single_snapshot_is_a_film_of_one_column() -> None:
    sequence = sequence_of({64: drawn(8, 3, 3, 3)})
    picture = film_strip(sequence)
    assert picture.layout.frames == 1
    assert "the only snapshot, step 64" in caption_lines(sequence, "film", 1)

"""Which filters, channels and slices of a layer are drawn, and how large a frame can be."""

import pytest
import torch
from filter_sequences import drawn, sequence_of

from kernelviz_callback.drawing.animation.crop import (
    MOST_PIXELS,
    MOST_ROWS,
    WIDEST_ROW,
    choose_crop,
)
from kernelviz_callback.filters.planes import as_planes
from kernelviz_callback.filters.principal import principal_planes


def test_the_filters_that_changed_most_are_kept() -> None:
    first = drawn(2 * MOST_ROWS, 3, 3, 3)
    moved = torch.randperm(len(first), generator=torch.Generator().manual_seed(1))[:MOST_ROWS]
    last = first + 1e-3
    last[moved] += 1
    last[moved[0]] = torch.nan
    sequence = sequence_of({0: first, 7: first, 9: last})
    assert list(sequence.crop.filters) == sorted(moved.tolist())
    assert torch.equal(sequence.frames[1].weights, first[sorted(moved.tolist())])


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
def test_the_drawn_part_of_a_snapshot_is_bounded(
    shape: tuple[int, ...], filters: int, channels: int
) -> None:
    sequence = sequence_of({0: torch.zeros(shape), 1: torch.ones(shape)})
    assert sequence.frames[0].weights.shape == (filters, channels, *shape[2:])


@pytest.mark.parametrize(
    ("shape", "kind", "channels", "slices"),
    [
        ((8, 3, 7, 7), "rgb", 3, None),
        ((8, 4, 3, 3), "planes", 4, None),
        ((8, 64, 1, 1), "planes", 4, None),
        ((8, 64, 1), "planes", 4, None),
        ((8, 3, 9), "curve", 3, None),
        ((8, 2, 3, 5, 5), "planes", 2, 3),
        ((8, 3, 100, 5, 5), "rgb", 3, 24),
        ((8, 4, 100, 50, 50), "planes", 4, 1),
    ],
)
def test_the_first_channels_and_slices_are_drawn(
    shape: tuple[int, ...], kind: str, channels: int, slices: int | None
) -> None:
    weights = drawn(*shape)
    crop = choose_crop(None, weights)
    assert (crop.style.kind, crop.style.channels, crop.style.slices) == (kind, channels, slices)
    chosen = weights[list(crop.filters), :channels]
    assert torch.equal(crop.apply(weights), as_planes(chosen[:, :, :slices] if slices else chosen))


@pytest.mark.parametrize("shape", [(6, 16, 3, 3), (6, 16, 9), (6, 16, 2, 3, 3)])
def test_many_channels_are_reduced_to_the_principal_plane(shape: tuple[int, ...]) -> None:
    weights = drawn(*shape)
    crop = choose_crop(None, weights)
    assert crop.style.is_principal
    assert torch.equal(crop.apply(weights), as_planes(principal_planes(weights).planes))


@pytest.mark.parametrize("first", [None, torch.ones(4, 3, 3, 3)])
def test_without_a_comparable_first_snapshot_the_largest_filters_are_kept(
    first: torch.Tensor | None,
) -> None:
    last = torch.full((2 * MOST_ROWS, 1, 3, 3), 0.1)
    last[1::2] = 1.0
    assert choose_crop(first, last).filters == tuple(range(1, 2 * MOST_ROWS, 2))


@pytest.mark.parametrize(
    "shape", [(512, 1, 1024), (64, 3, 300, 3, 3), (2, 2, 40, 100, 100), (768, 3, 16, 16)]
)
def test_pixels_and_rows_are_limited(shape: tuple[int, ...]) -> None:
    crop = choose_crop(None, torch.zeros(1).expand(shape))
    assert crop.pixels <= MOST_PIXELS or len(crop.filters) == crop.style.pictures == 1
    assert len(crop.filters) <= MOST_ROWS
    assert crop.style.pictures == 1 or crop.style.pictures * crop.picture_size[1] <= WIDEST_ROW


def test_a_curve_is_drawn_lower_if_a_tile_has_several() -> None:
    heights = [choose_crop(None, drawn(4, c, 9)).picture_size[0] for c in (1, 2, 4)]
    assert heights == [28, 20, 14]

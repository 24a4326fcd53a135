"""The lines of a grid's caption for each style."""

import pytest
import torch

from kernelviz_callback.drawing.caption_text import (
    kernel_note,
    non_finite_note,
    principal_note,
    response_note,
    scale_note,
)
from kernelviz_callback.drawing.tile_style import response_style, tile_style


@pytest.mark.parametrize(
    ("shape", "shown", "expected"),
    [
        ((8, 3, 5, 5), 3, "RGB = the kernels of input channels 0, 1, 2; grey is zero"),
        ((8, 1, 5, 5), 1, "red is positive, blue negative, white zero"),
        (
            (8, 4, 5, 5),
            4,
            "each row of 4: the kernels of one filter, input channels left to right (4)",
        ),
        (
            (8, 64, 1, 1),
            32,
            "1x1: each row is a filter, its weights for the input channels left to right (32 of "
            "64); red is positive, blue negative, white zero",
        ),
        ((8, 1, 9), 1, "bars are the taps left to right, red above zero, blue below"),
        (
            (8, 2, 9),
            2,
            "each row of 2: the kernels of one filter, input channels left to right (2); bars "
            "are the taps left to right, red above zero, blue below",
        ),
        (
            (8, 3, 4, 5, 5),
            6,
            "each row: the kernels of one filter, slice by slice (2 of 4), RGB = input channels "
            "0, 1, 2; grey is zero",
        ),
        (
            (8, 1, 4, 5, 5),
            4,
            "each row: the kernels of one filter, slice by slice (4); red is positive, blue "
            "negative, white zero",
        ),
        (
            (8, 2, 4, 5, 5),
            8,
            "each row of 8: the kernels of one filter, slice by slice (4), 2 input channels of "
            "each; red is positive, blue negative, white zero",
        ),
    ],
    ids=str,
)
def test_how_to_read_kernels(shape: tuple[int, ...], shown: int, expected: str) -> None:
    assert kernel_note(tile_style(shape), shown) == expected


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((8, 16, 3, 3), "tile = principal plane of 16 channels, explaining 50% of a filter"),
        ((8, 16, 9), "tile = principal 1-D kernel of 16 channels, explaining 50% of a filter"),
        ((8, 16, 2, 3, 3), "tile = principal volume of 16 channels, explaining 50% of a filter"),
    ],
)
def test_how_to_read_principal_planes(shape: tuple[int, ...], expected: str) -> None:
    explained = torch.tensor([0.25, 0.5, torch.nan, 0.75])
    assert principal_note(tile_style(shape), 16, explained).startswith(expected)


def test_an_unknown_explained_share_is_left_out() -> None:
    note = principal_note(tile_style((8, 16, 2, 3, 3)), 16, torch.tensor([torch.nan]))
    assert note.startswith("tile = principal volume of 16 channels, its 2 slices left to right;")


def test_how_to_read_responses() -> None:
    rgb = response_note(response_style((8, 3, 20, 20)))
    assert rgb == "RGB = the responses of input channels 0, 1, 2; grey is zero"
    slices = response_note(response_style((8, 1, 2, 20, 20)))
    assert slices.startswith("each row: the responses of one filter, slice by slice (2); red")


def test_the_scale_is_written_at_the_ends_of_the_bar() -> None:
    half_ranges = torch.tensor([0.5, 2.0])
    own = "each tile by its own largest |weight|, max = 0.5 to 2"
    assert scale_note(half_ranges, "filter", "weight") == (("-max", "+max"), own)
    layer = "one scale for the layer, in units of the weights"
    assert scale_note(half_ranges, "layer", "weight") == (("-2", "+2"), layer)
    run = "one scale for the run, in units of the responses"
    assert scale_note(half_ranges, 2.0, "response") == (("-2", "+2"), run)


def test_the_first_eight_non_finite_filters_are_named() -> None:
    assert non_finite_note([], 64) == []
    assert non_finite_note([3, 5], 64) == [
        "NaN or infinite in 2 of 64 filters (striped magenta): 3, 5"
    ]
    [line] = non_finite_note(list(range(10, 20)), 64)
    assert line.endswith(
        "in 10 of 64 filters (striped magenta): 10, 11, 12, 13, 14, 15, 16, 17, ..."
    )

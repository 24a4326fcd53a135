"""The captions of film strips and animations: what is shown, and what is left out."""

from dataclasses import replace

import pytest
import torch
from filter_sequences import drawn, sequence_of

from kernelviz_callback.drawing.animation.caption import caption_lines


@pytest.mark.parametrize(
    ("shape", "line"),
    [
        ((8, 1, 31), "taps left to right, red above zero, blue below"),
        ((8, 3, 31), "each tile: input channels 0 to 2 of 3; taps left to right, red above"),
        ((8, 64, 1), "each tile: input channels 0 to 3 of 64; red is positive"),
        ((8, 1, 3, 3, 3), "each tile: slices 0 to 2 of 3; red is positive"),
        ((8, 2, 3, 3, 3), "each tile: slices 0 to 2 of 3 of input channels 0 to 1 of 2; red"),
        ((8, 64, 3, 3, 3), "each tile: slices 0 to 2 of 3 of the principal volume of 64 channels;"),
        ((8, 1, 9, 99, 99), "each tile: slice 0 of 9; red is positive"),
        ((8, 3, 1, 7, 7), "RGB = input channels 0, 1, 2; grey is zero"),
    ],
    ids=str,
)
def test_the_caption_explains_how_to_read_a_tile(shape: tuple[int, ...], line: str) -> None:
    assert caption_lines(sequence_of({0: torch.ones(shape)}), "film", 1)[2].startswith(line)


def test_the_caption_says_what_is_left_out() -> None:
    sequence = sequence_of({step: drawn(300, 16, 3, 3, seed=step) for step in range(30)})
    assert caption_lines(sequence, "film", 12) == [
        "conv film · 128 of 300 filters 16x3x3, those that changed most",
        "12 of 30 snapshots, steps 0 to 29, early ones denser",
        "each tile: the principal plane of 16 channels; red is positive, blue negative, white zero",
    ]


def test_the_caption_counts_snapshots_that_could_not_be_read() -> None:
    sequence = replace(sequence_of({0: drawn(1, 1, 3, 3), 5: drawn(1, 1, 3, 3)}), available=4)
    lines = caption_lines(replace(sequence, unreadable=2), "evolution", 2)
    assert lines[:2] == [
        "conv evolution · 1 filter 1x3x3",
        "all 2 snapshots, steps 0 to 5; 2 more could not be read",
    ]

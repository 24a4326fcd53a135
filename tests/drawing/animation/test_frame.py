"""The frames of an animation: the time line, the enlargement, and the stripes."""

import numpy as np
import pytest
import torch
from filter_sequences import drawn, renderer_of, sequence_of

from kernelviz_callback.drawing.animation.frame import paint_kernels, text_colours
from kernelviz_callback.drawing.caption_layout import BACKGROUND


def test_the_time_line_is_logarithmic() -> None:
    steps = [0, 9, 99, 999]
    renderer = renderer_of(sequence_of({step: torch.zeros(4, 3, 3, 3) for step in steps}))
    frames = sequence_of({step: torch.zeros(4, 3, 3, 3) for step in steps}).frames
    filled = [(renderer.draw_time(frame)[-7] == 255).mean() for frame in frames]
    assert filled[0] < 0.01
    assert filled[1:] == pytest.approx([1 / 3, 2 / 3, 1], abs=0.01)


def test_the_time_line_of_a_single_frame_is_full() -> None:
    sequence = sequence_of({64: torch.zeros(4, 3, 3, 3)})
    line = renderer_of(sequence).draw_time(sequence.frames[0])
    assert (line[-7] == 255).all()


@pytest.mark.parametrize("side", [100, 350, 840])
@pytest.mark.parametrize("shape", [(64, 3, 7, 7), (8, 1, 31), (4, 2, 3, 5, 5), (2, 1, 1, 1)])
def test_kernels_are_enlarged_by_a_whole_factor_to_about_the_side(
    side: int, shape: tuple[int, ...]
) -> None:
    renderer = renderer_of(sequence_of({0: drawn(*shape)}), side=side)
    layout = renderer.layout
    size = max(layout.columns * layout.tile_width, layout.rows * layout.tile_height)
    assert renderer.zoom == 1 or size <= 1.5 * side
    assert renderer_of(sequence_of({0: drawn(*shape)}), side=side, is_even=True).zoom % 2 == 0


def test_bad_weights_are_marked_and_have_the_colour_of_zero() -> None:
    weights = drawn(3, 1, 4, 4)
    weights[1, 0, 2, 3] = torch.nan
    sequence = sequence_of({0: weights})
    painted = paint_kernels(sequence.frames[0], sequence.crop, sequence.half_ranges())
    assert np.argwhere(painted.is_bad).tolist() == [[1, 0, 2, 3]]
    assert painted.colours[1, 0, 2, 3].tolist() == [247, 247, 247]


def test_text_colours_go_from_the_background_to_the_text() -> None:
    ends = text_colours(np.array([0, 255], np.uint8))
    assert ends.tolist() == [list(BACKGROUND), [232, 232, 236]]

"""The surroundings of the tiles: caption, colour bar, legend and numbers."""

import torch
from torch import Tensor

from kernelviz_callback.drawing.caption_layout import BACKGROUND, draw_caption
from kernelviz_callback.drawing.picture import Layout

BAR = torch.tensor([[0, 0, 255], [0, 255, 0], [255, 0, 0]], dtype=torch.uint8)
TIGHT = Layout(filters=12, columns=4, tile_height=30, tile_width=40)


def is_background(pixels: Tensor) -> bool:
    return bool((pixels == torch.tensor(BACKGROUND, dtype=torch.uint8)).all())


def test_the_places_of_the_tiles_are_empty_and_in_the_picture() -> None:
    pixels, placed = draw_caption(TIGHT, ["title", "scale"], BAR, ("-1", "+1"))
    assert (placed.filters, placed.columns, placed.gap) == (12, 4, 2)
    assert (placed.tile_height, placed.tile_width) == (30, 40)
    for i in range(12):
        assert pixels[placed.box(i)].shape == (30, 40, 3)
        assert is_background(pixels[placed.box(i)])
    assert not is_background(pixels[: placed.top])
    assert not is_background(pixels[placed.top : placed.height, : placed.left])


def test_the_bar_shows_its_colours_in_equal_parts_from_low_to_high() -> None:
    pixels, _ = draw_caption(TIGHT, ["scale"], BAR, ("-1", "+1"))
    found = [(pixels == colour).all(2) for colour in BAR]
    counts = [int(mask.sum()) for mask in found]
    assert sum(counts) == 140 * 11
    assert max(counts) - min(counts) <= 11
    first_columns = [int(mask.any(0).nonzero()[0]) for mask in found]
    assert first_columns == sorted(first_columns)


def test_a_long_line_is_wrapped_and_moves_the_tiles_down() -> None:
    _, short = draw_caption(TIGHT, ["title", "scale"], BAR, ("-1", "+1"))
    pixels, long = draw_caption(TIGHT, ["a title of many words " * 12, "scale"], BAR, ("-1", "+1"))
    assert long.top > short.top
    assert is_background(pixels[:, -4:]), "no text reaches the right edge"


def test_a_legend_takes_a_row_and_a_long_remark_is_wrapped() -> None:
    legend, short, long = [((213, 94, 0), "1 near-zero")], ["short"], ["a long remark " * 12]
    tops = [
        draw_caption(TIGHT, ["scale"], BAR, ("-1", "+1"), *below)[1].top
        for below in ((), (legend,), (legend, short), (legend, long))
    ]
    assert tops[1] - tops[0] == tops[2] - tops[1] > 0
    assert tops[3] > tops[2]


def test_a_legend_shows_the_colours_of_frames() -> None:
    colour = (213, 94, 0)
    pixels, layout = draw_caption(TIGHT, ["scale"], BAR, ("-1", "+1"), [(colour, "1 near-zero")])
    mask = (pixels[: layout.top] == torch.tensor(colour, dtype=torch.uint8)).all(2)
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    assert len(rows) == len(columns) == 11
    assert not mask[rows[5], columns[5]], "a frame, not a filled square"

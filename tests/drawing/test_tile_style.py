"""How a shape is drawn: decided once, and followed by grids, film strips and strips."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from kernelviz_callback.drawing.animation.crop import choose_crop
from kernelviz_callback.drawing.colour import diverging
from kernelviz_callback.drawing.grid import gain_grid, kernel_grid, response_grid
from kernelviz_callback.drawing.picture import Picture
from kernelviz_callback.drawing.tile_style import (
    GAIN_STYLE,
    TileStyle,
    colour_bar,
    response_style,
    tile_style,
)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((64, 3, 7, 7), TileStyle("rgb", 3)),
        ((8, 3, 1, 1), TileStyle("rgb", 3)),
        ((8, 1, 5, 5), TileStyle("planes", 1)),
        ((8, 2, 5, 5), TileStyle("planes", 2)),
        ((8, 4, 3, 3), TileStyle("planes", 4)),
        ((8, 4, 1, 1), TileStyle("planes", 4)),
        ((8, 5, 3, 3), TileStyle("planes", 1, is_principal=True)),
        ((8, 64, 1, 1), TileStyle("matrix", 64)),
        ((8, 64, 1), TileStyle("matrix", 64)),
        ((8, 64, 1, 1, 1), TileStyle("matrix", 64, slices=1)),
        ((8, 4, 1), TileStyle("curve", 4)),
        ((8, 1, 9), TileStyle("curve", 1)),
        ((8, 3, 9), TileStyle("curve", 3)),
        ((8, 64, 9), TileStyle("curve", 1, is_principal=True)),
        ((8, 3, 4, 5, 5), TileStyle("rgb", 3, slices=4)),
        ((8, 2, 4, 5, 5), TileStyle("planes", 2, slices=4)),
        ((8, 16, 4, 5, 5), TileStyle("planes", 1, slices=4, is_principal=True)),
        ((8, 16, 1, 5, 5), TileStyle("planes", 1, slices=1, is_principal=True)),
    ],
    ids=str,
)
def test_the_style_of_a_shape(shape: tuple[int, ...], expected: TileStyle) -> None:
    assert tile_style(shape) == expected


@pytest.mark.parametrize(
    ("shape", "all_channels", "principal"),
    [
        ((8, 3, 5, 5), TileStyle("rgb", 3), TileStyle("planes", 1, is_principal=True)),
        ((8, 16, 3, 3), TileStyle("planes", 16), TileStyle("planes", 1, is_principal=True)),
        ((8, 64, 1, 1), TileStyle("matrix", 64), TileStyle("planes", 1, is_principal=True)),
        ((8, 64, 1), TileStyle("matrix", 64), TileStyle("curve", 1, is_principal=True)),
        ((8, 64, 9), TileStyle("curve", 64), TileStyle("curve", 1, is_principal=True)),
        ((8, 6, 2, 3, 3), TileStyle("planes", 6, 2), TileStyle("planes", 1, 2, is_principal=True)),
    ],
    ids=str,
)
def test_all_channels_or_their_principal_plane_can_be_asked_for(
    shape: tuple[int, ...], all_channels: TileStyle, principal: TileStyle
) -> None:
    assert tile_style(shape, "all") == all_channels
    assert tile_style(shape, "principal") == principal


def test_another_choice_of_channels_is_an_error() -> None:
    with pytest.raises(ValueError, match=r'"auto", "all" or "principal"; found \'planes\''):
        tile_style((8, 3, 5, 5), "planes")


@pytest.mark.parametrize(
    ("shape", "kind", "pictures"),
    [
        ((8, 3, 20, 20), "rgb", 1),
        ((8, 1, 20, 20), "planes", 1),
        ((8, 16, 1, 1), "planes", 16),
        ((8, 3, 2, 20, 20), "rgb", 2),
        ((8, 4, 2, 20, 20), "planes", 8),
        ((8, 4, 9), "curve", 1),
    ],
    ids=str,
)
def test_the_style_of_responses(shape: tuple[int, ...], kind: str, pictures: int) -> None:
    style = response_style(shape)
    assert (style.kind, style.pictures, style.is_principal) == (kind, pictures, False)


@pytest.mark.parametrize(
    "shape", [(5, 3, 4, 4), (5, 2, 4, 4), (5, 16, 4, 4), (5, 6, 1, 1), (5, 3, 2, 4, 4)], ids=str
)
@pytest.mark.parametrize("channels", ["auto", "all"])
def test_a_tile_of_the_grid_has_as_many_pictures_as_the_style_says(
    shape: tuple[int, ...], channels: str
) -> None:
    style = tile_style(shape, channels)
    picture = kernel_grid(torch.ones(shape), channels=channels)
    zoom = picture.layout.tile_height // shape[-2]
    pitch = shape[-1] * zoom + style.rule
    assert picture.layout.tile_width == style.pictures * pitch - style.rule


@pytest.mark.parametrize(
    "shape", [(5, 3, 4, 4), (5, 2, 9), (5, 16, 4, 4), (5, 3, 2, 4, 4)], ids=str
)
def test_a_film_strip_has_the_style_of_the_grid(shape: tuple[int, ...]) -> None:
    assert choose_crop(None, torch.ones(shape)).style == tile_style(shape)


def test_the_bar_has_the_colours_of_the_tiles() -> None:
    grey = colour_bar(tile_style((8, 3, 5, 5)))
    assert grey.tolist() == [[level] * 3 for level in range(1, 256)]
    signed = colour_bar(tile_style((8, 1, 5, 5)))
    assert signed.shape == (255, 3)
    assert torch.equal(signed, diverging(torch.arange(1, 256, dtype=torch.uint8)[None])[:, 0].T)
    assert torch.equal(colour_bar(tile_style((8, 3, 9))), signed)
    assert torch.equal(colour_bar(tile_style((8, 64, 1, 1))), signed)


def test_the_bar_of_gains_begins_at_zero() -> None:
    bar = colour_bar(GAIN_STYLE)
    assert torch.equal(bar, colour_bar(replace(GAIN_STYLE, base="middle"))[127:])
    assert bar[0].tolist() == [247, 247, 247]


@pytest.mark.parametrize(
    ("draw", "style"),
    [
        (lambda: kernel_grid(torch.ones(4, 3, 5, 5)), tile_style((4, 3, 5, 5))),
        (lambda: kernel_grid(torch.ones(4, 3, 9)), tile_style((4, 3, 9))),
        (lambda: response_grid(torch.ones(4, 3, 20, 20)), response_style((4, 3, 20, 20))),
        (lambda: gain_grid(torch.ones(4, 33)), GAIN_STYLE),
    ],
    ids=["rgb", "curve", "response", "gain"],
)
def test_the_caption_shows_the_bar_of_the_style(
    draw: Callable[[], Picture], style: TileStyle
) -> None:
    """The bar is 140 pixels wide, so every colour that it shows is one of the style's."""
    expected = {tuple(colour) for colour in colour_bar(style).tolist()}
    picture = draw()
    caption = picture.pixels[: picture.layout.top]
    rows = [row for row in caption.tolist() if sum(tuple(p) in expected for p in row) >= 140]
    assert len(rows) >= 11, "the height of the bar"

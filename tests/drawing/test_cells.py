"""Kernels of extreme aspect ratios: legible in every picture, ordinary kernels unchanged."""

import pytest
import torch
from filter_sequences import sequence_of
from hypothesis import given, strategies as st
from PIL import Image
from torch import Tensor, nn

from kernelviz_callback import compare, kernel_grid
from kernelviz_callback.comparison.comparison import comparison_picture
from kernelviz_callback.drawing.animation.animate import moving_pictures
from kernelviz_callback.drawing.animation.frame import FrameRenderer
from kernelviz_callback.drawing.animation.strip import film_strip
from kernelviz_callback.drawing.cells import cell_size, stretch, stretch_note, stretched_size
from kernelviz_callback.drawing.colour import diverging, to_levels
from kernelviz_callback.drawing.tiles import paint_tiles

SHOWN = 350  # pixels: TensorBoard shrinks a picture to this width
SLENDER = [(1, 64), (3, 64), (25, 1), (1, 9), (1, 256), (64, 3)]


def waves(filters: int, channels: int, height: int, width: int) -> Tensor:
    return torch.randn(
        filters, channels, height, width, generator=torch.Generator().manual_seed(height + width)
    )


def conv(weights: Tensor) -> nn.Conv2d:
    layer = nn.Conv2d(weights.shape[1], weights.shape[0], tuple(weights.shape[2:]))
    layer.weight.data = weights
    return layer


def colours(weights: Tensor, end: Tensor) -> Tensor:
    """Return the colour of each weight of one kernel, (3, kH, kW)."""
    return diverging(to_levels(weights, end))


def read(tile: Tensor, height: int, width: int) -> Tensor:
    """Read the colour of each weight, and check that a weight is one block: (3, kH, kW)."""
    high, wide = tile.shape[0] // height, tile.shape[1] // width
    assert tile.shape == (high * height, wide * width, 3)
    blocks = tile.reshape(height, high, width, wide, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()
    return blocks[:, 0, :, 0].permute(2, 0, 1)


@given(st.integers(1, 40), st.integers(1, 400))
def test_only_slender_kernels_are_stretched(height: int, width: int) -> None:
    down, across = cell_size(height, width)
    short, long = sorted((height, width))
    high, wide = stretched_size(height, width)
    if long <= 8 * short:
        assert (down, across) == (1, 1)
    else:
        assert min(down, across) == 1
        assert max(high, wide) == long
        assert min(high, wide) >= min(16, long / 5, short * 2) or short > 10
        assert min(high, wide) < long
    assert cell_size(width, height) == (across, down)
    assert (stretch_note(height, width) is None) == ((down, across) == (1, 1))
    planes = torch.arange(height * width).reshape(1, 1, height, width)
    stretched = stretch(planes)
    assert stretched.shape == (1, 1, high, wide)
    assert torch.equal(stretched[:, :, ::down, ::across], planes)


@pytest.mark.parametrize("size", SLENDER)
@pytest.mark.parametrize("channels", [1, 3, 12])
def test_a_slender_kernel_is_legible_in_a_grid(size: tuple[int, int], channels: int) -> None:
    weights = waves(8, channels, *size)
    picture = kernel_grid(weights)
    shrunk = min(1, SHOWN / picture.pixels.shape[1])
    assert min(picture.tile(0).shape[:2]) * shrunk >= 15
    assert picture.layout.width <= 900
    if channels == 1:
        for i, weight in enumerate(weights):
            expected = colours(weight[0], weight.abs().max())
            assert torch.equal(read(picture.tile(i), *size), expected)


def test_several_channels_of_a_slender_kernel_stand_in_a_row() -> None:
    weights = waves(4, 2, 1, 64)
    picture = kernel_grid(weights, scale="layer")
    both = picture.tile(3)
    width = (both.shape[1] - 1) // 2
    for c, left in enumerate((0, width + 1)):
        found = read(both[:, left : left + width], 1, 64)
        assert torch.equal(found, colours(weights[3, c], weights.abs().max()))


def test_a_slender_kernel_of_a_3d_layer_is_stretched_slice_by_slice() -> None:
    weights = waves(4, 2, 1, 64).reshape(4, 1, 2, 1, 64)
    tile = kernel_grid(weights, scale="layer").tile(1)
    width = (tile.shape[1] - 1) // 2
    found = read(tile[:, :width], 1, 64)
    assert torch.equal(found, colours(weights[1, 0, 0], weights.abs().max()))


def test_a_bad_weight_of_a_slender_kernel_is_striped() -> None:
    weights = waves(2, 1, 1, 64)
    weights[1, 0, 0, 7] = torch.nan
    tile = kernel_grid(weights).tile(1)
    wide = tile.shape[1] // 64
    column = tile[:, 7 * wide : 8 * wide].reshape(-1, 3)
    assert {tuple(c) for c in column.tolist()} == {(255, 0, 255), (0, 0, 0)}


@pytest.mark.parametrize("size", SLENDER)
def test_a_slender_kernel_is_legible_in_a_film(size: tuple[int, int]) -> None:
    weights = {step: waves(8, 1, *size) * (step + 1) for step in range(12)}
    sequence = sequence_of(weights)
    picture = film_strip(sequence)
    layout = picture.layout
    assert picture.pixels.shape[1] <= 1000
    rows, columns = layout.frame(5, layout.frames - 1)
    frame = picture.pixels[rows, columns]
    assert min(frame.shape[:2]) >= 10
    assert torch.equal(read(frame, *size), colours(weights[11][5, 0], picture.half_ranges[5]))


@pytest.mark.parametrize("size", SLENDER)
def test_a_slender_kernel_is_legible_in_an_animation(size: tuple[int, int]) -> None:
    sequence = sequence_of({0: waves(8, 1, *size), 5: -waves(8, 1, *size)})
    half_ranges = sequence.half_ranges()
    renderer = FrameRenderer(sequence, [0, 5], half_ranges, scale="layer")
    _, last = moving_pictures(renderer, sequence.frames, half_ranges)
    rows, columns = renderer.layout.box(3)
    tile = torch.from_numpy(last)[rows, columns]
    assert min(tile.shape[:2]) >= 15
    assert torch.equal(read(tile, *size), colours(-waves(8, 1, *size)[3, 0], half_ranges[3]))


@pytest.mark.parametrize("size", SLENDER)
def test_a_slender_kernel_is_legible_in_a_comparison(size: tuple[int, int]) -> None:
    first = waves(8, 1, *size)
    picture = comparison_picture(compare(conv(first), conv(first * 0.5), match="index"))
    end = picture.half_ranges[:1]
    expected = paint_tiles(stretch(first[2:3]), end, is_rgb=False)[0]
    strip = picture.tile(2)
    zoom = max(1, round(49 / (expected.shape[0] * expected.shape[1]) ** 0.5))
    high, wide = expected.shape[0] * zoom, expected.shape[1] * zoom
    top, left = (strip.shape[0] - high) // 2, strip.shape[1] - 3 * (wide + 2)
    tile = strip[top : top + high, left : left + wide]
    assert min(tile.shape[:2]) >= 14
    assert torch.equal(tile[::zoom, ::zoom], expected)


def test_the_captions_say_that_weights_are_not_squares() -> None:
    """The caption of a stretched layer differs from that of the same picture without the note."""
    wide, square = (kernel_grid(waves(8, 1, *size), title="conv") for size in ((1, 64), (8, 64)))
    assert stretch_note(1, 64) == "each weight is drawn 16 times as high as wide"
    assert stretch_note(25, 1) == "each weight is drawn 6 times as wide as high"
    second_line = slice(27, 46)
    ink = [(p.pixels[second_line].amax(2) > 200).any(0).sum() for p in (wide, square)]
    assert ink[0] > 1.5 * ink[1], "the line is longer"


def test_a_wide_layer_of_slender_kernels_stays_small() -> None:
    picture = kernel_grid(waves(512, 1, 1, 64))
    assert max(picture.pixels.shape[:2]) < 2000
    assert Image.fromarray(picture.pixels.numpy()).size == tuple(picture.pixels.shape[1::-1])

"""The kernel grid of 1-D and 3-D layers: curves, rows of slices and principal planes."""

import pytest
import torch
from torch import Tensor

from kernelviz_callback import gain_grid, kernel_grid
from kernelviz_callback.drawing.caption_text import kernel_note
from kernelviz_callback.drawing.colour import diverging, to_levels
from kernelviz_callback.drawing.curves import draw_curves
from kernelviz_callback.drawing.tile_style import tile_style
from kernelviz_callback.filters.principal import principal_planes


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def test_a_1d_kernel_is_drawn_as_a_curve() -> None:
    weights = drawn(6, 1, 9)
    picture = kernel_grid(weights)
    for i, tile in enumerate(weights):
        end = tile.abs().max()[None]
        curve = draw_curves(tile[None], end, height=56, width=81)
        expected = diverging(to_levels(curve, end))[0, 0].permute(1, 2, 0)
        assert torch.equal(picture.tile(i), expected)
    assert torch.equal(picture.half_ranges, weights.abs().amax((1, 2)))


def test_three_channels_of_a_1d_kernel_are_drawn_side_by_side() -> None:
    tile = kernel_grid(drawn(4, 3, 9)).tile(0)
    assert tile.shape == (56, 3 * 81 + 2, 3)
    single = kernel_grid(drawn(4, 3, 9)[:1, 1:2], scale=drawn(4, 3, 9)[0].abs().max().item())
    assert torch.equal(tile[:, 82:163], single.tile(0))


def test_many_channels_of_a_1d_kernel_are_drawn_as_the_principal_curve() -> None:
    weights = drawn(6, 64, 9)
    curves = principal_planes(weights).planes
    assert curves.shape == (6, 1, 9)
    assert torch.equal(kernel_grid(weights).tile(2), kernel_grid(curves).tile(2))


def test_a_1d_kernel_of_one_tap_is_drawn_as_a_matrix() -> None:
    weights = drawn(8, 32, 1)
    assert torch.equal(kernel_grid(weights).pixels, kernel_grid(weights[..., None]).pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_3d_kernel_is_drawn_as_a_row_of_its_slices(channels: int) -> None:
    weights = drawn(5, channels, 3, 7, 7)
    scale = weights.abs().max().item()
    tile = kernel_grid(weights, scale=scale).tile(4)
    slices = [kernel_grid(weights[4:, :, d], scale=scale).tile(0)[::8, ::8] for d in range(3)]
    height = tile.shape[0]
    zoom, rule = height // 7, 2 if channels == 3 else 1
    for d, expected in enumerate(slices):
        left = d * (height + rule)
        assert torch.equal(tile[::zoom, left : left + height : zoom], expected)
    assert tile.shape[1] == 3 * height + 2 * rule


def test_many_channels_of_a_3d_kernel_are_drawn_as_the_principal_volume() -> None:
    weights = drawn(5, 16, 3, 5, 5)
    volumes = principal_planes(weights).planes
    assert volumes.shape == (5, 1, 3, 5, 5)
    assert torch.equal(kernel_grid(weights).tile(1), kernel_grid(volumes).tile(1))
    flat = principal_planes(weights.flatten(3)[..., None].flatten(2, 3)).planes
    torch.testing.assert_close(flat.flatten(), volumes.flatten())


@pytest.mark.parametrize("filters", [64, 512, 768])
def test_many_curves_are_drawn_with_a_smaller_height(filters: int) -> None:
    pictures = kernel_grid(drawn(filters, 1, 128)), gain_grid(drawn(filters, 129).abs())
    heights = [picture.tile(0).shape[0] for picture in pictures]
    assert all(max(picture.pixels.shape) < 2000 for picture in pictures)
    assert all((height == 56) is (filters == 64) and height % 2 == 0 for height in heights)


def test_a_tile_with_nan_is_striped_in_curves_and_slices() -> None:
    magenta = torch.tensor([255, 0, 255], dtype=torch.uint8)
    for weights in (drawn(4, 1, 9), drawn(4, 3, 3, 7, 7)):
        weights[1].flatten()[3] = float("nan")
        picture = kernel_grid(weights)
        striped = [(picture.tile(i) == magenta).all(-1).any().item() for i in range(4)]
        assert striped == [False, True, False, False]


def test_only_whole_slices_are_drawn_and_the_note_says_how_many() -> None:
    weights = drawn(1024, 2, 5, 3, 3)
    tile = kernel_grid(weights, title="many").tile(7)
    first = kernel_grid(weights[7:8, :, :2], scale=weights[7].abs().max().item()).tile(0)
    zoom, larger = (tile.shape[0] // 3, first.shape[0] // 3)
    assert tile.shape[1] == 4 * 3 * zoom + 3, "two slices of two channels, ruled off"
    for place in range(4):
        small = tile[::zoom, place * (3 * zoom + 1) :: zoom][:, :3]
        assert torch.equal(small, first[::larger, place * (3 * larger + 1) :: larger][:, :3])
    assert "slice by slice (2 of 5), 2 input channels of each" in kernel_note(
        tile_style(weights.shape), 4
    )

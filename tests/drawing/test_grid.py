"""The kernel grid and the response grid of 2-D layers, pixel by pixel."""

import re

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from kernelviz_callback import kernel_grid, response_grid
from kernelviz_callback.drawing.arrangement import GRID_SIDE
from kernelviz_callback.drawing.colour import diverging, to_levels
from kernelviz_callback.drawing.grid import MOST_PLANES, MOST_WEIGHTS
from kernelviz_callback.drawing.verdict_frames import Flags


def tile_values(tile: Tensor, zoom: int) -> Tensor:
    """Read one pixel of each enlarged weight, and check that a weight is one colour: (h, w, 3)."""
    blocks = tile.reshape(tile.shape[0] // zoom, zoom, tile.shape[1] // zoom, zoom, 3)
    assert (blocks == blocks[:, :1, :, :1]).all(), "a weight is not one flat block"
    return blocks[:, 0, :, 0]


def test_three_channels_are_drawn_as_rgb(gabor: Tensor) -> None:
    picture = kernel_grid(gabor)
    for i, weight in enumerate(gabor):
        values = tile_values(picture.tile(i), 11).permute(2, 0, 1)
        largest = weight.abs().max().clamp(min=1e-9)
        expected = (128 + 127 * weight / largest).round().to(torch.uint8)
        assert torch.equal(values, expected)
    assert (picture.tile(3) == 128).all(), "a filter of zeros is neutral grey"


def test_one_channel_is_drawn_with_the_diverging_map(gabor: Tensor) -> None:
    grey = gabor[:, :1]
    picture = kernel_grid(grey, scale="layer")
    for i, weight in enumerate(grey):
        values = tile_values(picture.tile(i), 11).permute(2, 0, 1)
        assert torch.equal(values, diverging(to_levels(weight[0], grey.abs().max())))


@pytest.mark.parametrize("channels", [2, 4, 9, 64])
def test_another_number_of_channels_is_a_row_of_kernels(channels: int) -> None:
    torch.manual_seed(channels)
    weights = torch.randn(5, channels, 3, 3)
    picture = kernel_grid(weights, channels="all")
    if channels <= 4:
        assert torch.equal(picture.pixels, kernel_grid(weights).pixels)
    zoom = picture.layout.tile_height // 3
    width = 3 * zoom + 1
    assert picture.layout.tile_width == channels * width - 1
    for i, weight in enumerate(weights):
        tile = picture.tile(i)
        for c in range(channels):
            kernel = tile_values(tile[:, c * width : (c + 1) * width - 1], zoom).permute(2, 0, 1)
            assert torch.equal(kernel, diverging(to_levels(weight[c], weight.abs().max())))


def test_a_very_wide_layer_shows_its_first_channels_and_stays_small() -> None:
    picture = kernel_grid(torch.randn(512, 512, 3, 3), channels="all")
    kernels = (picture.layout.tile_width + 1) // (picture.layout.tile_height + 1)
    assert kernels * 512 == MOST_PLANES
    assert max(picture.pixels.shape) < 1.5 * GRID_SIDE


@pytest.mark.parametrize(("channels", "option"), [(5, "auto"), (64, "auto"), (3, "principal")])
def test_many_channels_are_drawn_as_the_principal_plane(channels: int, option: str) -> None:
    torch.manual_seed(channels)
    weights = torch.randn(7, channels, 3, 3)
    picture = kernel_grid(weights, channels=option)
    assert picture.tile(0).shape == (54, 54, 3)
    for i, matrix in enumerate(weights.double().flatten(2)):
        _, values, rows = torch.linalg.svd(matrix)
        plane = (rows[0] * values[0] * rows[0].sum().sign()).reshape(3, 3).float()
        torch.testing.assert_close(picture.half_ranges[i], plane.abs().max())
        expected = diverging(to_levels(plane, plane.abs().max())).int()
        found = tile_values(picture.tile(i), 18).permute(2, 0, 1).int()
        assert (found - expected).abs().max() <= 6, "one level of 127"


def test_the_caption_says_how_much_a_principal_plane_explains() -> None:
    torch.manual_seed(0)
    alike = torch.randn(4, 8, 1, 1) * torch.randn(4, 1, 3, 3)
    pictures = [
        kernel_grid(weights) for weights in (alike, alike * 2, alike + torch.randn(4, 8, 3, 3))
    ]
    captions = [picture.pixels[: picture.layout.top // 2] for picture in pictures]
    assert torch.equal(captions[0], captions[1])
    assert not torch.equal(captions[0], captions[2])
    kernel_grid(torch.zeros(2, 8, 3, 3))  # zero filters have no explained share


@pytest.mark.parametrize("shape", [(64, 64), (5, 9), (256, 64), (64, 256), (2048, 512), (1000, 6)])
@pytest.mark.parametrize("is_flagged", [False, True])
def test_a_1x1_convolution_is_a_matrix(shape: tuple[int, int], is_flagged: bool) -> None:
    torch.manual_seed(1)
    weights = torch.randn(*shape, 1, 1)
    flags = Flags((None,) * shape[0], ()) if is_flagged else None
    picture = kernel_grid(weights, flags=flags)
    zoom = picture.layout.tile_height
    shown = picture.layout.tile_width // zoom
    assert shown == min(shape[1], MOST_WEIGHTS // shape[0])
    assert max(picture.pixels.shape) < 1.5 * GRID_SIDE
    for i in range(0, shape[0], 7):
        row = tile_values(picture.tile(i), zoom)[0].T
        expected = diverging(to_levels(weights[i, :shown, 0].T, weights[i].abs().max()))[:, 0]
        assert torch.equal(row, expected)


@pytest.mark.parametrize("filters", [16, 64])
def test_a_matrix_that_fits_the_screen_is_in_one_block(filters: int) -> None:
    assert kernel_grid(torch.randn(filters, 64, 1, 1)).layout.columns == 1


@settings(max_examples=40)
@given(
    st.integers(1, 70),
    st.sampled_from([1, 2, 3, 5]),
    st.integers(1, 8),
    st.integers(1, 8),
    st.integers(0, 2**31),
)
def test_the_tile_of_a_filter_does_not_depend_on_its_place_or_size(
    filters, channels, height, width, seed
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(filters, channels, height, width, generator=generator)
    order = torch.randperm(filters, generator=generator)
    picture, permuted = kernel_grid(weights), kernel_grid(weights[order])
    assert picture.pixels.shape == permuted.pixels.shape
    for place, index in enumerate(order.tolist()):
        assert torch.equal(permuted.tile(place), picture.tile(index))
    assert torch.equal(kernel_grid(weights * 4).tile(0), picture.tile(0))


def test_half_ranges_follow_the_scale(gabor: Tensor) -> None:
    weights = gabor[:3] * torch.tensor([1.0, 0.1, 10.0])[:, None, None, None]
    own = weights.abs().amax((1, 2, 3))
    assert torch.equal(kernel_grid(weights).half_ranges, own)
    assert torch.equal(kernel_grid(weights, scale="layer").half_ranges, own.max().expand(3))
    assert kernel_grid(weights, scale=99.0).half_ranges.tolist() == [99.0] * 3
    assert torch.equal(kernel_grid(weights, scale=0.5).half_ranges, own.max().expand(3))


def test_the_scale_is_written_into_the_picture(gabor: Tensor) -> None:
    one, other = (kernel_grid(gabor * k, scale="layer") for k in (1, 2))
    caption = slice(0, one.layout.top)
    assert not torch.equal(one.pixels[caption], other.pixels[caption])
    assert torch.equal(one.pixels[one.layout.top :], other.pixels[one.layout.top :])


@pytest.mark.parametrize("channels", [1, 3, 4, 8])
def test_non_finite_weights_are_striped_and_the_others_keep_their_scale(channels: int) -> None:
    weights = torch.randn(4, channels, 5, 5)
    clean = kernel_grid(weights)
    weights[1, 0, 2, 2] = torch.nan
    weights[2] = torch.inf
    picture = kernel_grid(weights)
    magenta = torch.tensor([255, 0, 255], dtype=torch.uint8)
    striped = [(picture.tile(i) == magenta).all(-1) for i in range(4)]
    zoom = picture.layout.tile_height // 5
    assert striped[1][2 * zoom : 3 * zoom, 2 * zoom : 3 * zoom].any()
    assert striped[1].sum() < zoom * zoom
    assert striped[2].float().mean() > 0.4
    for i in (0, 3):
        assert torch.equal(picture.tile(i), clean.tile(i))


@pytest.mark.parametrize("value", [0.0, 0.7, -3.0, 1e-40])
def test_a_constant_filter_is_flat(value: float) -> None:
    tile = kernel_grid(torch.full((1, 3, 3, 3), value)).tile(0)
    assert (tile == tile[0, 0]).all()
    expected = {0.0: 128, 0.7: 255, -3.0: 1}.get(value)
    assert expected is None or (tile == expected).all()


def test_responses_are_drawn_pixel_for_pixel() -> None:
    responses = torch.randn(6, 3, 20, 30)
    picture = response_grid(responses, title="a", note="b")
    for i, response in enumerate(responses):
        expected = to_levels(response, response.abs().max())
        assert torch.equal(tile_values(picture.tile(i), 7).permute(2, 0, 1), expected)


def test_responses_that_fill_the_screen_are_not_enlarged() -> None:
    responses = torch.randn(64, 3, 109, 109)
    assert response_grid(responses).tile(0).shape == (109, 109, 3)


@pytest.mark.parametrize("values", [torch.zeros(3, 3), torch.zeros(0, 3, 3, 3)])
def test_a_wrong_shape_is_an_error(values: Tensor) -> None:
    found = re.escape(f"found {tuple(values.shape)}")
    with pytest.raises(ValueError, match=rf"filters of shape \(N, C, kH, kW\), .*{found}"):
        kernel_grid(values)
    with pytest.raises(ValueError, match=rf"responses of shape \(N, C, H, W\) .*{found}"):
        response_grid(values)


def test_an_unknown_scale_is_an_error() -> None:
    with pytest.raises(ValueError, match="found 'tile'"):
        kernel_grid(torch.zeros(1, 3, 3, 3), scale="tile")


def test_an_unknown_choice_of_channels_is_an_error() -> None:
    with pytest.raises(ValueError, match=r'"auto", "all" or "principal"; found \'planes\''):
        kernel_grid(torch.zeros(1, 3, 3, 3), channels="planes")

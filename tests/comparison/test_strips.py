"""The strips of a comparison, pixel by pixel, and its table."""

import io

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from kernelviz_callback.comparison.compare import compare
from kernelviz_callback.comparison.comparison import comparison_picture
from kernelviz_callback.comparison.strips import MOST_STRIPS, StripColumn, draw_strips
from kernelviz_callback.comparison.table import comparison_table
from kernelviz_callback.drawing.colour import diverging, to_levels
from kernelviz_callback.drawing.picture import Picture
from kernelviz_callback.filters.responses import channel_responses
from kernelviz_callback.probe.probe import load_probe

ZOOM = 10  # of a 5x5 kernel


def conv(weight: Tensor) -> nn.Conv2d:
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2])
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


def weights(channels: int = 3, filters: int = 6) -> Tensor:
    return torch.randn(filters, channels, 5, 5, generator=torch.Generator().manual_seed(0))


def parts(picture: Picture, index: int, count: int, side: int = 5 * ZOOM) -> list[Tensor]:
    """Cut a strip of 5x5 kernels into its tiles, (H, W, 3) each; the number is before them."""
    strip = picture.tile(index)
    start = strip.shape[1] - count * (side + 2)
    return [strip[:side, start + i * (side + 2) :][:, :side] for i in range(count)]


def test_a_strip_is_first_last_and_difference_on_one_scale() -> None:
    first, last = weights(), 0.5 * weights() + 0.1
    picture = comparison_picture(compare(conv(first), conv(last)))
    largest = torch.stack([first, last, last - first]).abs().max()
    assert torch.equal(picture.half_ranges, largest.expand(6))
    for i in range(6):
        for values, tile in zip((first, last, last - first), parts(picture, i, 3), strict=True):
            expected = to_levels(values[i], largest).permute(1, 2, 0)
            assert torch.equal(tile[ZOOM // 2 :: ZOOM, ZOOM // 2 :: ZOOM], expected)


def test_partners_are_side_by_side() -> None:
    first = weights(filters=16)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    picture = comparison_picture(compare(conv(first), conv(first[order])), scale="filter")
    for i in range(16):
        own, partner, difference = parts(picture, i, 3)
        assert torch.equal(own, partner)
        assert difference.eq(128).all()
        assert picture.half_ranges[i] == first[i].abs().max()


def test_many_checkpoints_are_columns() -> None:
    models = [conv(weights() + 0.3 * k) for k in range(5)]
    picture = comparison_picture(compare(*models))
    tiles = parts(picture, 2, 6)
    scale = picture.half_ranges[0]
    for k in range(5):
        expected = to_levels((weights() + 0.3 * k)[2], scale).permute(1, 2, 0)
        found = tiles[k][ZOOM // 2 :: ZOOM, ZOOM // 2 :: ZOOM]
        assert (found.int() - expected.int()).abs().max() <= 1  # float rounding on a boundary


def test_layers_of_other_shapes_have_no_difference() -> None:
    picture = comparison_picture(compare(conv(weights()), conv(weights()[:, :, 1:4, 1:4])))
    assert picture.tile(0).shape[1] < 3 * 5 * ZOOM


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_one_two_or_four_channels_are_drawn_in_rows(channels: int) -> None:
    found = compare(conv(weights(channels)), conv(-weights(channels)))
    picture = comparison_picture(found)
    assert picture.tile(0).shape[1] > 3 * channels * 5 * ZOOM
    assert picture.pixels.shape[2] == 3


def test_checkpoints_are_further_apart_than_the_channels_of_one() -> None:
    one, two = (
        comparison_picture(compare(conv(weights(channels)), conv(-weights(channels)))).tile(0)
        for channels in (1, 2)
    )
    side = 5 * ZOOM
    between = [
        (tile.shape[1] - 3 * width) // 2 for tile, width in ((one, side), (two, 2 * side + 1))
    ]
    assert between[0] < between[1]


def test_a_filter_without_partner_or_with_nan_is_striped() -> None:
    broken = weights()
    broken[1] = torch.nan
    picture = comparison_picture(compare(conv(weights()), conv(broken), match="index"))
    whole, bad, difference = parts(picture, 1, 3)
    assert not (whole == torch.tensor([255, 0, 255])).all(2).any()
    assert (bad == torch.tensor([255, 0, 255])).all(2).any()
    assert (difference == torch.tensor([255, 0, 255])).all(2).any()
    assert picture.half_ranges.isfinite().all()


def test_responses_can_be_shown() -> None:
    probe = load_probe(torch.rand(3, 68, 68))
    found = compare(conv(weights()), conv(2 * weights()))
    picture = comparison_picture(found, responses_to=probe)
    expected = channel_responses(probe.image, weights())
    scale = 2 * expected.abs().max()
    assert picture.half_ranges[0].item() == pytest.approx(scale.item(), rel=1e-5)
    tile = parts(picture, 4, 3, side=128)[0][::2, ::2, 0]
    assert (tile.int() - to_levels(expected[4, 0], scale).int()).abs().max() <= 1


def test_the_256_filters_that_changed_most_are_drawn() -> None:
    first = torch.randn(MOST_STRIPS + 50, 1, 3, 3, generator=torch.Generator().manual_seed(2))
    last = first.clone()
    last[100:] += 1
    found = compare(conv(first), conv(last), match="index")
    assert comparison_picture(found).layout.filters == MOST_STRIPS


def test_the_table_lists_the_filters_that_changed_most_first() -> None:
    first, last = weights(filters=8), weights(filters=8)
    last[5] += 2
    last[2] = 0
    out = io.StringIO()
    Console(file=out, width=120).print(comparison_table(compare(conv(first), conv(last)), most=3))
    lines = out.getvalue().splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("filter"))
    assert [line.split()[0] for line in lines[at + 1 : at + 4]] == ["5", "2", "0"]
    assert "+near-zero" in lines[at + 2]
    assert "1 near-zero" in out.getvalue()


def columns_of(strip: Tensor, count: int, width: int, rule: int) -> list[Tensor]:
    """Cut a strip into tiles of any width: (H, W, 3) each."""
    start = strip.shape[1] - count * (width + rule)
    return [strip[:, start + i * (width + rule) :][:, :width] for i in range(count)]


def test_curves_share_the_scale_of_their_strip() -> None:
    first = torch.randn(4, 1, 24, generator=torch.Generator().manual_seed(3))
    last = 0.5 * first
    models = [nn.Conv1d(1, 4, 24), nn.Conv1d(1, 4, 24)]
    for model, weight in zip(models, (first, last), strict=True):
        model.weight.data = weight
    picture = comparison_picture(compare(*models), scale="filter")
    height, zoom = 48, 3  # pixels a point: 72 is half as much again as 48
    for i in range(4):
        scale = first[i].abs().max()
        assert picture.half_ranges[i] == scale
        tiles = columns_of(picture.tile(i), 3, 24 * zoom, 2)
        for values, tile in zip(
            (first[i, 0], last[i, 0], last[i, 0] - first[i, 0]), tiles, strict=True
        ):
            assert tile.shape == (height, 24 * zoom, 3)
            for t in range(24):
                column = tile[:, t * zoom + 1].int()
                is_red, is_blue = column[:, 0] > column[:, 2], column[:, 2] > column[:, 0]
                reached = (
                    int((is_red | is_blue)[: height // 2].sum()),
                    int((is_red | is_blue)[height // 2 :].sum()),
                )
                expected = (values[t] / scale * height / 2).item()
                assert reached[0] == pytest.approx(max(0, expected), abs=1.01)
                assert reached[1] == pytest.approx(max(0, -expected), abs=1.01)
                assert not is_blue[: height // 2].any()
                assert not is_red[height // 2 :].any()


def test_slices_stand_in_a_row_in_rgb() -> None:
    first = torch.randn(4, 3, 2, 5, 5, generator=torch.Generator().manual_seed(4))
    last = first.clone()
    last[2, 1, 1, 3, 4] = torch.nan
    models = [nn.Conv3d(3, 4, (2, 5, 5)), nn.Conv3d(3, 4, (2, 5, 5))]
    for model, weight in zip(models, (first, last), strict=True):
        model.weight.data = weight
    picture = comparison_picture(compare(*models))
    zoom = 7  # of 49 / sqrt(2) / 5
    width = 2 * 5 * zoom + 1
    scale = picture.half_ranges[0]
    for tile in columns_of(picture.tile(1), 3, width, 6)[:2]:
        for k in range(2):
            part = tile[zoom // 2 : 5 * zoom : zoom, k * (5 * zoom + 1) + zoom // 2 :: zoom][:, :5]
            assert torch.equal(part, to_levels(first[1, :, k], scale).permute(1, 2, 0))
    bad = columns_of(picture.tile(2), 3, width, 6)[1]
    is_striped = (bad == torch.tensor([255, 0, 255])).all(2) | (bad == 0).all(2)
    assert is_striped[3 * zoom : 4 * zoom, 5 * zoom + 1 + 4 * zoom :].all()
    assert int(is_striped.sum()) == zoom * zoom


def test_three_channels_of_a_1d_layer_are_not_rgb() -> None:
    models = [nn.Conv1d(3, 4, 9), nn.Conv1d(3, 4, 9)]
    picture = comparison_picture(compare(*models, match="index"))
    tiles = columns_of(picture.tile(0), 3, 3 * 72 + 2, 6)
    assert (tiles[0][0, :20] >= 246).all()  # white, where RGB has grey


def test_responses_of_a_1d_layer_are_an_error() -> None:
    found = compare(nn.Conv1d(3, 4, 9), nn.Conv1d(3, 4, 9), match="index")
    with pytest.raises(ValueError, match="no responses: a 1-D convolution reads signals"):
        comparison_picture(found, responses_to=load_probe(None))


def test_many_channels_are_one_mixture_in_all_tiles() -> None:
    first, last = weights(8), 0.5 * weights(8) + 0.3 * weights(8).flip(0)
    picture = comparison_picture(compare(conv(first), conv(last), match="index"))
    for i in range(6):
        matrix = last[i].double().flatten(1)
        takes = torch.linalg.svd(matrix)[0][:, 0]
        takes = takes * (takes @ matrix).sum().sign()
        tiles = parts(picture, i, 3)
        for values, tile in zip((first[i], last[i], last[i] - first[i]), tiles, strict=True):
            plane = (takes @ values.double().flatten(1)).view(1, 5, 5).float()
            expected = diverging(to_levels(plane, picture.half_ranges[i])[0])
            found = tile[ZOOM // 2 :: ZOOM, ZOOM // 2 :: ZOOM].permute(2, 0, 1)
            assert (found.int() - expected.int()).abs().max() <= 5  # a level, by rounding


def test_strips_are_drawn_from_tensors_and_names_alone() -> None:
    first, last = weights(filters=4), weights(filters=4).flip(0)
    columns = [StripColumn("before", first[[1, 3]]), StripColumn("after", last[[1, 3]])]
    picture = draw_strips(
        columns, title="conv", filters=[1, 3], partners=[0, 1, 2, 3], shape=first.shape
    )
    assert picture.layout.filters == 2
    for strip, number in enumerate((1, 3)):
        values = first[number], last[number], last[number] - first[number]
        for kernel, tile in zip(values, parts(picture, strip, 3), strict=True):
            expected = to_levels(kernel, picture.half_ranges[0]).permute(1, 2, 0)
            assert torch.equal(tile[ZOOM // 2 :: ZOOM, ZOOM // 2 :: ZOOM], expected)

"""The response picture of 1-D and 3-D layers."""

import pytest
import torch
from torch import nn

from kernelviz_callback import channel_responses, load_probe, response_grid
from kernelviz_callback.drawing.arrangement import GRID_SIDE, GRID_SLACK
from kernelviz_callback.drawing.colour import diverging, to_levels
from kernelviz_callback.drawing.curves import draw_curves
from kernelviz_callback.drawing.layer_pictures import response_picture
from kernelviz_callback.filters.frequency import frequency_gain
from kernelviz_callback.model.convolutions import geometry_of
from kernelviz_callback.probe.probe import check_fit


def test_the_response_of_a_1d_layer_is_its_frequency_gain() -> None:
    conv = nn.Conv1d(2, 8, 15, dilation=2)
    probe = load_probe(size=32)
    weights = conv.weight.detach()
    picture = response_picture(weights, geometry_of(conv), probe, layer="conv")
    gain = frequency_gain(weights, dilation=2)
    curve = draw_curves(gain[:, None], gain.amax(1), height=56, width=129, base="bottom")
    expected = diverging(to_levels(curve, gain.amax(1)[:, None, None, None]))[5, 0]
    assert torch.equal(picture.tile(5), expected.permute(1, 2, 0))
    check_fit(weights.shape, geometry_of(conv), load_probe(torch.rand(5, 8, 8)))


@pytest.mark.parametrize(("channels", "slices"), [(1, 3), (3, 3), (1, 2), (2, 3)])
def test_slices_side_by_side_fit_the_screen(channels: int, slices: int) -> None:
    conv = nn.Conv3d(channels, 64, (slices, 5, 5))
    for response in ("channels", "sum"):
        picture = response_picture(
            conv.weight.detach(),
            geometry_of(conv),
            load_probe(torch.rand(channels, 224, 224)),
            layer="conv",
            response=response,
        )
        assert picture.layout.width <= GRID_SIDE + GRID_SLACK + 100, "gaps and numbers"


@pytest.mark.parametrize("groups", [1, 2])
def test_the_response_of_a_3d_layer_is_that_of_each_slice(groups: int) -> None:
    conv = nn.Conv3d(3 * groups, 4, (2, 5, 5), dilation=(3, 1, 1), groups=groups)
    probe = load_probe(torch.rand(3 * groups, 40, 40))
    weights = conv.weight.detach()
    picture = response_picture(weights, geometry_of(conv), probe, layer="conv", scale="layer")
    slices = [
        channel_responses(probe.image, weights[:, :, d].contiguous(), groups=groups)
        for d in range(2)
    ]
    expected = response_grid(torch.stack(slices, dim=2), scale="layer")
    torch.testing.assert_close(picture.half_ranges, expected.half_ranges)
    difference = picture.tile(3).int() - expected.tile(3).int()
    assert difference.abs().max() <= 1, "rounded differently at most"
    half = picture.tile(0).shape[1] // 2
    assert not torch.equal(picture.tile(3)[:, :half], picture.tile(3)[:, -half:])

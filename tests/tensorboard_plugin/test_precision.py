"""The error of 16 bits a weight: responses of stored weights against those of exact weights."""

import pytest
import torch
from skimage import data
from torch import Tensor

from kernelviz_callback.filters.responses import channel_responses, summed_responses
from kernelviz_callback.probe.probe import load_probe
from kernelviz_callback.tensorboard_plugin.codec import pack_snapshot, unpack_snapshot

GEOMETRY = {"kind": "Conv2d", "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
ABOUT = {"layer": "conv", "step": 0, "epoch": 0, "wall_time": 0.0, "attempt": 0}


@pytest.fixture(scope="module")
def photograph() -> Tensor:
    return load_probe(torch.from_numpy(data.astronaut()).permute(2, 0, 1) / 255).image


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def checks(*shape: int) -> Tensor:
    """Make filters with small responses to a photograph: they change sign at every pixel."""
    y, x = torch.meshgrid(torch.arange(shape[2]), torch.arange(shape[3]), indexing="ij")
    sign = 1 - 2 * ((x + y) % 2)
    weights = sign * (1 + 0.1 * noise(*shape))
    return weights - weights.mean((2, 3), keepdim=True)


# First layers of ResNet, AlexNet, a vision transformer and VGG.
SHAPES = [(64, 3, 7, 7), (96, 3, 11, 11), (64, 3, 16, 16), (64, 3, 3, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("make", [noise, checks])
@pytest.mark.parametrize("respond", [channel_responses, summed_responses])
def test_errors_of_responses_are_smaller_than_a_colour_level(
    photograph: Tensor, shape: tuple[int, ...], make, respond
) -> None:
    weights = make(*shape)
    header, payload = pack_snapshot(weights.numpy(), geometry=GEOMETRY, **ABOUT)
    assert header["dtype"] == "float16"
    stored = torch.from_numpy(unpack_snapshot(header, payload).weights())
    exact = respond(photograph, weights)
    shown_range = 2 * exact.abs().amax((1, 2, 3), keepdim=True)
    off = (respond(photograph, stored) - exact) / shown_range
    assert 0 < off.abs().max() < 1 / 255

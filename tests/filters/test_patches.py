"""The patches that a layer reads, and what its filters make of them."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernelviz_callback.filters import patches as room
from kernelviz_callback.filters.outputs import Norm, channel_outputs
from kernelviz_callback.filters.patches import Patches, measure_patches, output_moments

LAYERS = {
    "plain": (nn.Conv2d(3, 8, 5), (2, 3, 16, 15)),
    "strided, padded, dilated": (
        nn.Conv2d(3, 8, (3, 5), stride=(2, 3), padding=(2, 1), dilation=(2, 1)),
        (2, 3, 20, 23),
    ),
    "reflected": (nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), (2, 3, 9, 9)),
    "grouped": (nn.Conv2d(6, 8, 3, groups=2), (2, 6, 9, 9)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4, bias=False), (2, 4, 9, 9)),
    "signal": (nn.Conv1d(2, 8, 7, stride=3, padding=3), (2, 2, 50)),
    "clip": (nn.Conv3d(2, 8, (2, 3, 3), padding=1), (2, 2, 5, 7, 7)),
}


def read_by(layer: nn.Module, inputs: Tensor) -> Patches:
    return measure_patches(
        inputs,
        layer.kernel_size,
        stride=layer.stride,
        padding=[(end, end) for end in layer.padding],
        dilation=layer.dilation,
        groups=layer.groups,
        padding_mode=layer.padding_mode,
    )


def given_out(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Return all outputs of a layer, shape (N, positions), float64."""
    with torch.no_grad():
        return layer.double()(inputs.double()).transpose(0, 1).flatten(1)


@pytest.fixture(params=LAYERS)
def case(request) -> tuple[nn.Module, Tensor]:
    layer, shape = LAYERS[request.param]
    generator = torch.Generator().manual_seed(3)
    return layer, torch.randn(shape, generator=generator).cumsum(-1) + 1


def test_the_moments_are_those_of_what_the_layer_gives_out(case) -> None:
    layer, inputs = case
    expected = given_out(layer, inputs)
    mean, variance = output_moments(layer.weight, read_by(layer, inputs), layer.bias)
    torch.testing.assert_close(mean, expected.mean(1))
    torch.testing.assert_close(variance, expected.var(1, correction=0))


def test_the_open_share_is_that_of_what_the_layer_gives_out(case) -> None:
    layer, inputs = case
    expected = (given_out(layer, inputs) > 0).double().mean(1)
    found = channel_outputs(layer.weight, read_by(layer, inputs), bias=layer.bias)
    torch.testing.assert_close(found.open_share, expected)


def test_the_patches_are_those_of_unfold() -> None:
    inputs = torch.randn(2, 3, 12, 11, dtype=torch.float64)
    rows = F.unfold(inputs, (3, 2), stride=2, padding=1, dilation=2).transpose(1, 2).flatten(0, 1)
    found = measure_patches(inputs, (3, 2), stride=(2, 2), padding=[(1, 1)] * 2, dilation=(2, 2))
    torch.testing.assert_close(found.mean[0], rows.mean(0))
    torch.testing.assert_close(found.covariance[0], rows.T.cov(correction=0))
    torch.testing.assert_close(found.sample[0], rows.float())


def test_many_positions_are_sampled_evenly_and_the_same_way_each_time() -> None:
    inputs = torch.linspace(0, 1, 300 * 300).reshape(1, 1, 300, 300)
    found, again = (
        measure_patches(inputs, (1, 1), stride=(1, 1), padding=[(0, 0)] * 2, dilation=(1, 1))
        for _ in range(2)
    )
    assert found.count == room.MOST_PATCHES
    assert torch.equal(found.sample, again.sample)
    assert found.mean.item() == pytest.approx(0.5, abs=1e-4)
    assert found.covariance.item() == pytest.approx(1 / 12, abs=1e-4)


def test_the_patches_of_random_generators_stay_as_they_are() -> None:
    state = torch.get_rng_state()
    measure_patches(
        torch.zeros(1, 1, 200, 200), (1, 1), stride=(1, 1), padding=[(0, 0)] * 2, dilation=(1, 1)
    )
    assert torch.equal(torch.get_rng_state(), state)


def test_a_kernel_larger_than_the_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"covers 9 pixels .* has only 7"):
        measure_patches(
            torch.zeros(1, 1, 5, 5), (5, 5), stride=(1, 1), padding=[(1, 1)] * 2, dilation=(2, 2)
        )


def test_filters_of_another_size_are_refused() -> None:
    layer, shape = LAYERS["plain"]
    patches = read_by(layer, torch.randn(shape))
    with pytest.raises(ValueError, match="27 numbers; found patches of 75 in 1 group"):
        output_moments(torch.zeros(8, 3, 3, 3), patches)


NORMS = {
    "batch": (nn.BatchNorm2d(8), {"kind": "batch"}),
    "instance": (nn.InstanceNorm2d(8, affine=True), {"kind": "instance"}),
    "group": (nn.GroupNorm(4, 8), {"kind": "group", "groups": 4}),
    "layer": (nn.GroupNorm(1, 8), {"kind": "layer"}),
}


@pytest.mark.parametrize("name", NORMS)
def test_the_outputs_are_those_of_a_real_norm_of_one_image(name: str) -> None:
    norm, fields = NORMS[name]
    layer, inputs = nn.Conv2d(3, 8, 5), torch.randn(1, 3, 30, 30).cumsum(-1)
    with torch.no_grad():
        norm.double().weight.copy_(torch.linspace(-1, 2, 8))
        norm.bias.copy_(torch.linspace(-1, 1, 8))
        expected = norm(layer.double()(inputs.double())).transpose(0, 1).flatten(1)
    found = channel_outputs(
        layer.weight,
        read_by(layer, inputs),
        bias=layer.bias,
        norm=Norm(gamma=norm.weight, beta=norm.bias, eps=norm.eps, **fields),
    )
    torch.testing.assert_close(found.mean, expected.mean(1))
    torch.testing.assert_close(found.signal, expected.std(1, correction=0))
    torch.testing.assert_close(found.open_share, (expected > 0).double().mean(1))


def test_a_batch_norm_in_evaluation_mode_uses_its_running_statistics() -> None:
    layer, norm, inputs = nn.Conv2d(3, 8, 5), nn.BatchNorm2d(8), torch.randn(1, 3, 30, 30)
    norm.double()(layer.double()(inputs.double()))  # moves the statistics by a tenth
    with torch.no_grad():
        expected = norm.eval()(layer(inputs.double())).transpose(0, 1).flatten(1)
    found = channel_outputs(
        layer.weight,
        read_by(layer, inputs),
        bias=layer.bias,
        norm=Norm("running", mean=norm.running_mean, variance=norm.running_var, eps=norm.eps),
    )
    torch.testing.assert_close(found.mean, expected.mean(1))
    torch.testing.assert_close(found.signal, expected.std(1, correction=0))


def test_channels_that_a_norm_closes_or_switches_off() -> None:
    layer, inputs = nn.Conv2d(1, 3, 3), torch.randn(4, 1, 20, 20)
    norm = Norm("batch", gamma=torch.tensor([1.0, 0.0, 1.0]), beta=torch.tensor([0.0, 0.5, -20.0]))
    found = channel_outputs(layer.weight, read_by(layer, inputs), norm=norm)
    torch.testing.assert_close(found.signal, torch.tensor([1.0, 0, 1]).double(), atol=1e-3, rtol=0)
    assert found.open_share[1:].tolist() == [1, 0]
    assert 0.4 < found.open_share[0] < 0.6

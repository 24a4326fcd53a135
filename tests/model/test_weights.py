"""`effective_weight` returns the weights that a layer multiplies with, and changes nothing."""

import copy

import pytest
import torch
from torch import nn
from torch.ao.quantization import get_default_qat_qconfig
from torch.nn.utils import parametrizations, parametrize, prune

from kernelviz_callback import effective_weight, find_convolutions

quantization = pytest.mark.filterwarnings("ignore:.*torch.(ao.quantization|quantize_per_tensor)")


def test_the_weight_is_a_contiguous_float32_copy() -> None:
    conv = nn.Conv2d(3, 4, 3).to(torch.bfloat16).to(memory_format=torch.channels_last)
    weight = effective_weight(conv)
    assert weight.dtype == torch.float32
    assert weight.is_contiguous()
    assert not weight.requires_grad
    torch.testing.assert_close(weight, conv.weight.float(), rtol=0, atol=0)
    weight.zero_()
    assert conv.weight.abs().sum() > 0


def after_one_step(conv: nn.Module) -> nn.Module:
    conv.train()
    optimizer = torch.optim.SGD(conv.parameters(), lr=0.5)
    conv(torch.rand(2, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    return conv


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
@pytest.mark.parametrize(
    "wrap",
    [
        parametrizations.spectral_norm,
        parametrizations.weight_norm,
        parametrizations.orthogonal,
        nn.utils.spectral_norm,
        nn.utils.weight_norm,
        lambda conv: prune.random_unstructured(conv, "weight", 0.4),
        lambda conv: prune.random_unstructured(
            prune.random_unstructured(conv, "weight", 0.4), "weight", 0.2
        ),
    ],
    ids=["spectral", "weight", "orthogonal", "old spectral", "old weight", "prune", "prune twice"],
)
def test_the_effective_weight_is_what_the_layer_multiplies_with(wrap) -> None:
    torch.manual_seed(0)
    conv = after_one_step(wrap(nn.Conv2d(3, 4, 3, bias=False)))
    before = copy.deepcopy(conv.state_dict())
    weight = effective_weight(conv)

    for name, value in conv.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} was changed"
    assert conv.training
    probe = torch.rand(1, 3, 8, 8)
    expected = conv.eval()(probe)
    torch.testing.assert_close(nn.functional.conv2d(probe, weight), expected)


def for_quantization_aware_training(conv: nn.Module) -> nn.Module:
    conv.qconfig = get_default_qat_qconfig("x86")
    return torch.ao.nn.qat.Conv2d.from_float(conv)


@quantization
def test_quantization_aware_weights_are_the_rounded_ones() -> None:
    torch.manual_seed(0)
    conv = after_one_step(for_quantization_aware_training(nn.Conv2d(3, 4, 3, bias=False)))
    before = copy.deepcopy(conv.state_dict())
    weight = effective_weight(conv)
    for name, value in conv.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} was changed"
    assert len(weight[0].unique()) < 256, "not rounded"
    assert not torch.equal(weight, conv.weight)
    probe = torch.rand(1, 3, 8, 8)
    expected = conv.eval()(probe)
    torch.testing.assert_close(nn.functional.conv2d(probe, weight), expected)


def test_layers_that_share_a_weight_both_return_it() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3))
    net[1].weight = net[0].weight
    found = find_convolutions(net, "*")
    assert torch.equal(effective_weight(found["0"]), effective_weight(found["1"]))


def test_a_random_parametrization_does_not_change_the_random_state() -> None:
    class Noisy(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight + torch.randn_like(weight)

    conv = nn.Conv2d(3, 4, 3)
    parametrize.register_parametrization(conv, "weight", Noisy())
    before = torch.get_rng_state()
    effective_weight(conv)
    assert torch.equal(torch.get_rng_state(), before)

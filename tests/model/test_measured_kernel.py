"""The measured kernel is what autograd says that a layer multiplies with, whatever its code."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from own_layers import (
    Adapter,
    Doubled,
    Doubled1d,
    Doubled3d,
    Standardized1d,
    Standardized2d,
    Standardized3d,
    kernel_by_autograd,
)
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from kernelviz_callback import effective_weight, find_convolutions, kernel_health
from kernelviz_callback.model.weights import read_kernel

timm_layers = pytest.importorskip("timm.layers")


class LoraLib(nn.Module):
    """Adds a product of two matrices to the weights, as loralib does."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv.requires_grad_(False)
        size = conv.weight[0].numel()
        self.lora_A = nn.Parameter(torch.randn(2, size))
        self.lora_B = nn.Parameter(torch.randn(conv.out_channels, 2))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight + (self.lora_B @ self.lora_A).view_as(self.conv.weight)
        return self.conv._conv_forward(x, weight, self.conv.bias)


def replaced_forward() -> nn.Module:
    conv = nn.Conv2d(3, 4, 5)
    small = nn.Conv2d(3, 4, 5, bias=False)
    before = conv.forward
    conv.forward = lambda x: before(x) + small(x)
    return conv


def equalized() -> nn.Module:
    """A hook scales the weights before each forward pass, as in StyleGAN."""
    conv = nn.Conv2d(3, 4, 5)
    conv.weight_orig = nn.Parameter(conv.weight.detach().clone())
    del conv._parameters["weight"]
    conv.weight = torch.zeros(4, 3, 5, 5)

    def scale(module: nn.Module, _: Any) -> None:
        module.weight = module.weight_orig * 0.3

    conv.register_forward_pre_hook(scale)
    return conv


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "2-D": lambda: Standardized2d(3, 4, 5),
    "stride and padding": lambda: Standardized2d(3, 4, 5, stride=2, padding=2),
    "stride larger than the kernel": lambda: Standardized2d(3, 4, 3, stride=(5, 4)),
    "dilation": lambda: Standardized2d(3, 4, 3, dilation=(3, 2), padding=1),
    "groups": lambda: Standardized2d(6, 4, 3, groups=2),
    "depthwise": lambda: Standardized2d(6, 6, 3, groups=6),
    "same": lambda: Standardized2d(3, 4, (3, 5), padding="same", dilation=(3, 1)),
    "same, even": lambda: Standardized2d(3, 4, (4, 6), padding="same"),
    "valid": lambda: Standardized2d(3, 4, 5, padding="valid"),
    "circular": lambda: Standardized2d(3, 4, 5, padding=2, padding_mode="circular"),
    "reflect": lambda: Standardized2d(3, 4, 5, padding=4, padding_mode="reflect"),
    "replicate": lambda: Standardized2d(3, 4, (5, 3), padding=3, padding_mode="replicate"),
    "more padding than the kernel": lambda: Standardized2d(3, 4, 3, padding=5),
    "1-D": lambda: Standardized1d(2, 4, 7, stride=3, padding=3),
    "3-D": lambda: Standardized3d(3, 4, (2, 3, 5), stride=(1, 2, 2), padding=(0, 1, 2)),
    "1x1": lambda: Standardized2d(5, 4, 1),
    "impulses": lambda: Doubled(3, 4, 5, padding=2),
    "impulses, stride": lambda: Doubled(3, 4, 5, stride=(2, 3), padding=1),
    "impulses, patches": lambda: Doubled(3, 4, 4, stride=4),
    "impulses, dilation": lambda: Doubled(3, 4, 3, dilation=(3, 2), padding=(2, 0), stride=2),
    "impulses, groups": lambda: Doubled(6, 4, 3, groups=2, padding="same"),
    "impulses, circular": lambda: Doubled(3, 4, 5, padding=2, padding_mode="circular"),
    "impulses, reflect": lambda: Doubled(3, 4, 5, padding=4, padding_mode="reflect"),
    "impulses, 1-D": lambda: Doubled1d(2, 4, 7, stride=3, padding=3, dilation=2),
    "impulses, 3-D": lambda: Doubled3d(2, 3, (2, 3, 5), stride=(1, 2, 2), padding=(0, 1, 2)),
    "adapter": lambda: Adapter(nn.Conv2d(3, 4, 5, stride=2, padding=2)),
    "adapter of a matrix": lambda: LoraLib(nn.Conv2d(3, 4, 5, padding="same")),
    "replaced forward": replaced_forward,
    "hook of a user": equalized,
    "spectral norm": lambda: parametrizations.spectral_norm(Standardized2d(3, 4, 5)),
    "timm StdConv2d": lambda: timm_layers.StdConv2d(3, 4, 7, stride=2),
    "timm StdConv2dSame": lambda: timm_layers.StdConv2dSame(3, 4, 7, stride=2, padding="SAME"),
    "timm ScaledStdConv2d": lambda: timm_layers.ScaledStdConv2d(3, 4, 3, stride=2),
    "timm ScaledStdConv2dSame": lambda: timm_layers.ScaledStdConv2dSame(
        3, 4, 3, stride=2, padding="SAME"
    ),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_the_kernel_is_what_autograd_says(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(3)
    layer = make().train()
    kernel = read_kernel(layer)
    assert kernel.unknown is None
    torch.testing.assert_close(kernel.weight, kernel_by_autograd(layer), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(effective_weight(layer), kernel.weight, rtol=0, atol=0)


def test_a_layer_that_only_pads_in_its_own_way_has_exactly_its_weights() -> None:
    conv = timm_layers.Conv2dSame(3, 4, 5, stride=2)
    assert torch.equal(effective_weight(conv), conv.weight)
    conv = conv.bfloat16()
    assert torch.equal(effective_weight(conv), conv.weight.float())


def test_health_and_names_use_the_measured_kernel() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(Standardized2d(3, 16, 7))
    with torch.no_grad():
        net[0].weight.mul_(0.2).add_(0.5)
        net[0].weight[:4] *= 0.01
    assert kernel_health(net).verdicts == kernel_health(kernel_by_autograd(net[0])).verdicts
    [(name, layer)] = find_convolutions(nn.Sequential(Adapter(nn.Conv2d(3, 8, 5)))).items()
    assert name == "0"
    torch.testing.assert_close(effective_weight(layer), kernel_by_autograd(layer))

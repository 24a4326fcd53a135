"""Modules that are convolutions are told from those that cannot be watched, with the reason."""

import re
import warnings
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torch.ao.quantization import get_default_qat_qconfig
from torch.nn.utils import parametrizations

from kernelviz_callback import find_convolutions, geometry_of
from kernelviz_callback.model.convolutions import is_ready, select_convolutions, weight_shape


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.ConvTranspose2d(3, 4, 3), "transposed"),
        (nn.Conv2d(3, 4, 3, dtype=torch.complex64), "complex"),
        (nn.Linear(3, 4), "it is a Linear"),
    ],
)
def test_an_unsupported_layer_is_refused_with_the_reason(module, reason) -> None:
    with pytest.raises(ValueError, match=reason):
        find_convolutions(nn.Sequential(module), "0")
    with pytest.raises(ValueError, match="no convolution to watch in Sequential"):
        find_convolutions(nn.Sequential(module))


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has deprecated TorchScript
        return torch.jit.script(nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU()))


def traced() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has deprecated TorchScript
        return torch.jit.trace(nn.Sequential(nn.Conv2d(3, 8, 5)), torch.rand(1, 3, 8, 8))


def exported() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(3, 8, 5))
    return torch.export.export(net, (torch.rand(1, 3, 8, 8),)).module()


def sparse() -> nn.Module:
    conv = nn.Conv2d(3, 8, 5)
    conv.weight = nn.Parameter(conv.weight.detach().to_sparse())
    return nn.Sequential(conv)


def integers() -> nn.Module:
    conv = nn.Conv2d(3, 8, 5)
    conv.weight = nn.Parameter((conv.weight * 99).to(torch.int8), requires_grad=False)
    return nn.Sequential(conv)


def empty() -> nn.Module:
    conv = nn.Conv2d(3, 8, 5)
    conv.weight = nn.Parameter(conv.weight[:0])
    return nn.Sequential(conv)


UNWATCHABLE = {
    "scripted": (scripted, "Conv2d is TorchScript"),
    "traced": (traced, "Conv2d is TorchScript"),
    "exported": (exported, "torch.export has replaced its convolution"),
    "sparse": (sparse, "its weights are sparse_coo"),
    "meta": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 5, device="meta")),
        "its weights are on the meta device",
    ),
    "integers": (integers, "its weights are int8"),
    "empty": (empty, r"it is empty, of shape \(0, 3, 5, 5\)"),
    "deformable": (
        lambda: nn.Sequential(torchvision.ops.DeformConv2d(3, 8, 5)),
        "it is a DeformConv2d, not a Conv1d, Conv2d or Conv3d",
    ),
}


@pytest.mark.parametrize(("make", "reason"), UNWATCHABLE.values(), ids=UNWATCHABLE)
def test_a_convolution_that_cannot_be_watched_is_named_with_the_reason(make, reason) -> None:
    net = nn.Module()
    net.backbone, net.head = make(), nn.Conv2d(8, 8, 3)
    assert list(find_convolutions(net)) == ["head"]
    selection = select_convolutions(net, "*")
    assert list(selection.found) == ["head"]
    assert re.search(reason, selection.refused["backbone.0"])
    for pattern in ("backbone.0", "backbone.*"):
        with pytest.raises(ValueError, match=reason):
            find_convolutions(net, pattern)
    with pytest.raises(ValueError, match=reason):
        find_convolutions(net.backbone)


def test_a_module_of_torch_fx_is_found() -> None:
    assert list(find_convolutions(torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 8, 5))))) == [
        "0"
    ]


class Adapter(nn.Module):
    """Adds to the output of a convolution what small trained layers compute, as peft does."""

    def __init__(self, base_layer: nn.Conv2d) -> None:
        super().__init__()
        self.base_layer = base_layer.requires_grad_(False)
        self.lora_A = nn.Conv2d(3, 2, base_layer.kernel_size, bias=False)
        self.lora_B = nn.Conv2d(2, 8, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + self.lora_B(self.lora_A(x))


def test_an_adapter_is_one_layer() -> None:
    net = nn.Sequential(Adapter(nn.Conv2d(3, 8, 5, dilation=2)), nn.Conv2d(8, 8, 3))
    net[1].requires_grad_(False)
    assert find_convolutions(net) == {"0": net[0]}, "its own weights are trained"
    assert list(find_convolutions(net, "*")) == ["0", "1"]
    assert find_convolutions(net, "0.base_layer") == {"0": net[0]}
    assert weight_shape(net[0]) == (8, 3, 5, 5)
    assert geometry_of(net[0]).dilation == (2, 2)
    assert is_ready(net[0])


quantization = pytest.mark.filterwarnings("ignore:.*torch.(ao.quantization|quantize_per_tensor)")


@quantization
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: torch.ao.nn.quantized.Conv2d(3, 4, 3), "quantized: its weights are whole numbers"),
        (
            lambda: torch.ao.nn.intrinsic.qat.ConvBn2d(
                3, 4, 3, qconfig=get_default_qat_qconfig("x86")
            ),
            "fused: its weights depend on the batch norm",
        ),
    ],
)
def test_quantized_and_fused_layers_are_refused(make, reason) -> None:
    net = nn.Sequential(make())
    with pytest.raises(ValueError, match=reason):
        find_convolutions(net, "0")


class AnswersForOthers(nn.Module):
    """Passes unknown names on to a network, or to a dictionary."""

    def __init__(self, net: nn.Module, settings: dict[str, int] | None = None) -> None:
        super().__init__()
        self.net = net
        self.settings = settings

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.net, name) if self.settings is None else self.settings[name]

    @property
    def base_layer(self) -> nn.Module:
        raise RuntimeError("not built yet")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x).relu()


class Lora(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.lora_A = nn.Parameter(torch.zeros(2, 27))


@pytest.mark.parametrize("settings", [None, {}])
def test_code_of_a_module_does_not_answer_for_its_layers(settings: Any) -> None:
    net = nn.Sequential(AnswersForOthers(nn.Conv2d(3, 4, 3), settings))
    assert list(find_convolutions(net, "*")) == ["0.net"]
    net = nn.Sequential(
        AnswersForOthers(parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), settings)
    )
    assert list(find_convolutions(net, "*")) == ["0.net"]
    net = nn.Sequential(AnswersForOthers(Lora(), settings))
    assert list(find_convolutions(net, "*")) == ["0.net"]

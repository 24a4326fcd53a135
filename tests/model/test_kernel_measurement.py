"""The measurement leaves the layer as it is, is exact, and is repeated if the layer changes."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from own_layers import (
    Doubled,
    Standardized2d,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from kernelviz_callback import effective_weight
from kernelviz_callback.model.weights import read_kernel


class Masked(nn.Conv2d):
    """Sets weights to zero in place, in every forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones_like(self.weight)
        mask[..., 2:, :] = 0
        self.weight.data *= mask
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward(x) + 0 * torch.rand_like(x).sum()


def test_the_layer_is_not_changed() -> None:
    conv = Masked(3, 4, 3).train()
    hooked: list[int] = []
    conv.register_forward_hook(lambda *_: hooked.append(1))
    conv.weight.grad = torch.ones_like(conv.weight)
    before, random = copy.deepcopy(vars(conv)), torch.get_rng_state()
    weight = effective_weight(conv)
    assert weight[..., 2:, :].abs().sum() == 0
    assert torch.equal(weight[..., :2, :], conv.weight[..., :2, :])
    assert torch.equal(conv.weight, before["_parameters"]["weight"])
    assert torch.equal(conv.weight.grad, torch.ones_like(conv.weight))
    assert torch.equal(torch.get_rng_state(), random)
    assert vars(conv).keys() == before.keys()
    assert conv.training
    assert not hooked


class Counted(Standardized2d):
    calls = 0
    scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        Counted.calls += 1  # an attribute of the class is not restored
        return self.scale * super().forward(x)


def test_a_kernel_is_measured_again_only_if_the_layer_has_changed() -> None:
    conv = Counted(3, 4, 3)
    first = effective_weight(conv)
    calls = Counted.calls
    first.zero_()
    assert effective_weight(conv).abs().sum() > 0, "the result is a copy"
    assert Counted.calls == calls
    conv.weight.data[0] *= torch.rand(3, 3, 3)  # does not count as a new version of the parameter
    changed = effective_weight(conv)
    assert Counted.calls > calls
    calls = Counted.calls
    conv.scale = 2.0
    torch.testing.assert_close(effective_weight(conv), 2 * changed)
    assert Counted.calls > calls


class Operations(TorchDispatchMode):
    """Notes whether each convolution may round to TF32."""

    def __init__(self) -> None:
        super().__init__()
        self.may_round: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            self.may_round.append(torch.backends.cudnn.allow_tf32)
        elif func is torch.ops.aten._convolution.default:
            self.may_round.append(args[-1])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", [Standardized2d, Doubled])
def test_convolutions_are_not_rounded_to_tf32(kind: type[nn.Conv2d]) -> None:
    with Operations() as operations:
        read_kernel(kind(3, 4, 3))
    assert operations.may_round
    assert not any(operations.may_round)
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_kernel_is_exact_on_a_gpu() -> None:
    layer = Doubled(3, 4, 5, padding=2)
    expected = read_kernel(layer).weight
    torch.testing.assert_close(read_kernel(layer.cuda()).weight.cpu(), expected, rtol=0, atol=1e-5)


class Scheduled(nn.Conv2d):
    """Multiplies its weights with tensors and objects that are no buffers and no modules."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.mask = torch.ones_like(self.weight)
        self.scales = [torch.ones(1)]

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.mask * self.scales[0]
        return F.conv2d(x, weight * getattr(self, "schedule", SCHEDULE).factor, self.bias)


SCHEDULE = SimpleNamespace(factor=1.0)


def test_a_kernel_is_measured_again_if_a_tensor_or_an_object_of_the_layer_has_changed() -> None:
    conv = Scheduled(3, 4, 3)
    assert torch.equal(effective_weight(conv), conv.weight)
    conv.mask[0] = 0
    assert effective_weight(conv)[0].count_nonzero() == 0
    conv.scales[0] *= 2
    torch.testing.assert_close(effective_weight(conv)[1:], 2 * conv.weight[1:].detach())
    conv.schedule = SimpleNamespace(factor=1.0)
    effective_weight(conv)
    conv.schedule.factor = 3.0
    torch.testing.assert_close(effective_weight(conv)[1:], 6 * conv.weight[1:].detach())


@pytest.mark.parametrize("make", [Standardized2d, Doubled])
def test_the_default_device_and_type_do_not_matter(make: type[nn.Conv2d]) -> None:
    conv = make(3, 4, 3, stride=2)
    expected = effective_weight(conv)
    conv.bias.data += 1  # so that the kernel is measured again
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            weight = effective_weight(conv)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(weight, expected)

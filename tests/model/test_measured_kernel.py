"""The measured kernel is what autograd says that a layer multiplies with, whatever its code."""

import copy
from collections.abc import Callable
from math import prod
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils._python_dispatch import TorchDispatchMode

from kernelviz_callback import effective_weight, find_convolutions, kernel_health
from kernelviz_callback.model.convolutions import geometry_of, weight_shape
from kernelviz_callback.model.measured_kernel import NotAConvolution, measure_kernel
from kernelviz_callback.model.weights import read_kernel

timm_layers = pytest.importorskip("timm.layers")


def kernel_by_autograd(layer: nn.Module) -> Tensor:
    """Differentiate one output in the middle of an image by every pixel: slow and independent.

    The window that the output reads begins where the gradient begins, so the outermost weights of
    the kernel must not be zero.
    """
    filters, channels, *taps = weight_shape(layer)
    geometry = geometry_of(layer)
    layer = copy.deepcopy(layer).eval()
    extents = [d * (k - 1) + 1 for d, k in zip(geometry.dilation, taps, strict=True)]
    sizes = [5 * max(e, s) for e, s in zip(extents, geometry.stride, strict=True)]
    image = torch.zeros(1, channels * geometry.groups, *sizes, requires_grad=True)
    output = layer(image)
    middle = [n // 2 for n in output.shape[2:]]
    kernel = torch.zeros(filters, channels, *taps)
    for number in range(filters):
        [gradient] = torch.autograd.grad(output[(0, number, *middle)], image, retain_graph=True)
        group = number // (filters // geometry.groups)
        own = gradient[0, group * channels : (group + 1) * channels]
        assert own.count_nonzero() == gradient.count_nonzero() <= prod(kernel.shape[1:])
        for dim, (extent, dilation) in enumerate(zip(extents, geometry.dilation, strict=True), 1):
            others = [d for d in range(own.ndim) if d != dim]
            first = own.abs().sum(others).nonzero().min().item()
            own = own.narrow(dim, first, extent).index_select(
                dim, torch.arange(0, extent, dilation)
            )
        kernel[number] = own
    return kernel


class Standardized(nn.Module):
    """Standardizes the weights in its forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        dims = tuple(range(1, self.weight.ndim))
        variance, mean = torch.var_mean(self.weight, dims, keepdim=True, unbiased=False)
        weight = (self.weight - mean) / (variance + 1e-10).sqrt()
        return self._conv_forward(x, weight, self.bias)


class Standardized1d(Standardized, nn.Conv1d):
    pass


class Standardized2d(Standardized, nn.Conv2d):
    pass


class Standardized3d(Standardized, nn.Conv3d):
    pass


class Doubled(nn.Conv2d):
    """Calls two convolutions, so that its weights can be measured with impulses only."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + super().forward(2 * x)


class Doubled1d(nn.Conv1d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + super().forward(2 * x)


class Doubled3d(nn.Conv3d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + super().forward(2 * x)


class Adapter(nn.Module):
    """Adds to the output of a convolution what small trained layers compute, as peft does."""

    def __init__(self, base_layer: nn.Conv2d, rank: int = 2) -> None:
        super().__init__()
        self.base_layer = base_layer.requires_grad_(False)
        settings = {
            name: getattr(base_layer, name)
            for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        }
        self.lora_A = nn.Conv2d(base_layer.in_channels, rank, bias=False, **settings)
        self.lora_B = nn.Conv2d(rank, base_layer.out_channels, 1, bias=False)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + 3 * self.lora_B(self.lora_A(self.dropout(x)))


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


class Mixed(nn.Conv2d):
    """Makes its weights of a basis, and has no parameter ``weight``."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        del self.weight
        self.basis = nn.Parameter(torch.randn(2, sizes[1], sizes[0], sizes[2], sizes[2]))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.basis.sum(0), self.bias)


class LowRank(nn.Conv2d):
    """Two layers, one after the other."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        del self.weight
        self.narrow = nn.Conv2d(sizes[0], 2, sizes[2], bias=False)
        self.wide = nn.Conv2d(2, sizes[1], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.wide(self.narrow(x))


class Blur(nn.Conv2d):
    """Has buffers and no parameters."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes, bias=False)
        weight = self.weight.detach()
        del self.weight
        self.register_buffer("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * 2)


@pytest.mark.parametrize("kind", [Mixed, LowRank, Blur])
def test_a_layer_without_the_parameter_weight_is_measured(kind: type[nn.Conv2d]) -> None:
    torch.manual_seed(3)
    layer = kind(3, 4, 3)
    kernel = read_kernel(layer)
    assert kernel.unknown is None
    torch.testing.assert_close(kernel.weight, kernel_by_autograd(layer), rtol=1e-4, atol=1e-5)


def test_a_layer_that_stores_no_weights_and_is_no_convolution_is_refused() -> None:
    layer = Mixed(3, 4, 3)
    layer.forward = lambda x: x.relu()
    with pytest.raises(ValueError, match=r"Mixed stores no weights, .*; watch other layers"):
        read_kernel(layer)


class Relu(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class Dynamic(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * x.mean(), self.bias)


class Asks(nn.Conv2d):
    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        return super().forward(x + offset)


class Pooled(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).flatten(1)


NO_CONVOLUTIONS = {
    "not linear": (Relu, "its output is not its input, convolved with one kernel"),
    "other weights for each image": (Dynamic, "its output is not its input, convolved"),
    "a second input": (Asks, r"it failed on images of shape \(3, 14, 14\): TypeError"),
    "another output": (Pooled, r"it returns \(1, \d+\) instead of 4 maps for each image"),
}


@pytest.mark.parametrize(("kind", "reason"), NO_CONVOLUTIONS.values(), ids=NO_CONVOLUTIONS)
def test_the_stored_weights_are_taken_with_the_reason(kind: type[nn.Conv2d], reason: str) -> None:
    conv = kind(3, 4, 3, bias=False)
    with pytest.raises(NotAConvolution, match=reason):
        measure_kernel(conv)
    kernel = read_kernel(conv)
    assert torch.equal(kernel.weight, conv.weight)
    assert kernel.unknown is not None
    with pytest.warns(UserWarning, match=f"{kind.__name__}: cannot measure .*{reason}"):
        assert torch.equal(effective_weight(conv), conv.weight)


def test_a_layer_that_is_too_large_is_not_measured() -> None:
    with pytest.raises(NotAConvolution, match="too large"):
        measure_kernel(Doubled(512, 1024, 3))
    large = Standardized2d(512, 512, 3)  # calls one convolution, so nothing has to be multiplied
    assert read_kernel(large).unknown is None


def test_weights_that_are_not_finite_are_shown_as_they_are() -> None:
    conv = Standardized2d(3, 4, 3)
    with torch.no_grad():
        conv.weight[1, 0, 0, 0] = torch.nan
    kernel = read_kernel(conv)
    assert kernel.unknown is None
    assert kernel.weight[1].isnan().all()
    assert kernel.weight[[0, 2, 3]].isfinite().all()


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

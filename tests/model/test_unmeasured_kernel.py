"""What is returned for a layer that stores no weights, or whose weights cannot be measured."""

import pytest
import torch
from own_layers import Doubled, Standardized2d, kernel_by_autograd
from torch import Tensor, nn
from torch.nn import functional as F

from kernelviz_callback import effective_weight
from kernelviz_callback.model.measured_kernel import NotAConvolution, measure_kernel
from kernelviz_callback.model.weights import read_kernel


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

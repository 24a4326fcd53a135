"""Layers that compute their output in ways of their own, and their kernels by autograd."""

import copy
from math import prod

import torch
from torch import Tensor, nn

from kernelviz_callback.model.convolutions import geometry_of, weight_shape


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

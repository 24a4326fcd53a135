"""Read the weights that a convolution multiplies with, also where it derives them from others."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kernelviz_callback.model.layer_kinds import Convolution


@torch.no_grad()
def effective_weight(conv: Convolution) -> Tensor:
    """Copy the weights that a layer multiplies its input with. The layer is not changed.

    Weight norm, spectral norm, pruning and quantization-aware training store other tensors and
    derive the weights from them. This function returns the derived weights, as they are in
    evaluation mode. It handles parametrizations and the older hooks. Reading ``conv.weight``
    instead gives a wrong result: under spectral norm in training mode it advances the power
    iteration, and under the hooks it returns the weights before the last optimizer step.

    Args:
        conv: The layer, on any device and in any mode.

    Returns:
        Shape (N, C, kH, kW); (N, C, kD, kH, kW) for a 3-D layer; (N, C, k) for a 1-D layer.
        A detached float32 copy (float64 is rounded) on the device of the layer.
    """
    if parametrize.is_parametrized(conv, "weight"):
        weight = _weight_of_parametrization(conv)
    elif hasattr(conv, "weight_fake_quant"):
        weight = _fake_quantized(conv)
    else:
        weight = _weight_of_hooks(conv)
    whole: Tensor = weight.detach().to(
        torch.float32, memory_format=torch.contiguous_format, copy=True
    )
    return whole


def _weight_of_parametrization(conv: Convolution) -> Tensor:
    parametrization: nn.Module = copy.deepcopy(conv.parametrizations["weight"])  # type: ignore[index, assignment]
    device = next(conv.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        derived: Tensor = parametrization.eval()()
    return derived


def _fake_quantized(conv: Convolution) -> Tensor:
    # Calling the quantizer updates its observer, so a copy is called.
    derived: Tensor = copy.deepcopy(conv.weight_fake_quant)(conv.weight)  # type: ignore[operator]
    return derived


def _weight_of_hooks(conv: Convolution) -> Tensor:
    hooks: Iterable[Any] = conv._forward_pre_hooks.values()
    for hook in hooks:
        if getattr(hook, "name", getattr(hook, "_tensor_name", None)) != "weight":
            continue
        derived: Tensor
        if hasattr(hook, "apply_mask"):  # torch.nn.utils.prune
            derived = hook.apply_mask(conv)
        elif hasattr(hook, "n_power_iterations"):  # torch.nn.utils.spectral_norm
            derived = hook.compute_weight(conv, do_power_iteration=False)
        else:  # torch.nn.utils.weight_norm
            derived = hook.compute_weight(conv)
        return derived
    return conv.weight

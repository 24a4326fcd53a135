"""Read the weights that a convolution multiplies with, also where it derives them from others."""

import copy
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeGuard
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_flatten

from kernelviz_callback.model.isolation import derives_weights
from kernelviz_callback.model.layer_kinds import (
    CONVOLUTIONS,
    Convolution,
    base_of,
    stored_weight,
)
from kernelviz_callback.model.measured_kernel import NotAConvolution, measure_kernel

_METHODS = ("forward", "_conv_forward")
# Attributes in which a module keeps its parts, and values that do not change.
_PARTS = {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"}
_PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.device)
_ROUNDING = 1e-5  # of measured weights, relative to the largest weight


@dataclass(frozen=True)
class Kernel:
    """The weights of a layer.

    Attributes:
        weight: Shape (N, C, kH, kW); (N, C, kD, kH, kW) for a 3-D layer; (N, C, k) for a 1-D layer.
            A detached float32 copy (float64 is rounded) on the device of the layer.
        unknown: None if the layer multiplies its input with these weights. Otherwise the reason why
            that is not known: then these are the weights that the layer stores.
    """

    weight: Tensor
    unknown: str | None = None


# What the weights of a layer depended on when they were measured, and the result.
_measured: WeakKeyDictionary[nn.Module, tuple[list[Any] | None, Kernel]] = WeakKeyDictionary()


def effective_weight(layer: nn.Module) -> Tensor:
    """Copy the weights that a layer multiplies its input with. The layer is not changed.

    Weight norm, spectral norm, pruning and quantization-aware training store other tensors and
    derive the weights from them. This function returns the derived weights, as they are in
    evaluation mode. It handles parametrizations and the older hooks. Reading ``conv.weight``
    instead gives a wrong result: under spectral norm in training mode it advances the power
    iteration, and under the hooks it returns the weights before the last optimizer step.

    A layer with a ``forward`` of its own, such as a weight-standardized convolution, and an
    adapter, such as LoRA, are run to measure their weights, see `measure_kernel`. If that is not
    possible, a warning says so, and the weights that the layer stores are returned. Hooks of your
    own are called only if they derive the weights.

    Args:
        layer: A convolution or an adapter, on any device and in any mode.

    Returns:
        `Kernel.weight`.
    """
    kernel = read_kernel(layer)
    if kernel.unknown is not None:
        warnings.warn(
            f"{type(layer).__name__}: cannot measure the weights that it multiplies with "
            f"({kernel.unknown}); these are the weights that it stores",
            stacklevel=2,
        )
    return kernel.weight


@torch.no_grad()
def read_kernel(layer: nn.Module) -> Kernel:
    """Copy the weights that a layer multiplies its input with, or else those that it stores.

    Args:
        layer: See `effective_weight`.
    """
    if _is_plain_convolution(layer):
        return Kernel(_copy(layer.weight))
    base = base_of(layer)
    if base is None:
        raise TypeError(f"expected a Conv1d, Conv2d or Conv3d; found {type(layer).__name__}")
    if not _is_computed_elsewhere(layer):
        return Kernel(_copy(_stored_kernel(base)))
    state = _state_of(layer)
    known = _measured.get(layer)
    if known is None or not _is_same(known[0], state):
        known = state, _measure(layer, base)
        if state is not None:
            _measured[layer] = known
    return Kernel(known[1].weight.clone(), known[1].unknown)


def _is_plain_convolution(layer: nn.Module) -> TypeGuard[Convolution]:
    """Whether a layer is torch's own and stores the weights that it multiplies with."""
    return (
        type(layer) in CONVOLUTIONS
        and "weight" in layer._parameters
        and vars(layer).keys().isdisjoint(_METHODS)
    )


def _is_computed_elsewhere(layer: nn.Module) -> bool:
    """Whether other code than torch's own computes the output of a layer, or its weights."""
    kind = next((kind for kind in CONVOLUTIONS if isinstance(layer, kind)), None)
    if kind is None:
        return True
    if hasattr(layer, "weight_fake_quant"):
        return False
    if any(getattr(type(layer), name) is not getattr(kind, name) for name in _METHODS):
        return True
    return not vars(layer).keys().isdisjoint(_METHODS) or _has_own_weight_hook(layer)


def _has_own_weight_hook(layer: nn.Module) -> bool:
    """Whether a hook that is not torch's sets the weights before each forward pass."""
    if "weight" in layer._parameters or parametrize.is_parametrized(layer, "weight"):
        return False
    return any(not derives_weights(hook) for hook in layer._forward_pre_hooks.values())


def _measure(layer: nn.Module, base: Convolution) -> Kernel:
    # A layer that makes its weights of other tensors may store no weights.
    stored = None if stored_weight(base) is None else _copy(_stored_kernel(base))
    try:
        if any(hasattr(p, "full_tensor") for p in layer.parameters()):
            raise NotAConvolution("its parameters are spread over processes")
        measured = _copy(measure_kernel(layer, with_hooks=_has_own_weight_hook(layer)))
    except NotAConvolution as error:
        if stored is None:
            raise ValueError(
                f"{type(layer).__name__} stores no weights, and those that it multiplies with "
                f"cannot be measured ({error}); watch other layers with layers=..."
            ) from error
        return Kernel(stored, str(error))
    if stored is None:
        return Kernel(measured)
    rounding = _ROUNDING * stored.abs().amax()
    is_stored = measured.shape == stored.shape and (measured - stored).abs().amax() <= rounding
    return Kernel(stored if is_stored else measured)


def _state_of(layer: nn.Module) -> list[Any] | None:
    """Copy all that the weights of a layer depend on; None if this cannot be known."""
    if not vars(layer).keys().isdisjoint(_METHODS) or _has_own_weight_hook(layer):
        return None
    tensors = [*layer.parameters(), *layer.buffers()]
    settings: list[Any] = []
    for module in layer.modules():
        own = {n: v for n, v in vars(module).items() if n not in _PARTS and "_hooks" not in n}
        leaves, structure = tree_flatten(own)
        plain = [leaf for leaf in leaves if not isinstance(leaf, Tensor)]
        if not all(isinstance(leaf, _PLAIN) for leaf in plain):
            return None
        tensors += [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        settings.append([structure, plain])
    return [[t.detach().clone() for t in tensors], settings]


def _is_same(before: list[Any] | None, now: list[Any] | None) -> bool:
    if before is None or now is None:
        return False
    [tensors, settings], [others, other_settings] = before, now
    return (
        len(tensors) == len(others)
        and settings == other_settings
        and all(
            a.shape == b.shape and a.device == b.device and torch.equal(a, b)
            for a, b in zip(tensors, others, strict=True)
        )
    )


def _copy(weight: Tensor) -> Tensor:
    return weight.detach().to(torch.float32, memory_format=torch.contiguous_format, copy=True)


def _stored_kernel(conv: Convolution) -> Tensor:
    if parametrize.is_parametrized(conv, "weight"):
        return _weight_of_parametrization(conv)
    if hasattr(conv, "weight_fake_quant"):
        return _fake_quantized(conv)
    return _weight_of_hooks(conv)


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

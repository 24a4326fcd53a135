"""Which modules are convolutions that can be watched, and why others cannot be."""

import re
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kernelviz_callback.drawable import why_not_drawable

Convolution: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_RANKS = (3, 4, 5)  # dimensions of the weights of a convolution
# Attributes under which torch stores weights, or what it derives the weights from.
_STORED_AS = ("weight", "weight_orig", "weight_v")
_QUANTIZED_MODULE = re.compile(r"torch\.ao\.nn\.(intrinsic\.)?quantized")
_CONVOLUTION_NAME = re.compile(r"Conv\w*[123]d")  # Conv2d, LazyConv2d, DeformConv2d, ConvReLU2d


def base_of(module: nn.Module) -> Convolution | None:
    """Return the convolution that has the settings of a layer, or None if there is none.

    It is the module itself, or the convolution inside an adapter. An adapter, such as LoRA, is a
    module that computes the output of a convolution from the weights of that convolution and from
    weights of its own. The adapters of peft and of loralib are known.

    Example:
        >>> base_of(nn.Conv2d(3, 8, 5))
        Conv2d(3, 8, kernel_size=(5, 5), stride=(1, 1))
    """
    if isinstance(module, CONVOLUTIONS):
        return module
    if isinstance(module, torch.jit.ScriptModule):
        return None
    # Not `getattr`: code of the module may answer with a part of another module, or fail.
    inner = module._modules.get("base_layer")  # peft
    if inner is None and ("lora_A" in module._parameters or "lora_A" in module._modules):  # loralib
        inner = module._modules.get("conv")
    return inner if isinstance(inner, CONVOLUTIONS) else None


def stored_weight(module: nn.Module) -> Tensor | None:
    """Return the weights of a module, or the tensor that they are derived from. Compute nothing.

    The result has the shape of the weights. It is None if the module has no weights.
    """
    parametrizations: Any = module._modules.get("parametrizations")  # see `base_of`
    if isinstance(parametrizations, nn.ModuleDict) and "weight" in parametrizations:
        parts: Any = parametrizations["weight"]
        originals: list[Tensor] = [*parts.parameters(recurse=False), *parts.buffers(recurse=False)]
        return max(originals, key=Tensor.numel, default=None)
    for name in _STORED_AS:
        for place in (module._parameters, module._buffers, vars(module)):
            value = place.get(name)
            if isinstance(value, Tensor):
                return value
    return None


def is_like_convolution(module: nn.Module) -> bool:
    """Whether a user would look for the module in a list of convolutions."""
    if isinstance(module, nn.modules.conv._ConvNd) or base_of(module) is not None:
        return True
    if _CONVOLUTION_NAME.search(_class_name(module)) and not any(module.children()):
        return True
    if isinstance(module, torch.jit.ScriptModule):
        return False
    weight = stored_weight(module)
    ranks = _RANKS if type(module) is nn.Module else _RANKS[1:]  # torch.export makes plain modules
    return weight is not None and not is_lazy(weight) and weight.ndim in ranks


def why_unwatchable(module: nn.Module) -> str | None:
    """Return the reason why a module cannot be shown as a convolution, or None if it can.

    The reason completes the sentence "<name> cannot be watched, ...".

    Example:
        >>> why_unwatchable(nn.ConvTranspose2d(3, 8, 4))
        'ConvTranspose2d is transposed: it does not compute filter responses'
        >>> why_unwatchable(nn.Linear(3, 8))
        'it is a Linear'
    """
    name = _class_name(module)
    if isinstance(module, torch.jit.ScriptModule):
        return f"{name} is TorchScript: watch the model before torch.jit.script or torch.jit.trace"
    if _QUANTIZED_MODULE.match(type(module).__module__):
        return f"{name} is quantized: its weights are whole numbers and are not trained any more"
    if module._modules.keys() >= {"weight_fake_quant", "bn"}:
        return f"{name} is fused: its weights depend on the batch norm inside it"
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return f"{name} is transposed: it does not compute filter responses"
    if type(module) is nn.Module and is_like_convolution(module):
        return (
            "torch.export has replaced its convolution by an operation: watch the model before the "
            "export"
        )
    base = base_of(module)
    if base is None:
        like = is_like_convolution(module)
        return f"it is a {name}" + (", not a Conv1d, Conv2d or Conv3d" if like else "")
    return _why_unreadable(base)


def _why_unreadable(conv: Convolution) -> str | None:
    """Return what is wrong with the weights of a convolution; None if they can be read."""
    weight = stored_weight(conv)
    if weight is None or is_lazy(weight):
        return None  # a strategy has taken them away, or the first forward will make them
    if weight.is_complex():
        return "its weights are complex"
    if weight.layout != torch.strided:
        return f"its weights are {str(weight.layout).removeprefix('torch.')}"
    if weight.is_meta:
        return "its weights are on the meta device, where they have no values"
    if not weight.is_floating_point():
        return f"its weights are {str(weight.dtype).removeprefix('torch.')}"
    if 0 in weight.shape and weight.ndim in _RANKS:
        return f"it is empty, of shape {tuple(weight.shape)}"
    return why_not_drawable(weight.shape) if weight.ndim in _RANKS else None


def _class_name(module: nn.Module) -> str:
    if isinstance(module, torch.jit.ScriptModule):
        return str(module.original_name)
    return type(module).__name__

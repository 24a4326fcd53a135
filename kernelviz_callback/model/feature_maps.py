"""Run the model on the probe and record the outputs of layers, which are their feature maps.

The model itself is run, on its own device, and every side effect is undone. A copy of the model is
not used: it may not fit into memory, and references in plain lists and closures of the copy would
still lead to the original model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernelviz_callback.model.call_order import has_forward, why_it_cannot_run
from kernelviz_callback.model.isolation import (
    CollectiveOperation,
    isolated_run,
    why_run_failed,
)


@dataclass(frozen=True)
class FeatureMap:
    """The output of one layer.

    Attributes:
        values: Shape (N, H', W'), float32, on the device of the model: one map for each filter.
        shrink: Each value is the average of ``shrink`` x ``shrink`` pixels of the layer's output.
    """

    values: Tensor
    shrink: int = 1


@dataclass(frozen=True)
class FeatureMaps:
    """The result of `feature_maps`.

    Attributes:
        maps: Layer name to the feature map.
        absent: Layer name to the reason why this layer has no feature map.
    """

    maps: Mapping[str, FeatureMap] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)

    def to(self, device: torch.device) -> "FeatureMaps":
        """Return the maps on another device."""
        maps = {n: FeatureMap(m.values.to(device), m.shrink) for n, m in self.maps.items()}
        return FeatureMaps(maps, self.absent)


def feature_maps(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    probe: Tensor,
    *,
    shrink: Callable[[int, int, int], int] = lambda filters, height, width: 1,
) -> FeatureMaps:
    """Run a model on an image and return the output of each layer, its feature map.

    The input of a layer is the output of the layers before it, as in training. The model reads the
    probe as a batch of one, in evaluation mode, without gradients and without autocast, until every
    layer has been called. A map is the output of the first call of the layer, with its bias and
    before any nonlinearity. If a module has no ``forward`` (for example a ``LightningModule`` whose
    ``training_step`` calls a network), the part of it with most of the layers is run instead.

    Every side effect on the model is undone, also after an exception, see `undo_side_effects`.
    Hooks are not called, except torch's hooks that derive weights. Nothing is compiled.
    ``self.log`` does nothing.

    Args:
        model: A model in any mode, on the CPU or CUDA. Its parameters must not be sharded, because
            then the other processes would have to run the model too.
        layers: Name to module. The modules are parts of the model.
        probe: Shape (C, H, W), with the channels that the first layer reads. It is copied to the
            device and type of the model's first parameter.
        shrink: Function of (filters, height, width) of a map. It returns the whole factor by which
            the map is shrunk by averaging.

    Returns:
        The maps, and the reasons of layers without a map: the model cannot run, it fails before it
        calls the layer, or it ends without calling it (for example a head used only in training).

    Raises:
        ValueError: If the probe is not (C, H, W).

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.Flatten())
        >>> found = feature_maps(net, {"2": net[2]}, torch.rand(3, 9, 9))
        >>> found.maps["2"].values.shape, found.absent
        (torch.Size([8, 5, 5]), {})
    """
    if probe.ndim != 3:
        raise ValueError(f"expected a probe of shape (C, H, W); found {tuple(probe.shape)}")
    reason = why_it_cannot_run(model)
    if reason is not None:
        return FeatureMaps(absent=dict.fromkeys(layers, reason))
    parameter = next(p for p in model.parameters() if p.is_floating_point())
    # Channels of the probe may share their memory, and some models change their input in place.
    batch = probe.to(
        parameter.device, parameter.dtype, memory_format=torch.contiguous_format, copy=True
    )[None]
    found: dict[str, FeatureMap] = {}
    reason = "the model ended without calling it"
    try:
        with isolated_run(model, batch.device):
            _record_outputs(layers, found, shrink)
            module_to_run(model, layers)(batch)
    except _AllLayersCalled:
        pass
    except (Exception, CollectiveOperation) as error:
        reason = why_run_failed(error, batch.shape)
    return FeatureMaps(found, {name: reason for name in layers if name not in found})


class _AllLayersCalled(BaseException):
    """Raised to end the forward pass when every layer has been called.

    It is not an `Exception`, because some models catch every `Exception` in their forward pass.
    """


def _record_outputs(
    layers: Mapping[str, nn.Module],
    found: dict[str, FeatureMap],
    shrink: Callable[[int, int, int], int],
) -> None:
    def make_hook(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if name not in found:
                values = output[0] if output.ndim == 4 else output
                filters, height, width = values.shape
                found[name] = _averaged(values, shrink(filters, height, width))
                if len(found) == len(layers):
                    raise _AllLayersCalled

        return hook

    for name, layer in layers.items():
        layer.register_forward_hook(make_hook(name))


def _averaged(values: Tensor, factor: int) -> FeatureMap:
    """Return a copy in every case, because the next layer may change its input in place."""
    if factor == 1:
        return FeatureMap(values.to(torch.float32, copy=True))
    return FeatureMap(F.avg_pool2d(values[None].float(), factor)[0], factor)


def module_to_run(model: nn.Module, layers: Mapping[str, nn.Module]) -> nn.Module:
    """Return the outermost module that has a forward and contains the most of the layers."""
    wanted = set(map(id, layers.values()))
    runnable = [module for module in model.modules() if has_forward(module)]
    return max(runnable, key=lambda module: len(wanted & set(map(id, module.modules()))))

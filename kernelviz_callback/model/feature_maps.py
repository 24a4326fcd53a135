"""Run the model on the probe: feature maps are what its layers give out meanwhile.

The model runs where it is and is left as it was. A copy of it would be no way: there may be no room
for one, and what a model keeps in plain lists and closures leads from the copy to the model itself.
"""

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy

from kernelviz_callback.model.convolutions import find_convolutions
from kernelviz_callback.model.isolation import AsksOthers, untouched

# Where random numbers can be put back.
_DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class FeatureMap:
    """What one layer gave out.

    Attributes:
        values: Shape (N, H', W'), float32, on the device of the model: a map a filter.
        shrink: They are averages over ``shrink`` x ``shrink`` pixels of the layer's output.
    """

    values: Tensor
    shrink: int = 1


@dataclass(frozen=True)
class FeatureMaps:
    """What `feature_maps` found.

    Attributes:
        maps: Layer name to its map.
        absent: Layer name to the reason, of the layers that have none.
    """

    maps: Mapping[str, FeatureMap] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)

    def to(self, device: torch.device) -> "FeatureMaps":
        """Bring all maps to one device."""
        maps = {n: FeatureMap(m.values.to(device), m.shrink) for n, m in self.maps.items()}
        return FeatureMaps(maps, self.absent)


def feature_maps(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    probe: Tensor,
    *,
    shrink: Callable[[int, int, int], int] = lambda filters, height, width: 1,
) -> FeatureMaps:
    """What each layer makes of an image when it sees it as in training: through the layers below.

    The model reads the probe as a batch of one, in evaluation mode, without gradients and without
    autocast, until every layer has been called. A map is the output of a layer's first call: with
    its bias, before any nonlinearity. A module without a ``forward`` of its own (a
    ``LightningModule`` whose step calls its network) is passed over for its child that has the
    first convolution.

    When this returns or raises the model is as before, see `untouched`. Hooks are not called,
    except those of torch's own that derive weights; nothing is compiled; ``self.log`` is not heard.

    Args:
        model: In any mode, on the CPU or CUDA, its parameters whole: the others would have to run
            it too where they are spread over processes.
        layers: Name to module, of modules of the model.
        probe: Shape (C, H, W), as the model's first layer reads it. It is brought to the device and
            type of the model's first parameter.
        shrink: By what whole factor to average maps of (filters, height, width).

    Returns:
        The maps, and why a layer has none: the model cannot run, fails before the layer is called,
        or ends without calling it, as it does with a head that only training needs.

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
    reason = _why_it_cannot_run(model)
    if reason is not None:
        return FeatureMaps(absent=dict.fromkeys(layers, reason))
    parameter = next(p for p in model.parameters() if p.is_floating_point())
    batch = probe.to(parameter.device, parameter.dtype)[None]
    found: dict[str, FeatureMap] = {}
    reason = "the model ended without calling it"
    with untouched(model), _eagerly(), torch.no_grad(), _without_autocast(batch):
        _watch(layers, found, shrink)
        try:
            _reader(model)(batch)
        except _AllFound:
            pass
        except AsksOthers as error:
            reason = f"the model asks other processes ({error}), which do not run it now"
        except Exception as error:
            reason = (
                f"the model failed on images of shape {tuple(batch.shape)} before calling it: "
                f"{type(error).__name__}: {error}"
            )
    return FeatureMaps(found, {name: reason for name in layers if name not in found})


class _AllFound(BaseException):
    """Ends the forward pass. No model catches it, as some catch every `Exception`."""


def _watch(
    layers: Mapping[str, nn.Module],
    found: dict[str, FeatureMap],
    shrink: Callable[[int, int, int], int],
) -> None:
    def listen(name: str) -> Callable[..., None]:
        def heard(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if name not in found:
                values = output[0] if output.ndim == 4 else output
                filters, height, width = values.shape
                found[name] = _shrunk(values, shrink(filters, height, width))
                if len(found) == len(layers):
                    raise _AllFound

        return heard

    for name, layer in layers.items():
        layer.register_forward_hook(listen(name))


def _shrunk(values: Tensor, factor: int) -> FeatureMap:
    """A copy in any case: the next layer may work in place."""
    if factor == 1:
        return FeatureMap(values.to(torch.float32, copy=True))
    return FeatureMap(F.avg_pool2d(values[None].float(), factor)[0], factor)


def _why_it_cannot_run(model: nn.Module) -> str | None:
    if any(map(is_lazy, [*model.parameters(), *model.buffers()])):
        return "the model has layers without weights before its first batch"
    devices = {p.device.type for p in model.parameters()}
    for device in sorted(devices.difference(_DEVICES)):
        return f"the model is on {device}, where random numbers cannot be put back"
    return None


def _reader(model: nn.Module) -> nn.Module:
    """The outermost module with a forward that has the first convolution, or is it."""
    first = next(iter(find_convolutions(model).values()))
    within = (m for m in model.modules() if any(inner is first for inner in m.modules()))
    return next(module for module in within if _has_forward(module))


def _has_forward(module: nn.Module) -> bool:
    if "forward" in vars(module):
        return True
    owner = next(kind for kind in type(module).__mro__ if "forward" in vars(kind))
    return owner is not nn.Module and owner.__name__ != "LightningModule"


def _without_autocast(batch: Tensor) -> AbstractContextManager[Any]:
    return torch.autocast(batch.device.type, enabled=False)


def _eagerly() -> AbstractContextManager[Any]:
    """What the user compiled runs as it was written: a probe is no reason to compile it again."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled; importing it takes a second
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance

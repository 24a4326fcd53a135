"""In which order a model calls its layers, found by running it on an image without a trace."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kernelviz_callback.model.convolutions import weight_shape
from kernelviz_callback.model.isolation import CollectiveOperation, isolated_run
from kernelviz_callback.model.layer_kinds import base_of

# Devices whose random number generators can be restored.
_DEVICES = ("cpu", "cuda")
_MOST_NETWORKS = 8  # parts of the model that are run one by one if the model itself cannot run


@dataclass(frozen=True)
class Calls:
    """The layers that a model calls when it reads an image.

    Attributes:
        names: Names of the layers, in the order of their first calls. Empty if the model cannot
            run, or if it fails before it calls one.
        channels: Number of channels of the images that the model reads; None if no layer was
            called.
    """

    names: tuple[str, ...] = ()
    channels: int | None = None


def find_calls(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    image_of: Callable[[int | None], Tensor],
    *,
    ends_at: Callable[[str], bool],
) -> Calls:
    """Run a model on an image, and list the layers in the order in which it calls them.

    The run ends at the first call of a layer for which ``ends_at`` is true. If the model has no
    ``forward`` (for example a ``LightningModule`` whose ``training_step`` calls its networks), or
    if no such layer was called, its networks are run one by one. Those that can read the image as
    it is come first, because the others probably read what another network returns.

    The model is run as in `feature_maps`. If the first layer reads another number of channels than
    the image has, the model is run again with such an image.

    Args:
        model: A model in any mode, on the CPU or CUDA, whose parameters are not sharded.
        layers: Name to module. The modules are parts of the model.
        image_of: Function of a number of channels, None for any number. It returns an image of
            shape (C, H, W).
        ends_at: Function of the name of a layer.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3))
        >>> layers = {"second": net[2], "first": net[0]}
        >>> find_calls(net, layers, lambda _: torch.rand(3, 9, 9), ends_at=lambda name: False).names
        ('first', 'second')
    """
    if why_it_cannot_run(model) is not None:
        return Calls()
    whole = _Run(model, layers, image_of, ends_at).calls() if has_forward(model) else Calls()
    if whole.names and ends_at(whole.names[-1]):
        return whole
    uncalled = {id(layer) for name, layer in layers.items() if name not in whole.names}
    networks = list(_networks_below(model, uncalled, set(map(id, layers.values())) - uncalled))
    parts = [
        _Run(network, layers, image_of, ends_at).calls() for network in networks[:_MOST_NETWORKS]
    ]
    own = len(image_of(None))
    parts = [whole, *sorted(parts, key=lambda part: (part.channels != own, part.channels or 0))]
    return Calls(
        tuple(name for part in parts for name in part.names),
        next((part.channels for part in parts if part.names), None),
    )


def why_it_cannot_run(model: nn.Module) -> str | None:
    """Return why the model cannot be run without a trace, or None if it can."""
    if any(map(is_lazy, [*model.parameters(), *model.buffers()])):
        return "the model has layers without weights before its first batch"
    devices = {p.device.type for p in model.parameters()}
    for device in sorted(devices.difference(_DEVICES)):
        return f"the model is on {device}, where random numbers cannot be restored"
    return None


def has_forward(module: nn.Module) -> bool:
    """Whether a module can be called: a class before `LightningModule` defines ``forward``."""
    if "forward" in vars(module):
        return True
    owner = next(kind for kind in type(module).__mro__ if "forward" in vars(kind))
    return owner is not nn.Module and owner.__name__ != "LightningModule"


class _Ended(BaseException):
    """Raised to end a run. Some models catch every `Exception` in their forward pass."""


class _Run:
    """Runs one network, and once more if its first layer reads another number of channels."""

    def __init__(
        self,
        network: nn.Module,
        layers: Mapping[str, nn.Module],
        image_of: Callable[[int | None], Tensor],
        ends_at: Callable[[str], bool],
    ) -> None:
        inside = set(map(id, network.modules()))
        self._network = network
        self._layers = {name: layer for name, layer in layers.items() if id(layer) in inside}
        self._image_of = image_of
        self._ends_at = ends_at

    def calls(self) -> Calls:
        """Return the layers that the network calls."""
        found, ended = self._run(image := self._image_of(None))
        if not ended and len(found.names) == 1 and found.channels != len(image):
            try:
                again, _ = self._run(self._image_of(found.channels))
            except ValueError:  # there is no such image
                return found
            return again if again.names else found
        return found

    def _run(self, image: Tensor) -> tuple[Calls, bool]:
        """Run the network. The second result is False if it failed."""
        names: list[str] = []
        channels: list[int] = []
        parameter = next(p for p in self._network.parameters() if p.is_floating_point())
        batch = image.to(parameter.device, parameter.dtype)[None]

        def note(name: str, layer: nn.Module, given: Any) -> None:
            if name not in names:
                names.append(name)
                channels.append(max(1, len(image) + _missing_channels(layer, given)))
                if self._ends_at(name):
                    raise _Ended

        ended = True
        try:
            with isolated_run(self._network, parameter.device):
                for name, layer in self._layers.items():
                    if not isinstance(layer, torch.jit.ScriptModule):  # it takes no hooks
                        layer.register_forward_pre_hook(partial(note, name))
                self._network(batch)
        except _Ended:
            pass
        except (Exception, CollectiveOperation):
            ended = False
        return Calls(tuple(names), channels[0] if channels else None), ended


def _missing_channels(layer: nn.Module, given: Any) -> int:
    """Return how many channels a layer reads more than it was given."""
    conv = base_of(layer)
    values = given[0] if given else None
    if conv is None or not isinstance(values, Tensor):
        return 0
    _, channels, *taps = weight_shape(conv)
    is_batch = values.ndim == len(taps) + 2
    return channels * conv.groups - values.shape[1] if is_batch else 0


def _networks_below(module: nn.Module, wanted: set[int], unwanted: set[int]) -> Iterator[nn.Module]:
    """Yield the outermost modules inside a module that can be called and contain a wanted layer."""
    for child in module.children():
        inside = set(map(id, child.modules()))
        if inside & wanted and not has_forward(child):
            yield from _networks_below(child, wanted, unwanted)
        elif inside & wanted and not inside & unwanted:
            yield child

"""In which order a model calls its layers, found by running it on an image without a trace."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
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
_SMALL_SIDE = 64  # pixels
_MOST_READ = 2**23  # numbers in the input of a layer
_USUAL_CHANNELS = (1, 3, 4)  # of an image
_MOST_BANDS = 16  # channels of an image; a layer that reads more usually reads other layers' output


@dataclass(frozen=True)
class Calls:
    """The layers that a model calls when it reads an image.

    Attributes:
        places: Name to place, in the order of the first calls, from 0. Layers that read the image
            itself have the same place, because neither comes before the other. Empty if the model
            cannot run, or if it fails before it calls a layer.
        readers: Names of the layers that read the image itself.
        channels: Number of channels of the images that the model reads; None if no layer was
            called.
        image_channels: Number of channels of the image that the model was to read; None if there
            was no image.
        is_whole: Whether the model itself was run. If only its networks were, layers that are the
            first ones of networks for such images have the same place.
    """

    places: Mapping[str, int] = field(default_factory=dict)
    readers: frozenset[str] = frozenset()
    channels: int | None = None
    image_channels: int | None = None
    is_whole: bool = True


def find_calls(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    image_of: Callable[[int | None], Tensor],
    *,
    ends_at: Callable[[str], bool],
) -> Calls:
    """Run a model on an image, and list the layers in the order in which it calls them.

    The run ends at the first call of a layer for which ``ends_at`` is true and that does not read
    the image itself. The networks that were not called are run one by one

    - if the model has no ``forward`` (for example a ``LightningModule`` whose ``training_step``
      calls its networks), or if no layer for which ``ends_at`` is true was called,
    - if the first layer reads more channels than images have (for example in the generator of a
      GAN, which the ``forward`` of a ``LightningModule`` calls).

    Networks that can read the image as it is come first, because the others probably read what
    another network returns.

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
        >>> find_calls(net, layers, lambda _: torch.rand(3, 9, 9), ends_at=lambda _: False).places
        {'first': 0, 'second': 1}
    """
    if why_it_cannot_run(model) is not None:
        return Calls()
    try:
        own = len(image_of(None))
    except Exception:  # without an image the order is not known
        return Calls()
    whole = _Run(model, layers, image_of, ends_at, own).calls() if has_forward(model) else Calls()

    def reads_many(part: Calls) -> bool:
        first = next(iter(part.places), None)
        return first is not None and reads_many_channels(layers[first], own)

    if any(map(ends_at, whole.places)) and not reads_many(whole):
        return whole
    uncalled = {id(layer) for name, layer in layers.items() if name not in whole.places}
    networks = list(_networks_below(model, uncalled, set(map(id, layers.values())) - uncalled))
    if not networks:
        return whole
    # First those that probably read the image.
    networks.sort(key=lambda network: _channels_read(network) not in {own, *_USUAL_CHANNELS})
    ran = [
        _Run(network, layers, image_of, ends_at, own).calls()
        for network in networks[:_MOST_NETWORKS]
    ]
    ran.sort(key=lambda part: (part.channels != own, part.channels or 0))
    parts = sorted((part for part in (whole, *ran) if part.places), key=reads_many)
    if not parts:
        return Calls(image_channels=own)
    first = parts[0]
    is_guess = len(networks) > _MOST_NETWORKS and first is not whole
    if is_guess and first.channels not in {own, *_USUAL_CHANNELS}:
        return Calls(image_channels=own)
    beside = [
        part
        for part in parts
        if part.channels == first.channels and reads_many(part) == reads_many(first)
    ]
    places: dict[str, int] = {}
    for part in parts:
        # The order of the parts is not known, so the first layers have the same place.
        before = len(places)
        places |= {
            name: 0 if place == 0 and part in beside else before + place
            for name, place in part.places.items()
        }
    readers = frozenset().union(*(part.readers for part in beside))
    return Calls(places, readers, first.channels, own, is_whole=False)


def reads_many_channels(layer: nn.Module, own: int | None) -> bool:
    """Whether a layer reads more channels than images have, as far as is known.

    Args:
        layer: The layer.
        own: Number of channels of the image that the model is to read; None if it is not known.
    """
    channels = _channels_read(layer)
    return channels is not None and channels > _MOST_BANDS and channels != own


def _channels_read(network: nn.Module) -> int | None:
    """Return the number of channels that the first convolution in a network reads."""
    convs = (conv for module in network.modules() if (conv := base_of(module)) is not None)
    first = next(convs, None)
    return None if first is None else weight_shape(first)[1] * first.groups


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


def can_be_noted(layer: nn.Module) -> bool:
    """Whether `find_calls` can note the calls of a layer.

    TorchScript modules take no hooks, and what torch.export leaves of a layer is not called.
    """
    return has_forward(layer) and not isinstance(layer, torch.jit.ScriptModule)


class _Ended(BaseException):
    """Raised to end a run. Some models catch every `Exception` in their forward pass."""


class _Run:
    """Runs one network, and again if its first layer reads other images than the given one."""

    def __init__(
        self,
        network: nn.Module,
        layers: Mapping[str, nn.Module],
        image_of: Callable[[int | None], Tensor],
        ends_at: Callable[[str], bool],
        own: int,
    ) -> None:
        inside = set(map(id, network.modules()))
        self._network = network
        self._layers = {name: layer for name, layer in layers.items() if id(layer) in inside}
        self._image_of = image_of
        self._ends_at = ends_at
        self._own = own

    def calls(self) -> Calls:
        """Return the layers that the network calls."""
        found, ended = self._run(None)
        channels = None
        if not ended and len(found.places) == 1 and found.channels != self._own:
            channels = found.channels
            again, _ = self._run(channels)
            found = again if again.places else found
        first = next(iter(found.places), None)
        if first is not None and reads_many_channels(self._layers[first], self._own):
            # Which layers are not called is needed to find the network that reads images.
            again, _ = self._run(channels, to_end=True)
            found = again if len(again.places) > len(found.places) else found
        return found

    def _run(self, channels: int | None, *, to_end: bool = False) -> tuple[Calls, bool]:
        """Run the network. The second result is False if it failed.

        Args:
            channels: Number of channels of the image; None for any.
            to_end: Whether to run the network on a small part of the image, and to its end. The run
                still ends if a layer reads very many numbers, as in a generator of large images.
        """
        given = self._own if channels is None else channels
        notes = _Notes(given, _reads_too_much if to_end else lambda name, _: self._ends_at(name))
        numbers = (p for p in self._network.parameters() if p.is_floating_point())
        if (parameter := next(numbers, None)) is None:
            return Calls(image_channels=self._own), False
        ended = True
        try:
            image = self._image_of(channels)
            image = image.clone(memory_format=torch.contiguous_format)  # its channels share memory
            if to_end:
                image = image[:, :_SMALL_SIDE, :_SMALL_SIDE]
            batch = image.to(parameter.device, parameter.dtype)[None]
            with isolated_run(self._network, parameter.device):
                for name, layer in self._layers.items():
                    if can_be_noted(layer):
                        layer.register_forward_pre_hook(partial(notes.note, name))
                self._network(batch)
        except _Ended:
            pass
        except (Exception, CollectiveOperation):
            ended = False
        return Calls(notes.places, frozenset(notes.readers), notes.channels, self._own), ended


class _Notes:
    """What is noted while a network runs, see `Calls`.

    Args:
        channels: Number of channels of the image.
        ends_at: Function of the name of a layer and of what the layer reads. If it is true of a
            layer that does not read the image itself, the run ends.
    """

    def __init__(self, channels: int, ends_at: Callable[[str, Any], bool]) -> None:
        self.places: dict[str, int] = {}
        self.readers: set[str] = set()
        self.channels: int | None = None
        self._given_channels = channels
        self._ends_at = ends_at
        self._read: Tensor | None = None  # by the first layer: the image, or what was made of it

    def note(self, name: str, layer: nn.Module, given: tuple[Any, ...]) -> None:
        """Note the call of a layer, and end the run if that is all."""
        if name in self.places:
            return
        values = given[0] if given else None
        if not self.places:
            self._read = values.clone() if isinstance(values, Tensor) else None
            self.channels = max(1, self._given_channels + _missing_channels(layer, values))
            self.readers.add(name)
        elif isinstance(values, Tensor) and _is_equal(values, self._read):
            self.readers.add(name)
        self.places[name] = 0 if name in self.readers else len(self.places)
        if name not in self.readers and self._ends_at(name, values):
            raise _Ended


def _reads_too_much(name: str, values: Any) -> bool:
    return isinstance(values, Tensor) and values.numel() > _MOST_READ


def _is_equal(values: Tensor, others: Tensor | None) -> bool:
    return others is not None and values.shape == others.shape and torch.equal(values, others)


def _missing_channels(layer: nn.Module, values: Any) -> int:
    """Return how many channels a layer reads more than its input has."""
    conv = base_of(layer)
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

"""Choose the layers to watch, and tell the user what was chosen and what else there is."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from kernelviz_callback.model.call_order import Calls, find_calls
from kernelviz_callback.model.convolutions import (
    geometry_of,
    is_ready,
    name_layers,
    select_convolutions,
    weight_shape,
)

_MOST_NAMED = 5  # layers in each part of the starting message


@dataclass(frozen=True)
class Choice:
    """The watched layers of a model.

    Attributes:
        layers: Name to module, in the order of the model.
        paths: Name to the name in ``named_modules()``.
        first: Name of the layer that reads the image.
        first_layer: That layer.
        channels: Number of channels of the images that the model reads.
        lazy: The convolutions that have no weights yet. One of them may be the first.
        notes: What else the user should know, one clause each.
    """

    layers: Mapping[str, nn.Module]
    paths: Mapping[str, str]
    first: str
    first_layer: nn.Module
    channels: int
    lazy: Sequence[nn.Module]
    notes: Sequence[str]


def choose_layers(
    model: nn.Module,
    layers: str | Sequence[str] | None = None,
    *,
    image_of: Callable[[int | None], Tensor] | None = None,
    optimizers: Iterable[Any] = (),
    before: Iterable[str] = (),
) -> Choice:
    """Choose the layers to watch.

    If ``layers`` is None, this is the convolution that the training runs first. Layers that are
    trained come before the others, and 2-D layers before 1-D and 3-D ones. The order is that in
    which the model calls the layers when it reads an image, or else that of their definition.

    Args:
        model: The model.
        layers: See `select_convolutions`.
        image_of: Function of a number of channels, None for any number. It returns the image with
            which the model is run, see `find_calls`. None if the model must not be run.
        optimizers: The optimizers of the training, empty if they are not known.
        before: Names of the layers that the training has watched so far. If ``layers`` is None and
            this is one layer of the model, it is watched again.

    Raises:
        ValueError: See `select_convolutions`.
    """
    selected = select_convolutions(model, layers)
    return _Chooser(model, optimizers).choose(
        None if layers is None else selected.found, selected.refused, image_of, list(before)
    )


def why_untrained(layer: nn.Module, model: nn.Module, optimizers: Iterable[Any]) -> str | None:
    """Return why a training does not change a layer, or None if it does or if that is not known.

    Args:
        layer: A layer of the model.
        model: The model.
        optimizers: The optimizers of the training, empty if they are not known.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 5), nn.Conv2d(8, 8, 3))
        >>> why_untrained(net[0].requires_grad_(False), net, [])
        'requires_grad is False'
    """
    parameters = list(layer.parameters())
    if parameters and not any(p.requires_grad for p in parameters):
        return "requires_grad is False"
    optimized = {
        id(parameter)
        for optimizer in optimizers
        for group in getattr(optimizer, "param_groups", [])
        for parameter in group["params"]
    }
    # Some strategies give copies or flat shards of the parameters to the optimizers.
    if optimized.isdisjoint(map(id, model.parameters())) or not parameters:
        return None
    if optimized.isdisjoint(map(id, parameters)):
        return "no optimizer has its parameters"
    return None


class _Chooser:
    """Knows the convolutions of one model, which are trained, and which are called first."""

    def __init__(self, model: nn.Module, optimizers: Iterable[Any]) -> None:
        self._model = model
        self._named = name_layers(model)
        self._layers = {n: layer.module for n, layer in self._named.items() if not layer.reason}
        every = list(optimizers)
        self._untrained = {n: why_untrained(x, model, every) for n, x in self._layers.items()}
        self._optimizer = {n: _number_of_optimizer(x, every) for n, x in self._layers.items()}
        self._calls = Calls()

    def choose(
        self,
        wanted: Mapping[str, nn.Module] | None,
        refused: Mapping[str, str],
        image_of: Callable[[int | None], Tensor] | None,
        before: Sequence[str],
    ) -> Choice:
        """See `choose_layers`. The layers are chosen here if ``wanted`` is None."""
        if image_of is not None and len(self._named) > 1:
            every = {name: layer.module for name, layer in self._named.items()}
            ends_at = self._is_trained_2d if wanted is None else self._reads_images
            self._calls = find_calls(self._model, every, image_of, ends_at=ends_at)
        if wanted is None:
            again = len(before) == 1 and before[0] in self._layers
            chosen = before[0] if again else min(self._layers, key=self._preference)
            wanted = {chosen: self._layers[chosen]}
            refused = self._refused_before(chosen)
            others = self._others(chosen)
        else:
            others = []
        first = min(self._layers, key=lambda n: (not self._reads_images(n), *self._place(n)))
        layer = self._layers[first]
        return Choice(
            layers=wanted,
            paths={name: self._named[name].path for name in wanted},
            first=first,
            first_layer=layer,
            channels=self._calls.channels or weight_shape(layer)[1] * geometry_of(layer).groups,
            lazy=[layer for layer in self._layers.values() if not is_ready(layer)],
            notes=[*self._untrained_notes(wanted), *others, *_refusal_notes(refused)],
        )

    def _is_trained_2d(self, name: str) -> bool:
        return name in self._layers and not self._untrained[name] and self._is_2d(name)

    def _is_2d(self, name: str) -> bool:
        return len(weight_shape(self._layers[name])) == 4

    def _reads_images(self, name: str) -> bool:
        """Whether a layer is 2-D or 3-D.

        A 1-D layer beside such layers usually belongs to attention or to an embedding.
        """
        return name in self._layers and len(weight_shape(self._layers[name])) > 3

    def _place(self, name: str) -> tuple[int, bool]:
        """Return a key by which the layer that is called first has the smallest value."""
        calls = self._calls.names
        place = calls.index(name) if name in calls else len(calls)
        return place, self._untrained[name] is not None

    def _preference(self, name: str) -> tuple[bool | int, ...]:
        place, is_untrained = self._place(name)
        is_lazy = not is_ready(self._layers[name])
        return is_lazy, is_untrained, not self._is_2d(name), place

    def _untrained_notes(self, watched: Iterable[str]) -> list[str]:
        reasons = {name: self._untrained[name] for name in watched}
        return [
            f"{_listed(names)} {'is' if len(names) == 1 else 'are'} not trained: {reason}"
            for reason, names in _grouped(reasons).items()
        ]

    def _others(self, chosen: str) -> list[str]:
        """Name other layers that the user may mean by "the first convolution"."""
        names = list(self._layers)
        earlier = names[: names.index(chosen)]
        is_ordered = chosen in self._calls.names
        apart = [
            name
            for name in names[len(earlier) + 1 :]
            if not self._untrained[name]
            and _top(name) != _top(chosen)
            and (self._optimizer[name] != self._optimizer[chosen] or not is_ordered)
        ]
        found = _first_of_branches([*earlier, *apart], chosen)
        if not found:
            return []
        marked = [f"{name} (not trained)" if self._untrained[name] else name for name in found]
        how = "" if is_ordered else " (the model did not run on an image, so the first one defined)"
        return [f"also there: {_listed(marked)}{how}"]

    def _refused_before(self, chosen: str) -> dict[str, str]:
        """Return the layers before the chosen one that cannot be watched, with the reasons."""
        names, calls = list(self._named), self._calls.names
        return {
            name: reason
            for name in names[: names.index(chosen)]
            if (reason := self._named[name].reason)
            # A layer that was called later is not before it. TorchScript cannot tell.
            and (name in calls or chosen not in calls or "TorchScript" in reason)
        }


def _number_of_optimizer(layer: nn.Module, optimizers: Sequence[Any]) -> int | None:
    """Return the number of the first optimizer that has a parameter of the layer."""
    own = set(map(id, layer.parameters()))
    for number, optimizer in enumerate(optimizers):
        for group in getattr(optimizer, "param_groups", []):
            if not own.isdisjoint(map(id, group["params"])):
                return number
    return None


def _refusal_notes(refused: Mapping[str, str]) -> list[str]:
    return [
        f"{_listed(names)} cannot be watched: {reason}"
        for reason, names in _grouped(refused).items()
    ]


def _grouped(reasons: Mapping[str, str | None]) -> dict[str, list[str]]:
    """Collect the names that have the same reason."""
    grouped: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        if reason is not None:
            grouped.setdefault(reason, []).append(name)
    return grouped


def _first_of_branches(names: Iterable[str], chosen: str) -> list[str]:
    """Keep one name of each part of the model, as seen from the chosen layer."""
    path = chosen.split(".")
    found: dict[tuple[str, ...], str] = {}
    for name in names:
        segments = name.split(".")
        pairs = enumerate(zip(segments, path, strict=False))
        depth = next((i for i, (own, other) in pairs if own != other), len(segments))
        found.setdefault(tuple(segments[: depth + 1]), name)
    return list(found.values())


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _top(name: str) -> str:
    return name.partition(".")[0]

"""Choose the layers to watch, and tell the user what was chosen and what else there is."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from torch import Tensor, nn

from kernelviz_callback.model.call_order import (
    Calls,
    can_be_noted,
    find_calls,
    reads_many_channels,
)
from kernelviz_callback.model.convolutions import (
    geometry_of,
    is_ready,
    name_layers,
    names_of_alias,
    select_convolutions,
    weight_shape,
)

_BY_DEFINITION = "the model did not run on an image, so the first one defined that may read images"
_MOST_NAMED = 5  # layers in each part of the starting message


@dataclass(frozen=True)
class Choice:
    """The watched layers of a model.

    Attributes:
        layers: Name to module, in the order of the model.
        paths: Name to the name in ``named_modules()``.
        first: The layer that reads the image, by its name.
        readers: Names of all layers that are known to read the image.
        channels: Number of channels of the images that the model reads.
        lazy: The convolutions that have no weights yet. One of them may be the first.
        notes: What else the user should know, one clause each.
    """

    layers: Mapping[str, nn.Module]
    paths: Mapping[str, str]
    first: Mapping[str, nn.Module]
    readers: frozenset[str]
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
    which the model calls the layers when it reads an image, or else that of their definition. A
    layer that reads more channels than images have comes after the others, unless the model calls
    it first.

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


class _Chooser:
    """The convolutions of one model: which are trained, and which are called first."""

    def __init__(self, model: nn.Module, optimizers: Iterable[Any]) -> None:
        self._model = model
        self._named = name_layers(model)
        self._layers = {n: layer.module for n, layer in self._named.items() if not layer.reason}
        # Some strategies give copies or flat shards of the parameters to the optimizers. Then this
        # is empty, because nothing is known of the parameters of the model.
        self._optimizer_of = _optimizer_of_parameters(model, optimizers)
        self._untrained = {name: self._why_untrained(x) for name, x in self._layers.items()}
        self._calls = Calls()
        trained = [name for name in self._layers if not self._untrained[name]]
        self._trunk = _common_path(trained)
        # The first layer of each part of the model.
        self._heads = {self._network_of(n): n for n in [*reversed(self._layers), *trained[::-1]]}

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
        first = min(self._layers, key=self._nearness)
        others = []
        if wanted is None:
            again = self._watched_before(before)
            chosen = again or min(self._layers, key=self._preference)
            wanted = {chosen: self._layers[chosen]}
            refused = self._refused_before(chosen)
            others = self._others(chosen, is_given=again is not None)
            if again not in (None, *before):
                others.append(f"{again} had the name {before[0]} before")
            # A chosen layer that was not called is the first one of a network of its own.
            first = first if chosen in self._calls.places else chosen
        layer = self._layers[first]
        return Choice(
            layers=wanted,
            paths={name: self._named[name].path for name in wanted},
            first={first: layer},
            readers=self._calls.readers | {first},
            channels=(first in self._calls.places and self._calls.channels)
            or weight_shape(layer)[1] * geometry_of(layer).groups,
            lazy=[layer for layer in self._layers.values() if not is_ready(layer)],
            notes=[*self._untrained_notes(wanted), *others, *_refusal_notes(refused)],
        )

    def _watched_before(self, before: Sequence[str]) -> str | None:
        """Return the present name of the only layer that was watched before, if it is there."""
        if len(before) != 1:
            return None
        names = [*before, *names_of_alias(self._model, self._named, before[0])]
        return next((name for name in names if name in self._layers), None)

    def _why_untrained(self, layer: nn.Module) -> str | None:
        """Return why the training does not change a layer, or None if it does or may do so."""
        parameters = list(layer.parameters())
        if not parameters:
            return None
        if not any(p.requires_grad for p in parameters):
            return "requires_grad is False"
        if self._optimizer_of and not any(id(p) in self._optimizer_of for p in parameters):
            return "no optimizer has its parameters"
        return None

    def _optimizer(self, name: str) -> int | None:
        numbers = (self._optimizer_of.get(id(p)) for p in self._layers[name].parameters())
        return next((number for number in numbers if number is not None), None)

    def _is_trained_2d(self, name: str) -> bool:
        return name in self._layers and not self._untrained[name] and self._is_2d(name)

    def _is_2d(self, name: str) -> bool:
        return len(weight_shape(self._layers[name])) == 4

    def _reads_images(self, name: str) -> bool:
        """Whether a layer is 2-D or 3-D.

        A 1-D layer beside such layers usually belongs to attention or to an embedding.
        """
        return name in self._layers and len(weight_shape(self._layers[name])) > 3

    def _place(self, name: str) -> tuple[bool, int]:
        """Return a key by which the layer that is called first has the smallest value."""
        places = self._calls.places
        # A called layer reads what the first one made of its input.
        head = next(iter(places)) if name in places else self._heads[self._network_of(name)]
        reads_many = reads_many_channels(self._named[head].module, self._calls.image_channels)
        return reads_many, places.get(name, len(places))

    def _network_of(self, name: str) -> str:
        """Return the name of the part of the model that a layer belongs to, "" for no part.

        The parts are the outermost ones of which there are several.
        """
        return name.rpartition(".")[0][len(self._trunk) :].partition(".")[0]

    def _nearness(self, name: str) -> tuple[bool | int, ...]:
        """Return a key by which the layer that reads the image has the smallest value."""
        is_untrained = self._untrained[name] is not None
        return not self._reads_images(name), *self._place(name), is_untrained

    def _preference(self, name: str) -> tuple[bool | int, ...]:
        is_lazy = not is_ready(self._layers[name])
        is_untrained = self._untrained[name] is not None
        return is_lazy, is_untrained, not self._is_2d(name), *self._place(name)

    def _untrained_notes(self, watched: Iterable[str]) -> list[str]:
        reasons = {name: self._untrained[name] for name in watched}
        return [
            f"{_listed(names)} {'is' if len(names) == 1 else 'are'} not trained: {reason}"
            for reason, names in _grouped(reasons).items()
        ]

    def _others(self, chosen: str, *, is_given: bool) -> list[str]:
        """Name other layers that the user may mean by "the first convolution"."""
        names = list(self._layers)
        earlier = names[: names.index(chosen)]
        is_ordered = is_given or self._is_known_to_be_first(chosen)
        apart = [
            name
            for name in names[len(earlier) + 1 :]
            if not self._untrained[name]
            and (self._is_apart(name, chosen, is_ordered) or self._is_beside(name, chosen))
        ]
        found = _first_of_branches([*earlier, *apart], chosen)
        if not found:
            return []
        marked = [f"{name} (not trained)" if self._untrained[name] else name for name in found]
        how = "" if is_ordered else f" ({_BY_DEFINITION})"
        return [f"also there: {_listed(marked)}{how}"]

    def _is_apart(self, name: str, chosen: str, is_ordered: bool) -> bool:
        """Whether a layer belongs to another network, as far as that is known."""
        is_other = self._optimizer(name) != self._optimizer(chosen) or not is_ordered
        return is_other and name.partition(".")[0] != chosen.partition(".")[0]

    def _is_beside(self, name: str, chosen: str) -> bool:
        """Whether a layer reads the same image as the chosen one."""
        places = self._calls.places
        return name in places and places[name] == places.get(chosen)

    def _is_known_to_be_first(self, chosen: str) -> bool:
        """Whether the model was run, and no other trained network may come before the layer."""
        is_rival = (not self._untrained[n] and self._is_beside(n, chosen) for n in self._layers)
        return chosen in self._calls.places and (self._calls.is_whole or sum(is_rival) == 1)

    def _refused_before(self, chosen: str) -> dict[str, str]:
        """Return the layers before the chosen one that cannot be watched, with the reasons."""
        names, calls = list(self._named), self._calls.places
        return {
            name: reason
            for name in names[: names.index(chosen)]
            if (reason := self._named[name].reason)
            # A layer that was not called before the run ended is not before the chosen one.
            and (name in calls or chosen not in calls or not can_be_noted(self._named[name].module))
        }


def _optimizer_of_parameters(model: nn.Module, optimizers: Iterable[Any]) -> dict[int, int]:
    """Map the identity of each parameter of a model to the number of its optimizer."""
    own = set(map(id, model.parameters()))
    return {
        id(parameter): number
        for number, optimizer in enumerate(optimizers)
        for group in getattr(optimizer, "param_groups", [])
        for parameter in group["params"]
        if id(parameter) in own
    }


def _common_path(names: Iterable[str]) -> str:
    """Return the part of the model that has all these layers, with a dot at its end, or "".

    Example:
        >>> _common_path(["net.stem.conv", "net.body.0"])
        'net.'
    """
    paths = [name.split(".")[:-1] for name in names]
    shared = takewhile(lambda level: len(set(level)) == 1, zip(*paths, strict=False))
    return "".join(f"{segment}." for segment, *_ in shared)


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

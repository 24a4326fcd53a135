"""Find the convolutions in a state dict by their names and shapes, without the model."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from typing import NamedTuple, TypeAlias

from torch import Tensor

from kernelviz_callback.checkpoints.stored_modules import StoredModule
from kernelviz_callback.checkpoints.weight_parts import KNOWN_PARTS, PARAMETRIZED, Parts
from kernelviz_callback.drawable import why_not_drawable
from kernelviz_callback.model.convolutions import WRAPPER_SEGMENTS, Geometry
from kernelviz_callback.model.layer_names import printable
from kernelviz_callback.snapshots.format import LayerRecord

# (N, C, kH, kW); for a 1-D layer (N, C, k), for a 3-D layer (N, C, kD, kH, kW).
Shape: TypeAlias = tuple[int, ...]

# Keys under which training scripts save the weights that a user would load, the most likely first.
_MAIN_DICTS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "params")
# A segment of a name that marks the copy among two sets of layers that are equal in all else: a
# running average, or the weights that an average has replaced.
_COPY = re.compile(
    r"(?:^|_)(ema|swa|averag\w*|teacher|shadow|momentum|target)(?:_|$)"
    r"|^encoder_k$|^current_model_state$"
)
_RANKS = (3, 4, 5)  # dimensions of the weights of a convolution
# The path of a layer, and the name of one of the tensors that its weights are stored as.
_PART = re.compile(rf"(.*?)\.(weight(?:_\w+)?|{re.escape(PARAMETRIZED)}.+)", re.DOTALL)
# What quantization-aware training stores in a layer that is fused with a batch norm.
_FUSED = ("bn.weight", "weight_fake_quant.scale")
_WHY_FUSED = "it is fused: its weights depend on the batch norm inside it"
_WHY_UNNAMED = "its name does not end in .weight, as in conv1.weight; save it under such a name"
_ADAPTED = ".base_layer"  # end of the name of a layer inside an adapter of peft
_DEEPEST = 30  # segments of a path that are compared with another path
_MOST_PARTS = 4  # names of stored tensors in a message


def _refuse_to_read() -> Tensor:
    raise ValueError("it has no weights that can be read")


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor in an open file.

    Attributes:
        shape: Shape of the tensor.
        read: Reads the tensor as float32. It is contiguous and shares no memory.
        refusal: None for floating-point numbers, else the reason why they cannot be shown.
        within: Path of the dict that holds the tensor: its keys, joined by dots.
        module: The module that holds the tensor, None if the file does not have modules.
    """

    shape: tuple[int, ...]
    read: Callable[[], Tensor] = _refuse_to_read
    refusal: str | None = None
    within: str = ""
    module: StoredModule | None = None


@dataclass(frozen=True, eq=False)
class StoredLayer:
    """One convolution in an open file. Its weights are not read yet.

    Attributes:
        shape: Shape of the weights.
        read: Reads the weights as float32. They share no memory.
        geometry: Geometry of the convolution, None if the file does not store it.
        unknown: Why the layer may multiply its input with other weights than the stored ones, None
            if nothing in the file says so.
        read_record: Reads what a snapshot records about the layer besides its weights, such as its
            health. None in any other file.
    """

    shape: Shape
    read: Callable[[], Tensor]
    geometry: Geometry | None = None
    read_record: Callable[[], LayerRecord] | None = None
    unknown: str | None = None


@dataclass(frozen=True, eq=False)
class Layers:
    """The convolutions of a file.

    Attributes:
        found: Name to layer, in the order of the file. Names do not include the path of the dict
            that holds the weights, nor the segments that wrappers add. What the file has beside
            the weights of the model comes last, with full paths as names. So do copies, such as
            running averages.
        refused: Name to reason, for tensors that look like convolutions but cannot be shown.
        order: The names of all layers, also of the refused ones, in the order of the file.
    """

    found: Mapping[str, StoredLayer]
    refused: Mapping[str, str]
    order: Sequence[str] = ()


def find_layers(stored: Mapping[str, StoredTensor]) -> Layers:
    """Find the convolutions among stored tensors.

    Args:
        stored: Path to tensor. A path consists of the keys that lead to the tensor, joined by dots.

    Example:
        >>> stored = StoredTensor((8, 3, 5, 5), within="state_dict")
        >>> list(find_layers({"state_dict.module.conv.weight": stored}).found)
        ['conv']
    """
    layers = _without_adapters(list(_find_weights(stored)))
    has_main = any(layer.top in _MAIN_DICTS for layer in layers)
    copies = _find_copies(layers)

    def rank(layer: _Weights) -> tuple[bool, int]:
        return layer.base in copies, (*_MAIN_DICTS, layer.top).index(layer.top)

    found: dict[str, StoredLayer] = {}
    refused: dict[str, str] = {}
    order: list[str] = []
    for layer in sorted(layers, key=rank):  # stable: within one rank, the order of the file stays
        is_beside = has_main and layer.top not in ("", *_MAIN_DICTS)
        base = printable(layer.base)
        first_choice = base if is_beside else printable(layer.name)
        names = chain((first_choice, base), (f"{base} ({n})" for n in count(2)))
        name = next(name for name in names if name not in found and name not in refused)
        order.append(name)
        if layer.refusal is not None:
            refused[name] = layer.refusal
        else:
            module, shape = layer.first.module, layer.first.shape
            geometry = module.geometry if module is not None else None
            if geometry is not None and not _fits(geometry, shape):
                geometry = None
            unknown = module.unknown if module is not None else None
            found[name] = StoredLayer(shape, layer.read, geometry, unknown=unknown)
    if not layers:
        unnamed = (path or "tensor" for path, tensor in stored.items() if len(tensor.shape) == 4)
        refused = dict.fromkeys(map(printable, unnamed), _WHY_UNNAMED)
    return Layers(found, refused, order)


class _Weights(NamedTuple):
    """The weights of a layer in a file.

    Attributes:
        base: Path of the layer.
        first: The stored tensor that has the shape of the weights.
        read: Computes the weights from the stored tensors.
        refusal: Why the layer cannot be shown, None if it can.
    """

    base: str
    first: StoredTensor
    read: Callable[[], Tensor]
    refusal: str | None

    @property
    def top(self) -> str:
        """The key of the outermost dict around the layer."""
        return self.first.within.partition(".")[0]

    @property
    def name(self) -> str:
        """The path without the dicts around the layer and the segments that wrappers add."""
        segments = self.base.removeprefix(f"{self.first.within}.").split(".")
        kept = _without_wrappers(segments)
        return ".".join(kept or segments) or f"Conv{len(self.first.shape) - 2}d"


def _find_weights(stored: Mapping[str, StoredTensor]) -> Iterator[_Weights]:
    """Group the stored tensors by layer, and return those that look like convolutions."""
    layers: dict[str, dict[str, StoredTensor]] = {}
    for path, tensor in stored.items():
        match = _PART.fullmatch(f".{path}")
        if match:
            layers.setdefault(match[1][1:], {})[match[2]] = tensor
    for base, parts in layers.items():
        known = next((k for k in KNOWN_PARTS if _are_joinable(k, parts)), None)
        if known is None:
            first = next(filter(_is_like_weights, parts.values()), None)
            if first is not None:
                yield _Weights(base, first, _refuse_to_read, _why_not_joined(list(parts)))
            continue
        tensors = [parts[name] for name in known.names]
        if _is_like_weights(tensors[0]):
            read = partial(_join, known.join, tensors)
            is_fused = all(f"{base}.{name}".removeprefix(".") in stored for name in _FUSED)
            refusal = _WHY_FUSED if is_fused else _why_refused(tensors)
            yield _Weights(base, tensors[0], read, refusal)


def _are_joinable(known: Parts, parts: Mapping[str, StoredTensor]) -> bool:
    if not parts.keys() >= set(known.names):
        return False
    if known.names[0].startswith(PARAMETRIZED) and len(parts) > len(known.names):
        return False  # more parametrizations follow
    return known.fit(*(parts[name].shape for name in known.names))


def _is_like_weights(tensor: StoredTensor) -> bool:
    """Return whether a tensor could be the weights of a convolution.

    A tensor that cannot be read may not state its shape. A strategy that shards the weights leaves
    the shape (0,). Only a convolution has three dimensions and its module in the file.
    """
    rank, module = len(tensor.shape), tensor.module
    if module is not None and not module.is_convolution and rank == 3:
        return False
    return rank in _RANKS or tensor.shape == (0,) or (rank == 0 and tensor.refusal is not None)


def _why_refused(tensors: list[StoredTensor]) -> str | None:
    first = tensors[0]
    if first.module is not None and first.module.refusal is not None:
        return first.module.refusal
    refusal = next((t.refusal for t in tensors if t.refusal is not None), None)
    if refusal is None and 0 in first.shape:
        return f"it is empty, of shape {first.shape}"
    return refusal or why_not_drawable(first.shape)


def _why_not_joined(names: list[str]) -> str:
    if any(name.startswith(PARAMETRIZED) for name in names):
        return "its weights are computed by a parametrization whose code is not in the file"
    listed = ", ".join(names[:_MOST_PARTS]) + (", ..." if len(names) > _MOST_PARTS else "")
    return f"the file has no weight, only {listed}, and they cannot be joined"


def _join(join: Callable[..., Tensor], parts: list[StoredTensor]) -> Tensor:
    return join(*(part.read() for part in parts)).contiguous()


def _without_adapters(layers: list[_Weights]) -> list[_Weights]:
    """Refuse each layer whose weights an adapter of peft changes, and leave out the adapter.

    The file does not state how much of the adapter is added to the weights.
    """
    paths = {layer.base for layer in layers}
    adapted = {base.removesuffix(_ADAPTED) for base in paths if base.endswith(_ADAPTED)}
    adapters = {path for base in paths if (path := base.partition(".lora_")[0]) != base}
    adapted &= adapters
    kept: list[_Weights] = []
    for layer in layers:
        path = layer.base.removesuffix(_ADAPTED)
        if path in adapted:
            reason = "an adapter (LoRA) changes its weights; merge it first: merge_and_unload()"
            kept.append(layer._replace(base=path, refusal=reason))
        elif layer.base.partition(".lora_")[0] not in adapted:
            kept.append(layer)
    return kept


def _fits(geometry: Geometry, shape: Shape) -> bool:
    return len(geometry.stride) == len(shape) - 2 and shape[0] % geometry.groups == 0


def _without_wrappers(segments: Iterable[str]) -> list[str]:
    return [segment for segment in segments if segment not in WRAPPER_SEGMENTS]


def _find_copies(layers: Iterable[_Weights]) -> set[str]:
    """Return the paths of the layers that are copies of other layers, such as running averages.

    A set of layers is a copy if the file has all of them once more, with equal names and shapes,
    elsewhere. The name only tells which of the two is the copy: a layer whose name has the word of
    a copy, but no counterpart, is a layer as any other.
    """
    marked: dict[tuple[str, ...], list[tuple[_Weights, tuple[str, ...]]]] = {}
    plain: list[tuple[Shape, tuple[str, ...]]] = []
    for layer in layers:
        words = layer.base.split(".")
        mark = next((i for i, word in enumerate(words[:-1]) if _COPY.search(word.lower())), None)
        if mark is None:
            plain.append((layer.first.shape, tuple(_without_wrappers(words))))
        else:
            rest = tuple(_without_wrappers(words[mark + 1 :]))
            marked.setdefault(tuple(words[: mark + 1]), []).append((layer, rest))
    places: dict[tuple[Shape, tuple[str, ...]], set[tuple[str, ...]]] = {}
    for shape, path in plain if marked else ():
        for at in range(max(0, len(path) - _DEEPEST), len(path)):
            places.setdefault((shape, path[at:]), set()).add(path[:at])
    copies: set[str] = set()
    for copy in marked.values():
        originals = [places.get((layer.first.shape, rest), set()) for layer, rest in copy]
        if set.intersection(*originals):
            copies.update(layer.base for layer, _ in copy)
    return copies

"""Find the convolutions in a state dict by their names and shapes, without the model."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from kernelviz_callback.drawable import why_not_drawable
from kernelviz_callback.model.convolutions import WRAPPER_SEGMENTS, Geometry
from kernelviz_callback.snapshots.format import LayerRecord

# (N, C, kH, kW); for a 1-D layer (N, C, k), for a 3-D layer (N, C, kD, kH, kW).
Shape: TypeAlias = tuple[int, ...]

# Keys under which training scripts save the weights that a user would load, the most likely first.
_MAIN_DICTS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "params")
# A segment of a name that marks a copy of the weights: a running average, or the weights that an
# average has replaced.
_COPY = re.compile(r"(?:^|_)(ema|swa|averag\w*|teacher|shadow)(?:_|$)|^current_model_state$")
# Keys under which tensors only look like weights.
_NOT_WEIGHTS = re.compile(r"(optim\w*|loops|callbacks|hyper_parameters|\w*scaler)(\.|$)")
_RANKS = (3, 4, 5)  # dimensions of the weights of a convolution


def _refuse_to_read() -> Tensor:
    raise ValueError("it has no weights that can be read")


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor in an open file.

    Attributes:
        shape: Shape of the tensor.
        read: Reads the tensor as float32. It is contiguous and shares no memory.
        refusal: None for floating-point numbers, else what they are; it ends a message that begins
            with "its weights are".
        within: Path of the dict that holds the tensor: its keys, joined by dots.
    """

    shape: tuple[int, ...]
    read: Callable[[], Tensor] = _refuse_to_read
    refusal: str | None = None
    within: str = ""


@dataclass(frozen=True, eq=False)
class StoredLayer:
    """One convolution in an open file. Its weights are not read yet.

    Attributes:
        shape: Shape of the weights.
        read: Reads the weights as float32. They share no memory.
        geometry: Geometry of the convolution, None if the file does not store it.
        read_record: Reads what a snapshot records about the layer besides its weights, such as its
            health. None in any other file.
    """

    shape: Shape
    read: Callable[[], Tensor]
    geometry: Geometry | None = None
    read_record: Callable[[], LayerRecord] | None = None


@dataclass(frozen=True, eq=False)
class Layers:
    """The convolutions of a file.

    Attributes:
        found: Name to layer, in the order of the file. Names do not include the path of the dict
            that holds the weights, nor the segments that wrappers add. Running averages and other
            copies come last, with their full paths as names.
        refused: Name to reason, for tensors that look like convolutions but cannot be shown.
    """

    found: Mapping[str, StoredLayer]
    refused: Mapping[str, str]


def find_layers(stored: Mapping[str, StoredTensor]) -> Layers:
    """Find the convolutions among stored tensors.

    Args:
        stored: Path to tensor. A path consists of the keys that lead to the tensor, joined by dots.

    Example:
        >>> stored = StoredTensor((8, 3, 5, 5), within="state_dict")
        >>> list(find_layers({"state_dict.module.conv.weight": stored}).found)
        ['conv']
    """
    found: dict[str, StoredLayer] = {}
    refused: dict[str, str] = {}
    # The sort is stable: within one priority, the order of the file stays.
    for path in sorted(stored, key=lambda path: _priority(path, stored[path].within)):
        base, weights = _find_weights(path, stored)
        if weights is None:
            continue
        first = weights.parts[0]
        name = base if _is_copy(path) else _layer_name(base, first.within, len(first.shape))
        name = base if name in found or name in refused else name
        shape = first.shape
        if first.refusal:
            refused[name] = f"its weights are {first.refusal}"
        elif 0 in shape:
            refused[name] = f"it is empty, of shape {shape}"
        elif reason := why_not_drawable(shape) or weights.misfit():
            refused[name] = reason
        else:
            found[name] = StoredLayer(shape, weights.read)
    return Layers(found, refused)


def _is_copy(path: str) -> bool:
    return any(_COPY.search(segment) for segment in path.lower().split("."))


def _priority(path: str, within: str) -> int:
    """Return 0 for the most likely weights of the model, more for less likely ones."""
    top = within.partition(".")[0]
    if _is_copy(path):
        return len(_MAIN_DICTS) + 1
    return _MAIN_DICTS.index(top) if top in _MAIN_DICTS else len(_MAIN_DICTS)


def _find_weights(path: str, stored: Mapping[str, StoredTensor]) -> "tuple[str, _Weights | None]":
    """Return name and weights of the layer if the tensor at ``path`` is the first part of them."""
    if _NOT_WEIGHTS.match(path) or len(stored[path].shape) not in _RANKS:
        return "", None
    for (first, *others), join in _STORED_AS.items():
        base = f".{path}".removesuffix(first)
        names = [f"{base}{other}"[1:] for other in others]
        if base != f".{path}" and all(name in stored for name in names):
            parts = [stored[path], *(stored[name] for name in names)]
            return base[1:], _Weights(parts, join)
    return "", None


def _layer_name(base: str, within: str, rank: int) -> str:
    segments = base.removeprefix(f"{within}.").split(".")
    kept = [s for s in segments if s not in WRAPPER_SEGMENTS]
    return ".".join(kept or segments) or f"Conv{rank - 2}d"


class _Weights(NamedTuple):
    """The stored parts of the weights of a layer, and the function that joins them."""

    parts: list[StoredTensor]
    join: Callable[..., Tensor]

    def misfit(self) -> str | None:
        """Return why the parts cannot be joined; None if they can."""
        shape, *others = (part.shape for part in self.parts)
        if any(part.refusal for part in self.parts) or not _FITS[self.join](shape, *others):
            found = ", ".join("x".join(map(str, other)) or "a number" for other in others)
            return f"its weights of {'x'.join(map(str, shape))} do not fit its other parts: {found}"
        return None

    def read(self) -> Tensor:
        return self.join(*(part.read() for part in self.parts)).contiguous()


def _weight_norm(direction: Tensor, length: Tensor) -> Tensor:
    inner = [d for d in range(direction.ndim) if length.ndim == 0 or length.shape[d] == 1]
    normed: Tensor = direction * (
        length / torch.linalg.vector_norm(direction, dim=inner, keepdim=True)
    )
    return normed


def _spectral_norm(weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Divide the weights by their largest singular value, whose singular vectors are u and v."""
    normed: Tensor = weight / (u @ weight.flatten(1) @ v)
    return normed


def _is_length_of(direction: Shape, length: Shape) -> bool:
    """Whether weight norm can have this length: one number, or one for each filter or channel."""
    sides = list(zip(direction, length, strict=False))
    return len(length) in (0, len(direction)) and all(own in (1, side) for side, own in sides)


def _as_stored(*parts: Tensor) -> Tensor:
    (weight,) = parts
    return weight


# The function that joins the parts of a layer, and whether parts of these shapes fit exactly.
_FITS: dict[Callable[..., Tensor], Callable[..., bool]] = {
    _as_stored: lambda weight: True,
    torch.mul: lambda weight, mask: bool(weight == mask),
    _weight_norm: _is_length_of,
    _spectral_norm: lambda weight, u, v: (u, v) == (weight[:1], (prod(weight[1:]),)),
}

# The ways in which torch stores weights: the endings of the names of the parts, and the function
# that joins the parts. First plain weights, then pruned and normalized ones, by hooks and by
# parametrizations.
_STORED_AS: dict[tuple[str, ...], Callable[..., Tensor]] = {
    (".weight",): _as_stored,
    (".weight_orig", ".weight_mask"): torch.mul,
    (".weight_v", ".weight_g"): _weight_norm,
    (
        ".parametrizations.weight.original1",
        ".parametrizations.weight.original0",
    ): _weight_norm,
    (".weight_orig", ".weight_u", ".weight_v"): _spectral_norm,
    (
        ".parametrizations.weight.original",
        ".parametrizations.weight.0._u",
        ".parametrizations.weight.0._v",
    ): _spectral_norm,
}

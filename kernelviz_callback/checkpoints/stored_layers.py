"""Convolutions in a state dict: no model is needed to tell them by their names and shapes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from kernelviz_callback.model.convolutions import WRAPPER_SEGMENTS, Geometry

# (N, C, kH, kW), of a 1-D layer (N, C, k), of a 3-D layer (N, C, kD, kH, kW).
Shape: TypeAlias = tuple[int, ...]

# Where training scripts put the weights that a user would load, the likeliest first.
_MAIN_DICTS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "params")
# Beside them stand copies: running averages, or what an average has replaced. Any segment of a name
# may tell.
_COPY = re.compile(r"(?:^|_)(ema|swa|averag\w*|teacher|shadow)(?:_|$)|^current_model_state$")
# The keys below which no weights are, but tensors that look like them.
_NOT_WEIGHTS = re.compile(r"(optim\w*|loops|callbacks|hyper_parameters|\w*scaler)(\.|$)")
_RANKS = (3, 4, 5)


def _unread() -> Tensor:
    raise ValueError("it has no weights that can be read")


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor in a file that has been opened.

    Attributes:
        shape: Of it.
        read: Gives it: float32, contiguous, in memory of its own.
        refusal: What it is if its numbers are no real ones, as the end of "its weights are".
        within: The keys, joined by dots, of the dicts that its own name stands in.
    """

    shape: tuple[int, ...]
    read: Callable[[], Tensor] = _unread
    refusal: str | None = None
    within: str = ""


@dataclass(frozen=True, eq=False)
class StoredLayer:
    """One convolution in a file that has been opened, not read.

    Attributes:
        shape: Of its weights.
        read: Reads them: float32, its own memory.
        geometry: How the convolution slides, where the file tells.
    """

    shape: Shape
    read: Callable[[], Tensor]
    geometry: Geometry | None = None


@dataclass(frozen=True, eq=False)
class Layers:
    """The convolutions of a file, in its order, and what looks like one and cannot be shown.

    Attributes:
        found: Name to layer. Names are without the dict that the weights stand in and the segments
            that wrappers add. Running averages and other copies come last, under their whole names.
        refused: Name to the reason.
    """

    found: Mapping[str, StoredLayer]
    refused: Mapping[str, str]


def find_layers(stored: Mapping[str, StoredTensor]) -> Layers:
    """Find the convolutions among stored tensors.

    Args:
        stored: The keys that lead to a tensor in its file, with dots, to the tensor.

    Example:
        >>> stored = StoredTensor((8, 3, 5, 5), within="state_dict")
        >>> list(find_layers({"state_dict.module.conv.weight": stored}).found)
        ['conv']
    """
    found: dict[str, StoredLayer] = {}
    refused: dict[str, str] = {}
    # Stable: in the order of the file within a rank.
    for path in sorted(stored, key=lambda path: _rank(path, stored[path].within)):
        base, weights = _weights_at(path, stored)
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
        else:
            found[name] = StoredLayer(shape, weights.read)
    return Layers(found, refused)


def _is_copy(path: str) -> bool:
    return any(_COPY.search(segment) for segment in path.lower().split("."))


def _rank(path: str, within: str) -> int:
    """Where a user would look first."""
    top = within.partition(".")[0]
    if _is_copy(path):
        return len(_MAIN_DICTS) + 1
    return _MAIN_DICTS.index(top) if top in _MAIN_DICTS else len(_MAIN_DICTS)


def _weights_at(path: str, stored: Mapping[str, StoredTensor]) -> "tuple[str, _Weights | None]":
    """The layer whose weights begin with what is stored at ``path``, and how they are stored."""
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
    """Weights as they are stored, and how to join their parts."""

    parts: list[StoredTensor]
    join: Callable[..., Tensor]

    def read(self) -> Tensor:
        return self.join(*(part.read() for part in self.parts)).contiguous()


def _weight_norm(direction: Tensor, length: Tensor) -> Tensor:
    inner = [d for d in range(direction.ndim) if length.ndim == 0 or length.shape[d] == 1]
    normed: Tensor = direction * (
        length / torch.linalg.vector_norm(direction, dim=inner, keepdim=True)
    )
    return normed


def _spectral_norm(weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """The weights over their largest singular value, which belongs to these two vectors."""
    normed: Tensor = weight / (u @ weight.flatten(1) @ v)
    return normed


# How weights are stored: the endings of the names of their parts, and how these are joined. Plain;
# then pruned and normed, by torch's hooks and by its parametrizations.
_STORED_AS: dict[tuple[str, ...], Callable[..., Tensor]] = {
    (".weight",): lambda weight: weight,
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

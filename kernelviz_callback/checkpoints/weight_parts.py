"""The ways in which torch stores the weights of a layer as several tensors."""

from collections.abc import Callable
from math import prod
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

_Shape: TypeAlias = tuple[int, ...]

PARAMETRIZED = "parametrizations.weight."


class Parts(NamedTuple):
    """One way to store weights.

    Attributes:
        names: Names of the tensors in the module. The first has the shape of the weights.
        join: Computes the weights from the tensors.
        fit: Whether tensors of these shapes can be joined.
    """

    names: tuple[str, ...]
    join: Callable[..., Tensor]
    fit: Callable[..., bool]


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


def _is_norm_of(direction: _Shape, length: _Shape) -> bool:
    """Return whether a length is stored for all weights, or for each index of one dimension."""
    if not length:
        return True
    if len(length) != len(direction):
        return False
    wide = [(n, whole) for n, whole in zip(length, direction, strict=True) if n != 1]
    return len(wide) <= 1 and all(n == whole for n, whole in wide)


def _is_mask_of(weight: _Shape, mask: _Shape) -> bool:
    return weight == mask


def _are_vectors_of(weight: _Shape, u: _Shape, v: _Shape) -> bool:
    return u == weight[:1] and v == (prod(weight[1:]),)


# First plain weights, then pruned and normalized ones, by hooks and by parametrizations.
KNOWN_PARTS = (
    Parts(("weight",), lambda weight: weight, lambda weight: True),
    Parts(("weight_orig", "weight_mask"), torch.mul, _is_mask_of),
    Parts(("weight_v", "weight_g"), _weight_norm, _is_norm_of),
    Parts(
        (f"{PARAMETRIZED}original1", f"{PARAMETRIZED}original0"),
        _weight_norm,
        _is_norm_of,
    ),
    Parts(("weight_orig", "weight_u", "weight_v"), _spectral_norm, _are_vectors_of),
    Parts(
        (f"{PARAMETRIZED}original", f"{PARAMETRIZED}0._u", f"{PARAMETRIZED}0._v"),
        _spectral_norm,
        _are_vectors_of,
    ),
)

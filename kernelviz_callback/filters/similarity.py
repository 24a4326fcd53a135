"""Compare the filters of a layer with each other: duplicates, opposites and effective rank.

The cosine of a filter of zeros and any other filter is 0. A filter with NaN or infinity is left
out.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from kernelviz_callback.filters.float64 import float64_blocks

# A layer with more weights, or with more filters, is compared in float32 instead of float64.
_MOST_EXACT_WEIGHTS = 2**20
_MOST_EXACT_FILTERS = 512
_MOST_NUMBERS = 2**19  # cosines that are in memory at once


class Similarity(NamedTuple):
    """The nearest and the most opposite other filter of each filter, and numbers of the layer.

    Attributes:
        nearest: Index of the other filter with the largest cosine, shape (N,); -1 if there is none.
        nearest_cosine: The cosine of the filter ``nearest``, shape (N,), in [-1, 1]. 1 means a
            duplicate, up to a positive factor. NaN if there is none.
        antiphase: Index of the other filter with the smallest cosine, shape (N,); -1 if there is
            none.
        antiphase_cosine: The cosine of the filter ``antiphase``, shape (N,), in [-1, 1]. -1 means
            the same filter with the opposite sign, which is a normal pair before a ReLU. NaN if
            there is none.
        orthogonality: In [0, 1]: 1 if all filters are orthogonal, 0 if all are equal. NaN for a
            layer with one filter, or of zeros.
        effective_rank: The number of directions that the filters span, weighted by their strength:
            from 1 to min(N, C kH kW). N equal filters have 1. A value far below that of random
            filters means that filters repeat each other. NaN for a layer of zeros.
    """

    nearest: Tensor
    nearest_cosine: Tensor
    antiphase: Tensor
    antiphase_cosine: Tensor
    orthogonality: float
    effective_rank: float


def similarity(weights: Tensor, groups: int = 1, *, candidates: Tensor | None = None) -> Similarity:
    """Compare every filter with every other.

    Args:
        weights: Shape (N, C, kH, kW), not modified.
        groups: Number of groups of the convolution. Filters of different groups read different
            channels and are not compared.
        candidates: Which filters may be ``nearest`` or ``antiphase`` of another filter, bool of
            shape (N,); None for all. If a filter has a weak copy, excluding the weak copy finds the
            next similar filter.

    Returns:
        The indices, cosines and numbers of the layer. A filter of zeros is not ``nearest`` or
        ``antiphase`` of another filter, and has none itself.

    Source: orthogonality is 1 - sum |W W' - I| / (N (N - 1)), with rows of unit length: Gavrikov &
    Keuper, "CNN Filter DB", CVPR 2022. Effective rank is the exponential of the Shannon entropy of
    the singular values as shares of their sum: Roy & Vetterli, "The effective rank", EUSIPCO 2007.

    Example:
        >>> alike = similarity(torch.tensor([[[[1.0, 0.0]]], [[[2.0, 0.0]]], [[[0.0, 1.0]]]]))
        >>> alike.nearest_cosine.tolist(), round(alike.orthogonality, 3)
        ([1.0, 1.0, 0.0], 0.667)
    """
    unit, norms = _directions(weights)
    count, size = unit.shape
    is_usable = norms > 0
    is_no_candidate = ~is_usable if candidates is None else ~(is_usable & candidates)
    indices = torch.arange(count, device=weights.device)
    group = indices // (count // groups)
    share = (norms / norms.nan_to_num(0).amax()).nan_to_num(0).to(unit)
    # The singular values come from the smaller of W W' and W' W.
    products = unit.new_empty(count, count) if count <= size else _gram((unit * share[:, None]).T)
    # Allocated before the blocks, so that the memory of the blocks can be freed.
    largest, smallest = unit.new_empty(2, count)
    nearest, antiphase = indices.new_empty(2, count)
    has_none, total = ~is_usable, 0.0
    at_once = max(1, _MOST_NUMBERS // count)
    for start in range(0, count, at_once):
        rows = slice(start, start + at_once)
        cosines = (unit[rows] @ unit.T).clamp_(-1, 1)
        if count <= size:
            torch.mul(cosines, share, out=products[rows]).mul_(share[rows, None])
        cosines.diagonal(start).zero_()
        total += cosines.abs().sum(dtype=torch.float64).item()
        excluded = group[rows, None] != group
        excluded |= is_no_candidate
        excluded.diagonal(start).fill_(True)
        torch.max(cosines.masked_fill_(excluded, -torch.inf), 1, out=(largest[rows], nearest[rows]))
        torch.min(
            cosines.masked_fill_(excluded, torch.inf), 1, out=(smallest[rows], antiphase[rows])
        )
        has_none[rows] |= excluded.all(1)
    # The diagonal of W W' - I is -1 for a filter of zeros, and 0 for other filters.
    compared = int(norms.isfinite().sum())
    total += compared - int(is_usable.sum())
    pairs = compared * (compared - 1)
    return Similarity(
        nearest.masked_fill(has_none, -1),
        largest.masked_fill(has_none, torch.nan),
        antiphase.masked_fill(has_none, -1),
        smallest.masked_fill(has_none, torch.nan),
        1 - total / pairs if pairs and is_usable.any() else torch.nan,
        _effective_rank(products),
    )


def _gram(rows: Tensor) -> Tensor:
    return rows @ rows.T


def _effective_rank(products: Tensor) -> float:
    """Compute the rank from the matrix whose eigenvalues are the squared singular values."""
    squares = torch.linalg.eigvalsh(products).double()
    rounding = squares[-1] * torch.finfo(products.dtype).eps * len(squares)
    values = squares[squares > rounding].sqrt()
    share = values / values.sum()
    return torch.special.entr(share).sum().exp().item() if len(share) else torch.nan


def _directions(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the filters as rows of length 1, and their norms.

    The rows are float64 for small layers and float32 for large ones. A row is zero if the filter is
    zero or not finite. The norm of a filter that is not finite is NaN.
    """
    is_small = weights.numel() <= _MOST_EXACT_WEIGHTS and len(weights) <= _MOST_EXACT_FILTERS
    exact = torch.float64 if is_small else torch.float32
    units, norms = [], []
    for block in float64_blocks(weights):
        rows = block.flatten(1)
        norm = torch.linalg.vector_norm(rows, dim=1)
        norm = norm.masked_fill(norm.isinf(), torch.nan)
        units.append((rows / norm[:, None]).to(exact).nan_to_num_(0, 0, 0))
        norms.append(norm)
    return torch.cat(units), torch.cat(norms)

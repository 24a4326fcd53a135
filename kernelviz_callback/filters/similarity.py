"""How the filters of a layer relate to each other: copies, opposites, and what they span together.

A filter of zeros has the cosine 0 with all; one with NaN or infinity in it is left out.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from kernelviz_callback.filters.float64 import float64_blocks

_LARGE = 2**20  # weights: products in a larger layer are taken in float32, ...
_MANY = 512  # filters: ... and so are those of more than these
_MOST_NUMBERS = 2**19  # in the products that are in memory at once


class Similarity(NamedTuple):
    """Each filter's most similar and most opposite other filter, and how alike all of them are.

    Attributes:
        nearest: Index of the filter with the largest cosine, shape (N,); -1 if there is none.
        nearest_cosine: Shape (N,), in [-1, 1]; 1 is a duplicate, whatever its scale. NaN if there
            is none.
        antiphase: Index of the filter with the smallest cosine, shape (N,); -1 if there is none.
        antiphase_cosine: Shape (N,), in [-1, 1]; -1 is the same filter with the sign turned, a
            normal pair before a ReLU. NaN if there is none.
        orthogonality: In [0, 1]: 1 if all filters are orthogonal, 0 if all are equal. NaN for a
            layer of one filter, or of zeros.
        effective_rank: How many directions the filters span, by their weight: from 1 to
            min(N, C kH kW). N filters that are all the same have 1; low beside what random filters
            have means that filters repeat each other. NaN for a layer of zeros.
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
        groups: Of the convolution. Filters of different groups see different channels: they are no
            neighbours.
        candidates: Which filters may be the neighbour of another, bool of shape (N,); None for all.
            Beside a faded copy of a filter this finds the next that is alike.

    Returns:
        A filter without direction is nobody's neighbour and has none; nor has one that is alone.

    Source of the orthogonality: Gavrikov & Keuper, "CNN Filter DB", CVPR 2022:
    1 - sum |W W' - I| / (N (N - 1)), with rows of unit length. Of the effective rank: Roy &
    Vetterli, "The effective rank", EUSIPCO 2007: the exponential of the Shannon entropy of the
    singular values as shares of their sum.

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
    # Allocated before the blocks: small pieces between them would pin their memory.
    largest, smallest = unit.new_empty(2, count)
    nearest, antiphase = indices.new_empty(2, count)
    alone, total = ~is_usable, 0.0
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
        alone[rows] |= excluded.all(1)
    # The diagonal of W W' - I: rounding aside -1 for a filter of zeros, else 0.
    compared = int(norms.isfinite().sum())
    total += compared - int(is_usable.sum())
    pairs = compared * (compared - 1)
    return Similarity(
        nearest.masked_fill(alone, -1),
        largest.masked_fill(alone, torch.nan),
        antiphase.masked_fill(alone, -1),
        smallest.masked_fill(alone, torch.nan),
        1 - total / pairs if pairs and is_usable.any() else torch.nan,
        _effective_rank(products),
    )


def _gram(rows: Tensor) -> Tensor:
    return rows @ rows.T


def _effective_rank(products: Tensor) -> float:
    """From the matrix that has the squares of the singular values as its eigenvalues."""
    squares = torch.linalg.eigvalsh(products).double()
    rounding = squares[-1] * torch.finfo(products.dtype).eps * len(squares)
    values = squares[squares > rounding].sqrt()
    share = values / values.sum()
    return torch.special.entr(share).sum().exp().item() if len(share) else torch.nan


def _directions(weights: Tensor) -> tuple[Tensor, Tensor]:
    """The filters as rows of length 1, exact where that is affordable, and their norms.

    A row is zero where the norm is zero, or NaN because the filter is not finite.
    """
    is_small = weights.numel() <= _LARGE and len(weights) <= _MANY
    exact = torch.float64 if is_small else torch.float32
    units, norms = [], []
    for block in float64_blocks(weights):
        rows = block.flatten(1)
        norm = torch.linalg.vector_norm(rows, dim=1)
        norm = norm.masked_fill(norm.isinf(), torch.nan)
        units.append((rows / norm[:, None]).to(exact).nan_to_num_(0, 0, 0))
        norms.append(norm)
    return torch.cat(units), torch.cat(norms)

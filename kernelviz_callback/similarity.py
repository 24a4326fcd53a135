"""How the filters of a layer relate to each other: copies, opposites, and what they span together.

A filter of zeros has the cosine 0 with all; one with NaN or infinity in it is left out.
"""

from typing import NamedTuple

import torch
from torch import Tensor

_LARGE = 2**20  # weights: products in a larger layer are taken in float32, ...
_MANY = 512  # filters: ... and so are those of more than these
_MOST_NUMBERS = 2**20  # in the products that are in memory at once


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
    """

    nearest: Tensor
    nearest_cosine: Tensor
    antiphase: Tensor
    antiphase_cosine: Tensor
    orthogonality: float


def similarity(weights: Tensor, groups: int = 1) -> Similarity:
    """Compare every filter with every other.

    Args:
        weights: Shape (N, C, kH, kW), not modified.
        groups: Of the convolution. Filters of different groups see different channels: they are no
            neighbours.

    Returns:
        A filter without direction, or alone in its group, has no neighbours.

    Source of the orthogonality: Gavrikov & Keuper, "CNN Filter DB", CVPR 2022:
    1 - sum |W W' - I| / (N (N - 1)), with rows of unit length.

    Example:
        >>> alike = similarity(torch.tensor([[[[1.0, 0.0]]], [[[2.0, 0.0]]], [[[0.0, 1.0]]]]))
        >>> alike.nearest_cosine.tolist(), round(alike.orthogonality, 3)
        ([1.0, 1.0, 0.0], 0.667)
    """
    matrix = _matrix(weights)
    count = len(matrix)
    norms = matrix.norm(dim=1)
    is_usable = norms > 0
    unit = matrix / norms.where(is_usable, 1)[:, None]
    indices = torch.arange(count, device=weights.device)
    group = indices // (count // groups)
    neighbours, total = [], 0.0
    for rows in torch.split(indices, max(1, _MOST_NUMBERS // count)):
        cosines = (unit[rows] @ unit.T).clamp_(-1, 1)
        own = indices[: len(rows)], rows
        cosines[own] = 0
        total += cosines.abs().sum(dtype=torch.float64).item()
        excluded = group[rows, None] != group
        excluded |= ~is_usable
        excluded[own] = True
        largest, nearest = cosines.masked_fill_(excluded, -torch.inf).max(1)
        smallest, antiphase = cosines.masked_fill_(excluded, torch.inf).min(1)
        neighbours.append((nearest, largest, antiphase, smallest, excluded.all(1)))
    nearest, largest, antiphase, smallest, alone = map(torch.cat, zip(*neighbours, strict=True))
    alone |= ~is_usable
    # The diagonal of W W' - I: rounding aside -1 for a filter of zeros, else 0.
    compared = int(weights.isfinite().flatten(1).all(1).sum())
    total += compared - int(is_usable.sum())
    pairs = compared * (compared - 1)
    return Similarity(
        nearest.masked_fill(alone, -1),
        largest.masked_fill(alone, torch.nan),
        antiphase.masked_fill(alone, -1),
        smallest.masked_fill(alone, torch.nan),
        1 - total / pairs if pairs and is_usable.any() else torch.nan,
    )


def effective_rank(weights: Tensor) -> float:
    """How many directions the filters span, by their weight: from 1 to min(N, C kH kW).

    N filters that are all the same have 1. Low beside what random filters have means that filters
    repeat each other.

    Returns:
        NaN for a layer of zeros.

    Source: Roy & Vetterli, "The effective rank", EUSIPCO 2007: the exponential of the Shannon
    entropy of the singular values as shares of their sum.

    Example:
        >>> round(effective_rank(torch.eye(4).reshape(4, 1, 2, 2)), 6)
        4.0
    """
    matrix = _matrix(weights)
    if len(matrix) > matrix.shape[1]:
        matrix = matrix.T
    squares = torch.linalg.eigvalsh(matrix @ matrix.T).double()
    rounding = squares[-1] * torch.finfo(matrix.dtype).eps * len(squares)
    values = squares[squares > rounding].sqrt()
    share = values / values.sum()
    return torch.special.entr(share).sum().exp().item() if len(share) else torch.nan


def _matrix(weights: Tensor) -> Tensor:
    """The filters as rows, exact where that is affordable; zero where they are not finite."""
    matrix = weights.flatten(1)
    if not matrix.sum().isfinite():  # a sum of finite numbers may overflow, so it can only acquit
        matrix = matrix.where(matrix.isfinite().all(1, keepdim=True), 0)
    is_small = matrix.numel() <= _LARGE and len(matrix) <= _MANY
    return matrix.to(torch.float64 if is_small else torch.float32)

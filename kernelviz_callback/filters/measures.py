"""Measure filters: strength, sparsity, smoothness, colour, movement and variety.

The norms, `largest_magnitude` and ``Movement.change`` are in units of the weights. The other
numbers do not change if all weights are multiplied by one number.

A number that does not exist is NaN, not zero: for example the direction of a filter of zeros, or
the smoothness of a 1x1 kernel. If a filter has NaN or infinite weights, its numbers are NaN and the
numbers of the other filters do not change. Functions that handle each filter separately compute in
the type of the weights: pass float64 (see `float64_blocks`) for filters with very small or very
large weights. Numbers from the Fourier transform are in `spectrum`, comparisons of filters with
each other in `similarity`.
"""

from math import log, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from kernelviz_callback.filters.float64 import float64_blocks

# A kernel is near zero if all its weights are below this share of the largest weight of the layer.
# Source: Gavrikov & Keuper, "CNN Filter DB", CVPR 2022, section 4.
SPARSITY_SHARE = 0.01
# A filter is dead if its norm is at most this share of a strong norm. Dead filters do not count for
# the typical norm. A tenth of the other filters, rounded up, exceed the strong norm. Therefore 7 of
# 64 filters may explode, and 56 may die, before the typical norm changes (1 and 6 of 8 filters). If
# more filters die, the remaining filters seem to have exploded: norms alone do not distinguish the
# two cases.
DEAD_SHARE = 0.1


class Movement(NamedTuple):
    """How far a layer has moved from a reference, the same layer at another time.

    Attributes:
        change: Norm of the difference between each filter and the reference, shape (N,), in units
            of the weights.
        relative: ``change`` divided by the norm of the filter in the reference, shape (N,).
            Infinite if only the reference is zero, NaN if both are zero.
        cosine: Cosine between each filter and the reference, shape (N,), in [-1, 1]. 1 means that
            the pattern is the same, 0 that nothing of it is left. NaN if one of the two is zero.
        drift: Norm of the difference of all finite filters together, divided by the norm of the
            reference. NaN if the reference is zero.
    """

    change: Tensor
    relative: Tensor
    cosine: Tensor
    drift: float


def filter_norms(weights: Tensor) -> Tensor:
    """Compute the strength of each filter: its Euclidean norm.

    Args:
        weights: Shape (N, ...), floating point, not modified.

    Returns:
        Shape (N,), float64, in units of the weights.

    Example:
        >>> filter_norms(torch.tensor([[[[3.0, 4.0]]], [[[0.0, 0.0]]]])).tolist()
        [5.0, 0.0]
    """
    return torch.cat([_norms(block) for block in float64_blocks(weights)])


def largest_magnitude(values: Tensor) -> Tensor:
    """Compute the largest finite |value| of each filter, or of each item of the first axis.

    Args:
        values: Shape (N, ...), not modified.

    Returns:
        Shape (N,), float32. 0 for an item that is zero or has no finite value.

    Example:
        >>> largest_magnitude(torch.tensor([[1.0, -3.0], [float("nan"), 2.0]]))
        tensor([3., 2.])
    """
    inner = tuple(range(1, values.ndim))
    largest = torch.maximum(values.amax(inner), -values.amin(inner)).float()
    if largest.isfinite().all():
        return largest
    return torch.where(values.isfinite(), values, 0).abs().amax(inner).float()


def relative_norms(norms: Tensor) -> Tensor:
    """Compare the strength of each filter with its layer: 1 is typical, 0.1 is negligible.

    Args:
        norms: Shape (..., N), not negative: the norms of filters, or of the changes of filters.

    Returns:
        The same shape: the norms divided by the median norm of the filters that are not dead (see
        ``DEAD_SHARE``). NaN everywhere if all filters are dead.

    Example:
        >>> relative_norms(torch.tensor([0.0, 2.0, 2.0, 4.0]))
        tensor([0., 1., 1., 2.])
    """
    finite = norms.isfinite()
    ordered = norms.where(finite, 0).sort(-1).values
    last = norms.shape[-1] - 1
    strong = ordered[..., int(0.9 * last), None]
    # The norms are sorted, so the median of those above the limit is in the middle of the rest.
    first = (ordered <= DEAD_SHARE * strong).sum(-1, keepdim=True)
    middle = (first + last).double() / 2
    typical = (
        ordered.gather(-1, middle.floor().long().clamp(max=last))
        + ordered.gather(-1, middle.ceil().long().clamp(max=last))
    ) / 2
    return torch.where(finite & (first <= last), norms / typical, torch.nan)


def sparsity(weights: Tensor) -> Tensor:
    """Compute the share of each filter's kernels that are near zero and contribute nothing.

    Args:
        weights: Shape (N, C, kH, kW), not modified.

    Returns:
        Shape (N,), in [0, 1]; 1 for all filters of a layer of zeros. The mean over the filters is
        the sparsity of the layer.

    Source: Gavrikov & Keuper, "CNN Filter DB", CVPR 2022, section 4, "sparsity".

    Example:
        >>> sparsity(torch.tensor([[[[1.0]], [[0.001]]], [[[0.5]], [[-0.5]]]]))
        tensor([0.5000, 0.0000])
    """
    largest = weights.abs().amax((2, 3))
    finite = largest.isfinite()
    limit = SPARSITY_SHARE * largest.where(finite, 0).amax()
    near_zero = (largest < limit) if limit > 0 else largest == 0
    share = near_zero.float().mean(1)
    return share.masked_fill(~finite.all(1), torch.nan)


def autocorrelation(weights: Tensor) -> Tensor:
    """Compute the smoothness of each filter: the correlation of neighbouring weights.

    It is about 0 for noise, near 1 for blobs and wide stripes, and below 0 if signs alternate. The
    mean of each kernel is subtracted. The kernels of a filter are weighted by their variance.

    Args:
        weights: Shape (N, C, kH, kW), not modified.

    Returns:
        Shape (N,). NaN for 1x1 kernels, and for filters whose kernels are constant.

    Source: Moran's I with the four nearest neighbours (Moran, Biometrika 1950), pooled.
    """
    centred = weights - weights.mean((2, 3), keepdim=True)
    pairs = _neighbour_pairs(weights.shape)
    if pairs == 0:
        return weights.new_full((len(weights),), torch.nan)
    variance = centred.square().mean((2, 3)).sum(1)
    # The variance of a constant kernel is not exactly zero, because of rounding.
    constant = variance <= weights.square().mean((2, 3)).sum(1) * 1e-12
    across = (centred[..., 1:] * centred[..., :-1]).sum((1, 2, 3))
    down = (centred[..., 1:, :] * centred[..., :-1, :]).sum((1, 2, 3))
    return ((across + down) / pairs / variance).masked_fill(constant, torch.nan)


def roughness(weights: Tensor) -> Tensor:
    """Compute the roughness of each filter: the energy of differences of neighbouring weights.

    It is 0 for constant kernels, about 1 for noise, and 2 for a checkerboard, where neighbours are
    opposite. Unlike `autocorrelation` it is defined for constant kernels.

    Args:
        weights: Shape (N, C, kH, kW), not modified.

    Returns:
        Shape (N,), in [0, 2]: the sum of (a - b)^2 divided by the sum of a^2 + b^2, over all pairs
        (a, b) of neighbours. NaN for 1x1 kernels and filters of zeros.

    Example:
        >>> roughness(torch.tensor([[[[1.0, 1.0]]], [[[1.0, -1.0]]], [[[1.0, 0.0]]]]))
        tensor([0., 2., 1.])
    """
    across = weights[..., 1:], weights[..., :-1]
    down = weights[..., 1:, :], weights[..., :-1, :]
    inner = (1, 2, 3)
    differences = sum((a - b).square().sum(inner) for a, b in (across, down))
    energies = sum(a.square().sum(inner) + b.square().sum(inner) for a, b in (across, down))
    return torch.as_tensor(differences / energies, device=weights.device)


def colour_selectivity(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Measure how much each filter responds to colour, and to which colours.

    Args:
        weights: Shape (N, 3, kH, kW), channels red, green, blue. Not modified.

    Returns:
        Two tensors of shape (N,). The first is the share of the filter's energy off the grey axis,
        in [0, 1]: 0 for a grey filter, 1 for a purely colour-opponent filter, 2/3 for noise; NaN
        for a filter of zeros. The second is the opponent axis with most of this energy, in degrees
        [0, 180): 0 is red-green, 90 is blue-yellow. NaN for a grey filter.

    Raises:
        ValueError: If ``weights`` does not have 3 channels.

    Source: the opponent axes of Krauskopf, Williams & Heeley, Vision Research 1982, in their usual
    orthonormal form (R-G)/sqrt 2, (R+G-2B)/sqrt 6.
    """
    if weights.shape[1] != 3:
        raise ValueError(f"colour needs 3 input channels; found {weights.shape[1]}")
    red, green, blue = weights.unbind(1)
    a, b = (red - green) / sqrt(2), (red + green - 2 * blue) / sqrt(6)
    inner = (1, 2)
    energy = a.square().sum(inner), b.square().sum(inner)
    total = weights.square().sum((1, 2, 3))
    off_grey = (energy[0] + energy[1]) / total
    axis = torch.rad2deg(torch.atan2(2 * (a * b).sum(inner), energy[0] - energy[1]) / 2) % 180
    axis = axis.where(axis < 180, 0)  # the remainder may be rounded up to 180
    return off_grey, axis.masked_fill(~(off_grey > 1e-12), torch.nan)


def movement(weights: Tensor, reference: Tensor) -> Movement:
    """Measure how far a layer has moved from a reference, for each filter and for all together.

    Args:
        weights: Shape (N, C, kH, kW), not modified.
        reference: The same layer at another time, the same shape, not modified.

    Example:
        >>> now, then = torch.tensor([[[[3.0, 4.0]]]]), torch.tensor([[[[3.0, 0.0]]]])
        >>> moved = movement(now, then)
        >>> round(moved.cosine.item(), 3), round(moved.relative.item(), 3)
        (0.6, 1.333)
    """
    parts = []
    for now, then in zip(float64_blocks(weights), float64_blocks(reference), strict=True):
        products = (now * then).flatten(1).sum(1)
        parts.append((_norms(now), _norms(then), _norms(now - then), products))
    length, before, change, product = map(torch.cat, zip(*parts, strict=True))
    finite = change.isfinite()
    drift = change.where(finite, 0).norm() / before.where(finite, 0).norm()
    cosine = (product / (length * before)).clamp(-1, 1)
    return Movement(change.float(), (change / before).float(), cosine.float(), drift.item())


def variance_entropy(weights: Tensor) -> float:
    """Measure the variety of a layer's kernels: 0 if all are multiples of one pattern.

    Args:
        weights: Shape (N, C, kH, kW), on the CPU, finite, not modified.

    Returns:
        A number in [0, log10(kH kW)]. Random kernels are near the upper end. 0 if all kernels are
        equal, NaN if there is only one kernel, or if kernels are 1x1.

    Source: Gavrikov & Keuper, "CNN Filter DB", CVPR 2022, section 4: the base-10 entropy of the
    shares of variance along the principal components of all N x C kernels.
    """
    filters, channels, height, width = weights.shape
    count, size = filters * channels, height * width
    if count < 2 or size == 1:
        return torch.nan
    total = torch.zeros(size, dtype=torch.float64, device="cpu")
    energy = torch.zeros((), dtype=torch.float64, device="cpu")
    for block in float64_blocks(weights):
        total += block.sum((0, 1)).flatten()
        energy += block.square().sum()
    if count < size:  # this smaller matrix has the same eigenvalues, except for zeros
        centred = weights.reshape(count, size).double() - total / count
        scatter = centred @ centred.T
    else:
        scatter = torch.zeros(size, size, dtype=torch.float64, device="cpu")
        for block in float64_blocks(weights):
            centred = block.reshape(-1, size) - total / count
            scatter += centred.T @ centred
    if scatter.trace() <= energy * torch.finfo(torch.float64).eps ** 2 * count:
        return 0.0
    variances = torch.linalg.eigvalsh(scatter / scatter.trace()).clamp(min=0)
    share = variances / variances.sum()
    return float(torch.special.entr(share).sum()) / log(10)


def _norms(filters: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(filters.flatten(1), dim=1)
    return norms


def _neighbour_pairs(shape: torch.Size) -> int:
    """Return the number of pairs of neighbouring weights in a kernel."""
    _, _, height, width = shape
    return height * (width - 1) + (height - 1) * width

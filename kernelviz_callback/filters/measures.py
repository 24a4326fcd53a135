"""The numbers of filter health: pure functions of weights, each the same for any scale of them.

A number that does not exist is NaN, not zero: the direction of a filter of zeros, the smoothness of
a 1x1 kernel. A filter with NaN or infinity in it has NaN for every number and leaves those of the
others alone. What looks at each filter by itself computes in the type of the weights: as float64,
see `float64_blocks`, filters may be of any strength. What the kernel's Fourier transform tells is in
`spectrum`, how filters relate to each other in `similarity`.
"""

from math import log, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from kernelviz_callback.filters.float64 import float64_blocks

# A kernel is near zero if no weight in it reaches this share of the layer's largest.
# Source: Gavrikov & Keuper, "CNN Filter DB", CVPR 2022, section 4.
SPARSITY_SHARE = 0.01
# Filters below this share of a strong one do not count for what is typical. Strong is the norm that
# a tenth of the other filters, rounded up, exceed: so many may explode, and all below it may die,
# before the yardstick moves (of 64 filters 7, and 56; of 8 filters 1, and 6). If more die, the few
# that live look as if they had exploded: norms alone cannot tell which.
LIVING_SHARE = 0.1


class Movement(NamedTuple):
    """How far a layer has gone from a reference.

    Attributes:
        change: Length of each filter's way, shape (N,), in units of the weights.
        relative: The same in lengths of the reference, shape (N,). Infinite for a filter that was
            zero and is not; NaN for one that still is.
        cosine: How much of its form each filter has kept, shape (N,), in [-1, 1]: 1 all of it, 0
            nothing. NaN where it was zero, or is.
        drift: The way of the finite filters together, in lengths of the reference. NaN if that was
            zero.
    """

    change: Tensor
    relative: Tensor
    cosine: Tensor
    drift: float


def filter_norms(weights: Tensor) -> Tensor:
    """How strong each filter is: its Euclidean norm, shape (N,), float64, in units of the weights.

    Example:
        >>> filter_norms(torch.tensor([[[[3.0, 4.0]]], [[[0.0, 0.0]]]])).tolist()
        [5.0, 0.0]
    """
    return torch.cat([_lengths(block) for block in float64_blocks(weights)])


def relative_norms(norms: Tensor) -> Tensor:
    """How strong each filter is beside its layer: 1 is typical, 0.1 hardly takes part.

    Args:
        norms: Shape (..., N), not negative; the norms of filters or of their changes.

    Returns:
        Of the same shape: norms over the median of those that live (see ``LIVING_SHARE``). NaN
        everywhere if nothing lives.

    Example:
        >>> relative_norms(torch.tensor([0.0, 2.0, 2.0, 4.0]))
        tensor([0., 1., 1., 2.])
    """
    finite = norms.isfinite()
    ordered = norms.where(finite, 0).sort(-1).values
    last = norms.shape[-1] - 1
    strong = ordered[..., int(0.9 * last), None]
    # The median of those above the limit, in an ascending row: half way from there to its end.
    first = (ordered <= LIVING_SHARE * strong).sum(-1, keepdim=True)
    middle = (first + last).double() / 2
    typical = (
        ordered.gather(-1, middle.floor().long().clamp(max=last))
        + ordered.gather(-1, middle.ceil().long().clamp(max=last))
    ) / 2
    return torch.where(finite & (first <= last), norms / typical, torch.nan)


def sparsity(weights: Tensor) -> Tensor:
    """Share of each filter's kernels that are near zero: they cost time and contribute nothing.

    Returns:
        Shape (N,), in [0, 1]; 1 for all filters of a layer of zeros. The mean is the layer's.

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
    """How smooth each filter is: the correlation of weights that lie side by side.

    About 0 for noise, towards 1 for blobs and wide stripes, below 0 where signs alternate. Each
    kernel's mean is taken off, and the kernels of a filter count by their variance.

    Returns:
        Shape (N,). NaN for 1x1 kernels and filters of constant kernels.

    Source: Moran's I with the four nearest neighbours (Moran, Biometrika 1950), pooled.
    """
    centred = weights - weights.mean((2, 3), keepdim=True)
    pairs = _neighbour_pairs(weights.shape)
    if pairs == 0:
        return weights.new_full((len(weights),), torch.nan)
    variance = centred.square().mean((2, 3)).sum(1)
    # What rounding leaves of a constant kernel is no variance.
    constant = variance <= weights.square().mean((2, 3)).sum(1) * 1e-12
    across = (centred[..., 1:] * centred[..., :-1]).sum((1, 2, 3))
    down = (centred[..., 1:, :] * centred[..., :-1, :]).sum((1, 2, 3))
    return ((across + down) / pairs / variance).masked_fill(constant, torch.nan)


def roughness(weights: Tensor) -> Tensor:
    """How rough each filter is: the energy of the differences between neighbouring weights.

    0 for constant kernels, about 1 for noise, 2 where neighbours are opposite (a checkerboard).
    Unlike `autocorrelation` it knows a constant kernel for smooth.

    Returns:
        Shape (N,), in [0, 2]: sum of (a - b)^2 over sum of a^2 + b^2, over all pairs of neighbours.
        NaN for 1x1 kernels and filters of zeros.

    Example:
        >>> roughness(torch.tensor([[[[1.0, 1.0]]], [[[1.0, -1.0]]], [[[1.0, 0.0]]]]))
        tensor([0., 2., 1.])
    """
    across = weights[..., 1:], weights[..., :-1]
    down = weights[..., 1:, :], weights[..., :-1, :]
    inner = (1, 2, 3)
    differences = sum((a - b).square().sum(inner) for a, b in (across, down))
    energies = sum(a.square().sum(inner) + b.square().sum(inner) for a, b in (across, down))
    return torch.as_tensor(differences / energies)


def colour_selectivity(weights: Tensor) -> tuple[Tensor, Tensor]:
    """How much each filter looks at colour, and at which: its energy off the grey axis.

    Args:
        weights: Shape (N, 3, kH, kW), channels red, green, blue.

    Returns:
        Two tensors of shape (N,). The share of the energy off the grey axis, in [0, 1]: 0 is a
        grey-scale filter, 1 a purely opponent one, 2/3 what noise has. And the opponent axis that
        most of it lies on, in degrees [0, 180): 0 is red-green, 90 blue-yellow. NaN without energy.

    Raises:
        ValueError: For another number of channels.

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
    axis = axis.where(axis < 180, 0)  # rounding may lift a remainder to it
    return off_grey, axis.masked_fill(~(off_grey > 1e-12), torch.nan)


def movement(weights: Tensor, reference: Tensor) -> Movement:
    """Tell how far a layer has gone from a reference, filter by filter and as a whole.

    Args:
        weights: Shape (N, C, kH, kW).
        reference: The same layer at another time, of the same shape.

    Example:
        >>> now, then = torch.tensor([[[[3.0, 4.0]]]]), torch.tensor([[[[3.0, 0.0]]]])
        >>> moved = movement(now, then)
        >>> round(moved.cosine.item(), 3), round(moved.relative.item(), 3)
        (0.6, 1.333)
    """
    parts = []
    for now, then in zip(float64_blocks(weights), float64_blocks(reference), strict=True):
        products = (now * then).flatten(1).sum(1)
        parts.append((_lengths(now), _lengths(then), _lengths(now - then), products))
    length, before, change, product = map(torch.cat, zip(*parts, strict=True))
    finite = change.isfinite()
    drift = change.where(finite, 0).norm() / before.where(finite, 0).norm()
    cosine = (product / (length * before)).clamp(-1, 1)
    return Movement(change.float(), (change / before).float(), cosine.float(), drift.item())


def variance_entropy(weights: Tensor) -> float:
    """How varied the patterns of a layer's kernels are: 0 if all are multiples of one pattern.

    Returns:
        In [0, log10(kH kW)]. Random kernels are near the upper end. 0 if all kernels are the same,
        NaN if there is only one, or they are 1x1.

    Source: Gavrikov & Keuper, "CNN Filter DB", CVPR 2022, section 4: the base-10 entropy of the
    shares of variance along the principal components of all N x C kernels.
    """
    filters, channels, height, width = weights.shape
    count, size = filters * channels, height * width
    if count < 2 or size == 1:
        return torch.nan
    total = torch.zeros(size, dtype=torch.float64)
    energy = torch.zeros((), dtype=torch.float64)
    for block in float64_blocks(weights):
        total += block.sum((0, 1)).flatten()
        energy += block.square().sum()
    if count < size:  # the same variances, and zeros fewer
        centred = weights.reshape(count, size).double() - total / count
        scatter = centred @ centred.T
    else:
        scatter = torch.zeros(size, size, dtype=torch.float64)
        for block in float64_blocks(weights):
            centred = block.reshape(-1, size) - total / count
            scatter += centred.T @ centred
    if scatter.trace() <= energy * torch.finfo(torch.float64).eps ** 2 * count:
        return 0.0
    variances = torch.linalg.eigvalsh(scatter / scatter.trace()).clamp(min=0)
    share = variances / variances.sum()
    return float(torch.special.entr(share).sum()) / log(10)


def _lengths(filters: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(filters.flatten(1), dim=1)
    return lengths


def _neighbour_pairs(shape: torch.Size) -> int:
    """Pairs of weights side by side, in a kernel."""
    _, _, height, width = shape
    return height * (width - 1) + (height - 1) * width


def largest_magnitude(values: Tensor) -> Tensor:
    """Tell how strong each filter is: the largest finite |value| of each item of the first axis.

    Returns:
        Shape (N,), float32. 0 for an item of zeros, or without any finite value.

    Example:
        >>> largest_magnitude(torch.tensor([[1.0, -3.0], [float("nan"), 2.0]]))
        tensor([3., 2.])
    """
    inner = tuple(range(1, values.ndim))
    largest = torch.maximum(values.amax(inner), -values.amin(inner)).float()
    if largest.isfinite().all():
        return largest
    return torch.where(values.isfinite(), values, 0).abs().amax(inner).float()

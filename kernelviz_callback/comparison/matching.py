"""Which filter of one layer is which of another, and how much alike two layers are beyond chance.

Networks that were trained apart learn similar filters in another order. Within one training filter
i stays filter i; whether it did can be told from the weights alone.
"""

from functools import lru_cache
from math import ceil, sqrt
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from kernelviz_callback.checkpoints.stored_layers import Shape
from kernelviz_callback.filters.planes import why_no_image
from kernelviz_callback.filters.responses import ResponseChunks
from kernelviz_callback.model.convolutions import Geometry
from kernelviz_callback.probe.probe import Probe

# Standard deviations of what a random order does. Chance exceeds it once in 30,000 times.
IN_PLACE = 4.0
# Of few filters, or filters of few kinds, no order is that unlikely; but then theirs is nearly as
# good as the best.
_NEARLY = 0.95
_ALIKE = 1e-4  # cosines that differ less than this, a filter, tell filters from each other no more
_MAP_SIDE = 64  # pixels to which responses are averaged before they are compared
_SEED = 7
_MOST_DRAWS = 8
_MOST_DRAWN = 512  # filters


def cosines(ones: Tensor, others: Tensor) -> Tensor:
    """How alike the weights of each pair of filters are: 1 the same pattern, -1 its negative.

    Args:
        ones: Shape (N, C, kH, kW), or with kernels of one or three dimensions.
        others: Likewise.

    Returns:
        Shape (N, M), in [-1, 1]. 0 for a filter of zeros, or with NaN or infinity in it.

    Raises:
        ValueError: If the filters are not of the same shape.

    Example:
        >>> cosines(torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[2.0, 0.0]]], [[[-1.0, 1.0]]]]))
        tensor([[ 1.0000, -0.7071]])
    """
    if ones.shape[1:] != others.shape[1:]:
        raise ValueError(
            f"weights of filters {tuple(ones.shape[1:])} and {tuple(others.shape[1:])} cannot be "
            "compared; compare their responses"
        )
    return (_unit(ones.flatten(1)) @ _unit(others.flatten(1)).T).clamp(-1, 1)


class Layer(NamedTuple):
    """Filters, of any dimensions, and how they slide."""

    weights: Tensor
    geometry: Geometry


def response_correlations(one: Layer, other: Layer, probe: Probe) -> Tensor:
    """How alike each pair of filters sees a probe, whatever the shapes of their kernels.

    Where one layer covers more pixels, the margin that its responses lack is cut off the other's.

    Returns:
        Shape (N, M), in [-1, 1]: the correlation of the summed responses. 0 for a filter that
        answers to nothing, or with NaN or infinity in it.

    Raises:
        ValueError: If the probe does not fit a layer, or one reads no single images.
    """
    responses = [_responses(layer, probe) for layer in (one, other)]
    height, width = (min(r.shape[d] for r in responses) for d in (2, 3))
    ones, others = (torch.cat([_outline(r, height, width) for r in rs]) for rs in responses)
    return (ones @ others.T).clamp(-1, 1)


def _responses(layer: Layer, probe: Probe) -> ResponseChunks:
    weights, groups = layer.weights, layer.geometry.groups
    reason = why_no_image(weights.shape)
    if reason is not None:
        raise ValueError(reason)
    image = probe.for_channels(weights.shape[1] * groups)
    if bool((image == image[:1]).all()):  # the sum over channels is that of the kernels' sum
        image, weights, groups = image[:1], weights.sum(1, keepdim=True), 1
    return ResponseChunks(
        image, weights, dilation=layer.geometry.plane_dilation, groups=groups, summed=True
    )


def _outline(responses: Tensor, height: int, width: int) -> Tensor:
    """The middle of each response, averaged to a small picture, as a vector without its mean."""
    top, left = (responses.shape[2] - height) // 2, (responses.shape[3] - width) // 2
    middle = responses[..., top : top + height, left : left + width]
    average = ceil(max(height, width) / _MAP_SIDE)
    flat = F.avg_pool2d(middle, min(average, height, width)).flatten(1)
    return _unit(flat - flat.mean(1, keepdim=True))


def assign(similarity: Tensor) -> Tensor:
    """Pair filters off so that the sum of their similarities is largest (Hungarian method).

    Args:
        similarity: Shape (N, M).

    Returns:
        Shape (N,): the partner of each, -1 where M < N left none for it.

    Source: Kuhn, "The Hungarian method for the assignment problem", 1955, by SciPy.

    Example:
        >>> assign(torch.tensor([[0.9, 0.8], [0.9, 0.1]]))
        tensor([1, 0])
    """
    rows, columns = linear_sum_assignment(similarity.double().numpy(), maximize=True)
    partner = torch.full((len(similarity),), -1)
    partner[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return partner


def in_place(similarity: Tensor) -> bool | None:
    """Tell whether filter i of one layer is filter i of the other: the same training at two times.

    The sum of the diagonal is compared with what a random order of the filters would give.

    Args:
        similarity: Shape (N, N), of two layers of the same shape. Filters that are like no other at
            all, of zeros or with NaN, do not count.

    Returns:
        None if it cannot be told: of one filter, or of filters that are all alike.

    Source: mean and variance under a random permutation: Hoeffding, "A combinatorial central limit
    theorem", 1951, theorem 2.

    Example:
        >>> in_place(torch.eye(16)), in_place(torch.eye(16).flip(0)), in_place(torch.ones(9, 9))
        (True, False, None)
    """
    counts = similarity.ne(0).any(0) & similarity.ne(0).any(1)
    exact = similarity[counts][:, counts].double()
    count = len(exact)
    if count < 2:
        return None
    centred = exact - exact.mean(0) - exact.mean(1, keepdim=True) + exact.mean()
    spread = sqrt(centred.square().sum().item() / (count - 1))
    if spread < _ALIKE * count:
        return None
    trace = exact.trace().item()
    if trace - count * exact.mean().item() > IN_PLACE * spread:
        return True
    best = exact[torch.arange(count), assign(exact)].sum().item()
    return trace >= _NEARLY * best > 0


@lru_cache(maxsize=64)
def chance_cosine(ones: Shape, others: Shape) -> float:
    """The mean cosine of matched filters that two layers of random filters reach.

    Args:
        ones: Of the weights of one.
        others: Of those of the other.

    Returns:
        Of independent Gaussian filters, simulated with a generator of its own.
    """
    generator = torch.Generator().manual_seed(_SEED)
    found = []
    for _ in range(_draws(ones[0], others[0])):
        pair = [torch.randn(s, generator=generator, dtype=torch.float32) for s in (ones, others)]
        found.append(mean_matched(cosines(*pair)))
    return sum(found) / len(found)


def chance_correlation(
    one: tuple[Shape, Geometry], other: tuple[Shape, Geometry], probe: Probe
) -> float:
    """The mean correlation of matched responses that two layers of random filters reach.

    Images are smooth, and so is much of any response to one: this is far above zero.

    Args:
        one: Shape of the weights, and geometry.
        other: Likewise.
        probe: What they respond to.
    """
    generator = torch.Generator().manual_seed(_SEED)

    def drawn(shape: Shape, geometry: Geometry) -> Layer:
        return Layer(torch.randn(shape, generator=generator, dtype=torch.float32), geometry)

    found = [
        mean_matched(response_correlations(drawn(*one), drawn(*other), probe))
        for _ in range(_draws(one[0][0], other[0][0]))
    ]
    return sum(found) / len(found)


def mean_matched(similarity: Tensor) -> float:
    """The mean similarity of filters and their partners, as `assign` pairs them off."""
    partner = assign(similarity)
    paired = partner >= 0
    return similarity[paired, partner[paired]].mean().item()


def _draws(*filters: int) -> int:
    return max(2, min(_MOST_DRAWS, _MOST_DRAWN // max(filters)))


def _unit(rows: Tensor) -> Tensor:
    rows = rows.where(rows.isfinite().all(1, keepdim=True), 0)
    largest = rows.abs().amax(1, keepdim=True)
    rows = rows / largest.where(largest > 0, 1)  # their squares might overflow
    lengths = rows.norm(dim=1, keepdim=True)
    unit: Tensor = rows / lengths.where(lengths > 0, 1)
    return unit

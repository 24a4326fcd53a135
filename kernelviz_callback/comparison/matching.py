"""Match the filters of two layers, and measure whether the layers are more similar than by chance.

Two networks that were trained separately learn similar filters in a different order. Within one
training, filter i stays filter i. The weights show which of the two is the case.
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

# In standard deviations of a random order. A random order exceeds it once in 30,000 times.
SAME_ORDER = 4.0
# With few filters, or few kinds of filters, no order exceeds the limit above. Then the order counts
# as the same if its sum is this share of the best possible sum.
_NEAR_BEST = 0.95
_SMALLEST_SPREAD = 1e-4  # of the cosines, per filter: below it, filters cannot be distinguished
_MOST_FILTERS = 2**12  # a minute of work
_MAP_SIDE = 64  # pixels to which responses are averaged before they are compared
_SEED = 7
_MOST_DRAWS = 8  # pairs of random layers
_MOST_DRAWN = 512  # filters in all random layers together


def check_filter_count(layer: str, filters: int) -> None:
    """Raise a `ValueError` if a layer has too many filters to compare each with each other one."""
    if filters > _MOST_FILTERS:
        raise ValueError(
            f"{layer} has {filters:,} filters; at most {_MOST_FILTERS:,} are compared; choose "
            "another layer"
        )


def cosines(ones: Tensor, others: Tensor) -> Tensor:
    """Compute the cosine of each pair of filters: 1 for the same pattern, -1 for its negative.

    Args:
        ones: Shape (N, C, kH, kW), or with 1-D or 3-D kernels.
        others: Shape (M, C, kH, kW), or with 1-D or 3-D kernels.

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
    """Filters with 1-D, 2-D or 3-D kernels, and their geometry."""

    weights: Tensor
    geometry: Geometry


def response_correlations(one: Layer, other: Layer, probe: Probe) -> Tensor:
    """Correlate the responses of each pair of filters to a probe.

    The kernels of the two layers may differ in shape. A larger kernel has a smaller response, so
    the margin of the larger response is cut off.

    Args:
        one: A layer of N filters.
        other: A layer of M filters.
        probe: The image.

    Returns:
        Shape (N, M), in [-1, 1]: the correlation of the responses, summed over channels. 0 for a
        filter whose response is constant, or has NaN or infinity in it.

    Raises:
        ValueError: If the probe does not fit a layer, or a layer does not read images.
    """
    layers = one, other
    for layer in layers:
        if why_no_image(layer.weights.shape) is None:
            height, width = layer.weights.shape[2:]
            probe = probe.covering((height, width), layer.geometry.plane_dilation)
    responses = [_responses(layer, probe) for layer in layers]
    height, width = (min(r.shape[d] for r in responses) for d in (2, 3))
    ones, others = (
        torch.cat([_response_vectors(r, height, width) for r in rs]) for rs in responses
    )
    return (ones @ others.T).clamp(-1, 1)


def _responses(layer: Layer, probe: Probe) -> ResponseChunks:
    weights, groups = layer.weights, layer.geometry.groups
    reason = why_no_image(weights.shape)
    if reason is not None:
        raise ValueError(reason)
    image = probe.for_channels(weights.shape[1] * groups)
    # Equal channels: sum the kernels before, not after.
    if image.stride(0) == 0 or bool((image == image[:1]).all()):
        image, weights, groups = image[:1], weights.sum(1, keepdim=True), 1
    return ResponseChunks(
        image, weights, dilation=layer.geometry.plane_dilation, groups=groups, summed=True
    )


def _response_vectors(responses: Tensor, height: int, width: int) -> Tensor:
    """Crop each response at its centre, average it to a small picture, and normalize it."""
    top, left = (responses.shape[2] - height) // 2, (responses.shape[3] - width) // 2
    middle = responses[..., top : top + height, left : left + width]
    average = ceil(max(height, width) / _MAP_SIDE)
    flat = F.avg_pool2d(middle, min(average, height, width)).flatten(1)
    return _unit(flat - flat.mean(1, keepdim=True))


def assign(similarity: Tensor) -> Tensor:
    """Match filters so that the sum of their similarities is largest (Hungarian method).

    Args:
        similarity: Shape (N, M).

    Returns:
        Shape (N,): the index of the partner of each filter. If M < N, -1 for those without partner.

    Source: Kuhn, "The Hungarian method for the assignment problem", 1955, by SciPy.

    Example:
        >>> assign(torch.tensor([[0.9, 0.8], [0.9, 0.1]]))
        tensor([1, 0])
    """
    rows, columns = linear_sum_assignment(similarity.double().numpy(), maximize=True)
    partner = torch.full((len(similarity),), -1, dtype=torch.long, device="cpu")
    partner[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return partner


def has_same_order(similarity: Tensor) -> bool | None:
    """Check whether filter i of one layer is filter i of the other, as within one training.

    The sum of the diagonal is compared with the sums that a random order of the filters gives.

    Args:
        similarity: Shape (N, N), for two layers of the same shape. Filters whose similarities are
            all 0 are not counted: filters of zeros, or with NaN.

    Returns:
        None if it cannot be determined: for a single filter, or if all filters are the same.

    Source: mean and variance under a random permutation: Hoeffding, "A combinatorial central limit
    theorem", 1951, theorem 2.

    Example:
        >>> has_same_order(torch.eye(16)), has_same_order(torch.eye(16).flip(0))
        (True, False)
        >>> has_same_order(torch.ones(9, 9)) is None
        True
    """
    counts = similarity.ne(0).any(0) & similarity.ne(0).any(1)
    exact = similarity[counts][:, counts].double()
    count = len(exact)
    if count < 2:
        return None
    centred = exact - exact.mean(0) - exact.mean(1, keepdim=True) + exact.mean()
    spread = sqrt(centred.square().sum().item() / (count - 1))
    if spread < _SMALLEST_SPREAD * count:
        return None
    trace = exact.trace().item()
    if trace - count * exact.mean().item() > SAME_ORDER * spread:
        return True
    best = exact[torch.arange(count, device="cpu"), assign(exact)].sum().item()
    return trace >= _NEAR_BEST * best > 0


@lru_cache(maxsize=64)
def chance_cosine(ones: Shape, others: Shape) -> float:
    """Simulate the mean cosine of matched filters of two layers of random filters.

    The filters are independent and Gaussian. The simulation uses its own random generator.

    Args:
        ones: Shape of the weights of one layer.
        others: Shape of the weights of the other layer.
    """
    generator = torch.Generator().manual_seed(_SEED)
    found = []
    for _ in range(_draws(ones[0], others[0])):
        pair = [
            torch.randn(s, generator=generator, dtype=torch.float32, device="cpu")
            for s in (ones, others)
        ]
        found.append(mean_matched(cosines(*pair)))
    return sum(found) / len(found)


def chance_correlation(
    one: tuple[Shape, Geometry], other: tuple[Shape, Geometry], probe: Probe
) -> float:
    """Simulate the mean correlation of matched responses of two layers of random filters.

    It is far above zero: images are smooth, so that the responses of all filters are similar.

    Args:
        one: Shape of the weights and geometry of one layer.
        other: Shape of the weights and geometry of the other layer.
        probe: The image.
    """
    generator = torch.Generator().manual_seed(_SEED)

    def drawn(shape: Shape, geometry: Geometry) -> Layer:
        return Layer(
            torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu"), geometry
        )

    found = [
        mean_matched(response_correlations(drawn(*one), drawn(*other), probe))
        for _ in range(_draws(one[0][0], other[0][0]))
    ]
    return sum(found) / len(found)


def mean_matched(similarity: Tensor) -> float:
    """Compute the mean similarity of filters and their partners, as `assign` matches them."""
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

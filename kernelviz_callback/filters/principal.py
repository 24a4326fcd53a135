"""The principal plane of a filter with many input channels: the one pattern that tells most of it.

A filter of 64 channels is 64 kernels, too many to look at. As a C x (kH * kW) matrix it is a sum of
patterns, each times what every channel takes of it; the first of its singular value decomposition
comes nearest to the filter of all.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kernelviz_callback.filters.float64 import exact_blocks
from kernelviz_callback.filters.planes import check_filters

_NO_SUM = 1e-6  # of a plane of norm 1: rounding alone makes a sum like this


@dataclass(frozen=True)
class PrincipalPlanes:
    """What `principal_planes` found.

    Attributes:
        planes: Shape (N, 1, kH, kW), as the filters with one channel, float32, in units of the
            weights: a plane's norm is the largest singular value of its filter.
        explained: Shape (N,), float32, the plane's share of the filter's squared norm, in
            [1 / min(C, kH * kW), 1]: 1 if all channels have one kernel, some more of it than
            others. NaN for a filter that is zero, or has NaN or infinity.
    """

    planes: Tensor
    explained: Tensor


@torch.no_grad()
def principal_planes(weights: Tensor) -> PrincipalPlanes:
    """What each filter looks for in most of its channels: the pattern that explains most of it.

    The first right singular vector of the filter as a C x (kH * kW) matrix, times its singular
    value. Of a filter with one channel it is the kernel, but for its sign.

    A singular vector has no sign of its own. The plane has the one with which its weights sum to
    more than zero, so a blob is positive, whatever the channels take of it; where they sum to zero
    it is positive towards its end in reading order. While a filter moves this sign stays. One by
    what the channels take would not: their shares nearly cancel in up to half of a trained layer's
    filters. In 400 steps of the demo's second convolution 14 planes turned over by this rule, 284
    to 440 by four rules on the shares.

    Args:
        weights: Filters, shape (N, C, kH, kW), floating point, not modified. Kernels may have one
            or three dimensions: a plane is then a curve or a volume.

    Returns:
        On the device of ``weights``. Where a weight is NaN or infinite in any channel the plane is
        NaN; the rest of it is that of the finite weights.

    Raises:
        ValueError: If ``weights`` are no filters or empty.

    Source: Eckart & Young, "The approximation of one matrix by another of lower rank", 1936.

    Example:
        >>> kernel = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
        >>> shares = torch.tensor([-3.0, 0.0, 4.0])[:, None, None]
        >>> found = principal_planes((shares * kernel)[None])
        >>> found.planes[0, 0] / 5, found.explained
        (tensor([[0., 1.],
                [2., 0.]]), tensor([1.]))
    """
    check_filters(weights.shape)
    blocks = [_of_block(block.flatten(2)) for block in exact_blocks(weights.detach())]
    planes = torch.cat([planes for planes, _ in blocks])
    return PrincipalPlanes(
        planes=planes.float().reshape(len(weights), 1, *weights.shape[2:]),
        explained=torch.cat([explained for _, explained in blocks]).float(),
    )


def _of_block(filters: Tensor) -> tuple[Tensor, Tensor]:
    """Planes (n, K) and explained shares (n,) of filters (n, C, K), float64.

    From the smaller of the two Gram matrices: of 2048x512x3x3 that is 9x9 a filter.
    """
    channels, size = filters.shape[1:]
    is_finite = filters.isfinite()
    filters = torch.where(is_finite, filters, 0)
    if size <= channels:
        values, vectors = torch.linalg.eigh(filters.mT @ filters)
        planes = vectors[..., -1] * values[:, -1:].clamp(min=0).sqrt()
    else:
        values, vectors = torch.linalg.eigh(filters @ filters.mT)
        planes = (vectors[:, None, :, -1] @ filters)[:, 0]
    planes = planes * _signs(planes)[:, None]
    planes = torch.where(is_finite.all(1), planes, torch.nan)
    explained = values[:, -1] / values.sum(1)
    return planes, torch.where(is_finite.all(2).all(1), explained.clamp(max=1), torch.nan)


def _signs(planes: Tensor) -> Tensor:
    """Shape (n,): 1 or -1, times which the planes (n, K) have the sign that they are drawn with."""
    sums = planes.sum(1)
    later = planes @ torch.arange(planes.shape[1], dtype=planes.dtype, device=planes.device)
    is_clear = sums.abs() > _NO_SUM * planes.norm(dim=1)
    return torch.where(torch.where(is_clear, sums, later) < 0, -1.0, 1.0)

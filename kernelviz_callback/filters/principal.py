"""Compute the principal plane of a filter: the one pattern that explains most of its kernels.

A filter with 64 channels has 64 kernels, too many to look at. Its weights are a C x (kH * kW)
matrix. The singular value decomposition writes this matrix as a sum of terms: each term is one
pattern of shape kH x kW, multiplied by one number for each channel. The first term is the best
approximation of the filter by one pattern.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kernelviz_callback.filters.float64 import float64_blocks
from kernelviz_callback.filters.planes import check_filters

_NO_SUM = 1e-6  # a smaller sum of the weights of a plane with norm 1 is a rounding error


@dataclass(frozen=True)
class PrincipalPlanes:
    """The result of `principal_planes`.

    Attributes:
        planes: Shape (N, 1, kH, kW), float32, in units of the weights. The norm of a plane is the
            largest singular value of its filter. Filters of 1-D layers have planes of shape
            (N, 1, k), filters of 3-D layers (N, 1, kD, kH, kW).
        explained: Shape (N,), float32, in [1 / min(C, kH * kW), 1]: the plane's share of the
            filter's squared norm. 1 means that the kernels of all channels are multiples of one
            pattern. NaN for a filter of zeros, or with NaN or infinity.
    """

    planes: Tensor
    explained: Tensor


@torch.no_grad()
def principal_planes(weights: Tensor) -> PrincipalPlanes:
    """Compute the pattern that explains most of each filter, over all of its channels.

    The plane is the first right singular vector of the filter, a C x (kH * kW) matrix, times its
    singular value. For a filter with one channel it is the kernel, up to the sign.

    The sign of a singular vector is arbitrary. Here it is chosen so that the weights of the plane
    have a positive sum: a blob is positive. If the sum is zero, the part of the plane that comes
    later in reading order is positive. With this rule the sign rarely changes while a filter is
    trained. In 400 steps of the demo's second convolution 14 planes changed their sign. Four rules
    that used the numbers of the channels instead gave 284 to 440 changes, because these numbers
    nearly cancel in up to half of the filters of a trained layer. A film has no such change, see
    `ContinuousSigns`.

    Args:
        weights: Filters, shape (N, C, kH, kW), (N, C, k) or (N, C, kD, kH, kW), floating point,
            not modified.

    Returns:
        The planes, on the device of ``weights``. If a weight is NaN or infinite in any channel, the
        plane is NaN at its place. The rest of the plane is computed from the finite weights.

    Raises:
        ValueError: If ``weights`` is empty or does not have the shape of filters.

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
    blocks = [_of_block(block.flatten(2)) for block in float64_blocks(weights.detach())]
    planes = torch.cat([planes for planes, _ in blocks])
    return PrincipalPlanes(
        planes=planes.float().reshape(len(weights), 1, *weights.shape[2:]),
        explained=torch.cat([explained for _, explained in blocks]).float(),
    )


class ContinuousSigns:
    """Finds signs with which the planes of a training do not turn into their negatives.

    A plane and its negative describe a filter equally well. Each plane gets the sign with which its
    product with the plane of the step before is positive. The planes of the last step keep the
    signs that `principal_planes` gave them.

    Example:
        >>> signs = ContinuousSigns()
        >>> signs.add(0, torch.tensor([[1.0, -0.9]]))
        >>> signs.add(5, torch.tensor([[-0.9, 1.0]]))
        >>> signs.of(0), signs.of(5)
        (tensor([-1.]), tensor([1.]))
    """

    def __init__(self) -> None:
        self._before: Tensor | None = None
        self._signs: dict[int, Tensor] = {}

    def add(self, step: int, planes: Tensor) -> None:
        """Add the planes of the next step.

        Args:
            step: Step, larger than the steps before.
            planes: Shape (N, ...), the same at every step, not modified. If a filter is zero or not
                finite, the next step is compared with the step before.
        """
        flat = planes.flatten(1).double().nan_to_num(0.0, 0.0, 0.0)
        signs = torch.ones(len(planes), dtype=planes.dtype, device=planes.device)
        if self._before is not None:
            signs = torch.where((flat * self._before).sum(1) < 0, -signs, signs)
            flat = flat * signs[:, None]
            flat = torch.where(flat.eq(0).all(1, keepdim=True), self._before, flat)
        self._before, self._signs[step] = flat, signs

    def of(self, step: int) -> Tensor:
        """Return the factor 1 or -1 of each plane at a step that was added, shape (N,)."""
        return self._signs[step] * next(reversed(self._signs.values()))


def _of_block(filters: Tensor) -> tuple[Tensor, Tensor]:
    """Return the planes (n, K) and explained shares (n,) of filters (n, C, K), float64.

    They are computed from the smaller of the two Gram matrices: 9x9 for each filter of 512x3x3.
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
    """Return shape (n,): the factor 1 or -1 that gives each of the planes (n, K) its sign."""
    sums = planes.sum(1)
    later = planes @ torch.arange(planes.shape[1], dtype=planes.dtype, device=planes.device)
    is_clear = sums.abs() > _NO_SUM * planes.norm(dim=1)
    return torch.where(torch.where(is_clear, sums, later) < 0, -1.0, 1.0)

"""Mean and covariance of the patches that a layer reads, and what follows from them for filters.

A patch is the part of the layer's input that a filter is multiplied with at one position. What a
filter gives out at a random position is ``w . x``, so its mean and its variance follow from the
mean and the covariance of the patches alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

MOST_PATCHES = 10_000  # the covariance of 147 numbers is known to about 1 % then
MOST_DIMENSIONS = 1024  # numbers in a patch; the principal components of more take seconds
# Patches that are kept as they are. Their values are not distributed normally, so a share of the
# positions is counted on them.
_MOST_KEPT = 4096
_MOST_NUMBERS_KEPT = 2**20
_SEED = 11


@dataclass(frozen=True)
class Patches:
    """Mean and covariance of the patches that a layer reads.

    A filter of a grouped convolution reads only the channels of its group, so each group has its
    own numbers. The numbers of a patch are in the order of ``weights.flatten(1)``.

    Attributes:
        mean: Shape (groups, D) with D = C kH kW, float64, in units of the layer's input.
        covariance: Shape (groups, D, D), float64.
        sample: Some of the patches, shape (groups, n, D), float32.
        count: Number of patches that were measured.
    """

    mean: Tensor
    covariance: Tensor
    sample: Tensor
    count: int

    @property
    def groups(self) -> int:
        """Number of groups of the convolution."""
        return len(self.mean)

    @cached_property
    def components(self) -> "Components":
        """The principal components of the patches of all groups together."""
        apart = self.mean - self.mean.mean(0)
        pooled = self.covariance.mean(0) + apart.T @ apart / self.groups
        variances, directions = torch.linalg.eigh(pooled.double())
        return Components(variances.flip(0).clamp(min=0), directions.flip(1))


@dataclass(frozen=True)
class Components:
    """The principal components of patches.

    Attributes:
        variances: Variance along each component, the largest first. Shape (D,), float64.
        directions: The components as columns of length 1, shape (D, D), float64.
    """

    variances: Tensor
    directions: Tensor


def measure_patches(
    inputs: Tensor,
    kernel: Sequence[int],
    *,
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    groups: int = 1,
    padding_mode: str = "zeros",
) -> Patches:
    """Measure the patches that a convolution reads from a batch of inputs.

    At most `MOST_PATCHES` positions are measured. They are drawn with a random generator of their
    own, so the same inputs give the same numbers.

    Args:
        inputs: What the layer reads, shape (B, C * groups, ...) with one, two or three spatial
            dimensions, floating point, not modified. NaN and infinity make the result NaN.
        kernel: Size of a kernel, one number for each spatial dimension.
        stride: Stride of the layer, in the order of ``kernel``.
        padding: Pixels before and after the input, in the order of ``kernel``.
        dilation: Spacing of the weights, in the order of ``kernel``.
        groups: Number of groups of the convolution.
        padding_mode: The option of ``torch.nn.Conv2d``.

    Raises:
        ValueError: If the kernel is larger than the padded input.

    Example:
        >>> images = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> found = measure_patches(
        ...     images, (3, 3), stride=(2, 2), padding=((1, 1), (1, 1)), dilation=(1, 1)
        ... )
        >>> found.covariance.shape, found.count
        (torch.Size([1, 27, 27]), 4096)
    """
    ends = [end for pair in reversed(list(padding)) for end in pair]
    mode = "constant" if padding_mode == "zeros" else padding_mode
    padded = F.pad(inputs, ends, mode=mode) if any(ends) else inputs
    every = _windows(padded, kernel, stride, dilation).movedim(1, len(kernel) + 1)
    places = every.shape[: len(kernel) + 1]  # the image and the position in it
    chosen = _choose(prod(places), MOST_PATCHES).to(inputs.device)
    patches = every[torch.unravel_index(chosen, places)].double()  # (n, C * groups, kernel)
    rows = patches.reshape(len(chosen), groups, -1).transpose(0, 1)
    mean = rows.mean(1)
    centred = rows - mean[:, None]
    covariance = centred.transpose(1, 2) @ centred / len(chosen)
    most = max(1, min(_MOST_KEPT, _MOST_NUMBERS_KEPT // rows[:, 0].numel()))
    kept = _choose(len(chosen), most).to(inputs.device)
    return Patches(mean, covariance, rows[:, kept].float(), len(chosen))


def output_moments(
    weights: Tensor, patches: Patches, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Compute the mean and the variance of what filters give out, over all positions.

    Args:
        weights: Filters, shape (N, C, ...), floating point, not modified.
        patches: Patches of the layer, on any device.
        bias: Bias of the layer, shape (N,); None if it has none.

    Returns:
        ``w . m + b`` and ``w' C w``, each of shape (N,), float64, on the device of ``patches``.

    Raises:
        ValueError: If the filters do not fit the patches.

    Example:
        >>> patches = Patches(torch.ones(1, 2), torch.eye(2)[None], torch.ones(1, 1, 2), 100)
        >>> output_moments(torch.tensor([[[3.0, -4.0]]]), patches)
        (tensor([-1.], dtype=torch.float64), tensor([25.], dtype=torch.float64))
    """
    rows = rows_by_group(weights, patches)
    mean = torch.einsum("gnd,gd->gn", rows, patches.mean.double()).flatten()
    variance = ((rows @ patches.covariance.double()) * rows).sum(2).flatten()
    offset = 0.0 if bias is None else bias.detach().to(mean)
    return mean + offset, variance.clamp(min=0)


def rows_by_group(weights: Tensor, patches: Patches) -> Tensor:
    """Return filters as rows, shape (groups, N / groups, D), float64, on the patches' device.

    Raises:
        ValueError: If the filters do not fit the patches.
    """
    size = weights[0].numel()
    if size != patches.mean.shape[1] or len(weights) % patches.groups:
        raise ValueError(
            f"filters of shape {tuple(weights.shape)} read patches of {size} numbers; found "
            f"patches of {patches.mean.shape[1]} in {patches.groups} group(s)"
        )
    rows = weights.detach().to(patches.mean.device, torch.float64)
    return rows.reshape(patches.groups, -1, size)


def _windows(
    padded: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """View all patches: shape (B, channels, positions of each dimension, kernel)."""
    every = padded
    for axis, (taps, step, spacing) in enumerate(zip(kernel, stride, dilation, strict=True)):
        reach = spacing * (taps - 1) + 1
        if reach > padded.shape[2 + axis]:
            raise ValueError(
                f"the kernel covers {reach} pixels (dilation included) and the padded input of the "
                f"layer has only {padded.shape[2 + axis]}"
            )
        every = every.unfold(2 + axis, reach, step)[..., ::spacing]
    return every


def _choose(count: int, most: int) -> Tensor:
    """Choose at most that many of the numbers below ``count``, in ascending order."""
    if count <= most:
        return torch.arange(count, device="cpu")
    generator = torch.Generator(device="cpu").manual_seed(_SEED)
    # One number of each of `most` equal sections: evenly over all images and positions.
    start = torch.arange(most, dtype=torch.float64, device="cpu")
    share = torch.rand(most, dtype=torch.float64, generator=generator, device="cpu")
    return ((start + share) * (count / most)).long().clamp(max=count - 1)

"""What the Fourier transform of its kernels tells of a filter: its stripes, or that it is noise.

Everything is computed from one small power spectrum a filter, summed over its kernels, on a grid of
2 kH - 1 by 2 kW - 1 frequencies: that many determine the spectrum at every other frequency, because
its transform, the autocorrelation of the kernel, reaches no further.
"""

from functools import lru_cache
from math import pi
from typing import NamedTuple

import torch
from torch import Tensor

# Frequencies to look for the peak at, from -1/2 to 1/2 cycle a pixel. Finer than the widest peak of
# a 16x16 kernel by a factor of two.
_FINE = 32
_MOST_NUMBERS = 2**20  # of a transform in memory at once


class Stripes(NamedTuple):
    """The dominant wave in each filter: three tensors of shape (N,).

    Attributes:
        frequency: In cycles a pixel: 0 for a blob, 1/2 for a sign change at every pixel.
        orientation: Of the stripes, in degrees [0, 180): 0 horizontal, 90 vertical, 45 rising to
            the right. NaN where the frequency is 0.
        bandwidth: Diameter of the frequencies with at least half the peak's power, in cycles a
            pixel. A kernel of k pixels cannot have less than about 0.9 / k.
    """

    frequency: Tensor
    orientation: Tensor
    bandwidth: Tensor


def power_spectrum(weights: Tensor) -> Tensor:
    """Power of each filter at each frequency: |Fourier transform|^2, summed over its kernels.

    Args:
        weights: Shape (N, C, kH, kW), floating point, not modified.

    Returns:
        Shape (N, 2 kH - 1, kW), float32: the frequencies i / (2 kH - 1) down and j / (2 kW - 1)
        across, cycles a pixel, as `torch.fft.rfft2` orders them.
    """
    filters, channels, height, width = weights.shape
    transform = _transform(height, width).to(weights.device)
    kernels = weights.float().reshape(-1, height * width)
    at_once = max(1, _MOST_NUMBERS // (transform.shape[1] * channels)) * channels
    parts = [
        (part @ transform).square().reshape(-1, channels, transform.shape[1]).sum(1)
        for part in torch.split(kernels, at_once)
    ]
    real, imaginary = torch.cat(parts).chunk(2, dim=1)
    return (real + imaginary).reshape(filters, 2 * height - 1, width)


def concentration(power: Tensor) -> Tensor:
    """How far from noise each filter is: how much its power gathers at few frequencies.

    Args:
        power: See `power_spectrum`.

    Returns:
        Shape (N,): the mean square of the power over its squared mean. 1 is a flat spectrum; random
        filters have a little more, stripes and blobs several times as much. It equals the sum of
        the squared autocorrelation over all lags, hence it misses no regular pattern. NaN for a
        filter of zeros.

    Source: the portmanteau statistic of Box & Pierce, JASA 1970, in two dimensions.
    """
    twice = _multiplicity(power).to(power.device)
    count = twice.sum()
    # Normed first: the fourth power of a small weight is no float32 any more.
    normed = power / power.amax((1, 2), keepdim=True)
    mean = (normed * twice).sum((1, 2)) / count
    return (normed.square() * twice).sum((1, 2)) / count / mean.square()


def dominant_stripes(power: Tensor, kernel: tuple[int, int]) -> Stripes:
    """Find the wave that dominates each filter.

    Args:
        power: See `power_spectrum`.
        kernel: (kH, kW).

    Returns:
        NaN for filters of zeros and, as there is no wave in one pixel, 1x1 kernels.
    """
    frequencies, interpolation = (t.to(power.device) for t in _fine_grid(*kernel))
    parts = torch.split(power.flatten(1), _MOST_NUMBERS // len(frequencies))
    found = (_stripes(part @ interpolation, frequencies) for part in parts)
    stripes = Stripes(*map(torch.cat, zip(*found, strict=True)))
    if kernel == (1, 1):
        return Stripes(*(torch.full_like(numbers, torch.nan) for numbers in stripes))
    return stripes


def _stripes(fine: Tensor, frequencies: Tensor) -> Stripes:
    """The wave from the power (N, M) at the fine frequencies (M, 2)."""
    fine = fine.clamp_(min=0)
    peak, at = fine.max(1)
    centre = frequencies[at]
    # A wave is its own mirror image through zero: of each pair take the one on the peak's side.
    side = 1 - 2 * (centre @ frequencies.T < 0).float()
    is_high = fine >= peak[:, None] / 2
    share = fine * is_high
    mean = (share * side) @ frequencies / share.sum(1, keepdim=True)
    is_blob = centre.norm(dim=1) == 0
    frequency = mean.norm(dim=1).masked_fill(is_blob, 0)
    down, across = mean.unbind(1)
    orientation = torch.rad2deg(torch.atan2(across, down)) % 180
    orientation = orientation.where(orientation < 180, 0)  # rounding may lift a remainder to it
    # Round zero there are the mirror images too.
    count = is_high.sum(1)
    area = torch.where(is_blob, 2 * count - 1, count).float() / _FINE**2
    nothing = ~(peak > 0)
    return Stripes(
        frequency.masked_fill(nothing, torch.nan),
        orientation.masked_fill(nothing | is_blob, torch.nan),
        (2 * (area / pi).sqrt()).masked_fill(nothing, torch.nan),
    )


@lru_cache(maxsize=64)
def _transform(height: int, width: int) -> Tensor:
    """Shape (kH kW, 2 F): real, then imaginary part of the transform at F frequencies."""
    down = torch.arange(2 * height - 1).double() / (2 * height - 1)
    across = torch.arange(width).double() / (2 * width - 1)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    turns = (
        y.flatten()[:, None, None] * down[:, None] + x.flatten()[:, None, None] * across
    ).flatten(1)
    angle = 2 * pi * turns
    return torch.cat([angle.cos(), angle.sin()], dim=1).float()


def _multiplicity(power: Tensor) -> Tensor:
    """How often a frequency of the half plane stands in the whole one: 1 or 2."""
    twice = torch.full(power.shape[1:], 2.0, dtype=torch.float32)
    twice[:, 0] = 1
    return twice


@lru_cache(maxsize=64)
def _fine_grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Fine frequencies (M, 2), (down, across), and (F, M): the power there from that at F.

    Of every frequency and its mirror image through zero one.
    """
    rows, columns = 2 * height - 1, 2 * width - 1
    axis = (torch.arange(_FINE) - _FINE // 2).double() / _FINE
    fine = torch.cartesian_prod(axis, axis)
    fine = fine[(fine[:, 1] > 0) | ((fine[:, 1] == 0) & (fine[:, 0] >= 0)) | (fine == -0.5).any(1)]
    down = torch.arange(rows).double() / rows
    across = torch.arange(width).double() / columns
    coarse = torch.cartesian_prod(down, across)
    lags = torch.cartesian_prod(
        torch.arange(1 - height, height).double(), torch.arange(1 - width, width).double()
    )
    twice = _multiplicity(torch.empty(1, rows, width)).flatten().double() / (rows * columns)
    to_lags = twice[:, None] * torch.cos(2 * pi * coarse @ lags.T)
    return fine.float(), (to_lags @ torch.cos(2 * pi * lags @ fine.T)).float()

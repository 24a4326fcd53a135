"""What the Fourier transform of its kernels tells of a filter: its stripes, or that it is noise.

Everything is computed from one small power spectrum a filter, summed over its kernels, on a grid of
2 kH - 1 by 2 kW - 1 frequencies: that many determine the spectrum at every other frequency, because
its transform, the autocorrelation of the kernel, reaches no further.
"""

from functools import lru_cache
from math import pi
from typing import NamedTuple

import torch
from scipy import ndimage
from torch import Tensor

# Frequencies to look for the peak at, along each axis, from 0 to 1 cycle a pixel. Finer than the
# widest peak of a 16x16 kernel by a factor of two.
_FINE = 32
_MOST_NUMBERS = 2**18  # of a transform in memory at once


class Stripes(NamedTuple):
    """The dominant wave in each filter: three tensors of shape (N,).

    Attributes:
        frequency: In cycles a pixel: 0 for a blob, 1/2 for a sign change at every pixel.
        orientation: Of the stripes, in degrees [0, 180): 0 horizontal, 90 vertical, 45 rising to
            the right. NaN where the frequency is 0.
        bandwidth: Diameter of the lobe of frequencies round the peak that have at least half its
            power, in cycles a pixel. A kernel of k pixels cannot have less than about 0.9 / k.
    """

    frequency: Tensor
    orientation: Tensor
    bandwidth: Tensor


def power_spectrum(weights: Tensor) -> Tensor:
    """Power of each filter at each frequency: |Fourier transform|^2, summed over its kernels.

    Args:
        weights: Shape (N, C, kH, kW), floating point, not modified.

    Returns:
        Shape (N, 2 kH - 1, kW), of the type of the weights: the frequencies i / (2 kH - 1) down
        and j / (2 kW - 1) across, cycles a pixel, as `torch.fft.rfft2` orders them.
    """
    filters, channels, height, width = weights.shape
    transform = _transform(height, width).to(weights)
    kernels = weights.reshape(-1, height * width)
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
    twice = torch.full_like(power[0], 2)  # each stands for its mirror image through zero too, ...
    twice[:, 0] = 1  # ... unless that is in this half of the plane itself
    count = twice.sum()
    # Normed first: the fourth power of a small weight is no float32 any more.
    normed = power / power.amax((1, 2), keepdim=True)
    mean = (normed * twice).sum((1, 2)) / count
    return (normed.square() * twice).sum((1, 2)) / count / mean.square()


def dominant_stripes(power: Tensor, kernel: tuple[int, int]) -> Stripes:
    """Find the wave that dominates each filter: the strongest, whatever else there is.

    Args:
        power: See `power_spectrum`, on the CPU.
        kernel: (kH, kW).

    Returns:
        NaN for filters of zeros and, as there is no wave in one pixel, 1x1 kernels.
    """
    if kernel == (1, 1):
        return Stripes(*(power.new_full((len(power),), torch.nan) for _ in Stripes._fields))
    normed = (power / power.amax((1, 2), keepdim=True)).float()
    parts = torch.split(normed, _MOST_NUMBERS // _FINE**2)
    found = (_stripes(_refined(part, kernel)) for part in parts)
    return Stripes(*map(torch.cat, zip(*found, strict=True)))


def _stripes(fine: Tensor) -> Stripes:
    """The wave from the power at the fine frequencies, shape (N, M, M), from (0, 0) on.

    All frequencies are counted in steps of the grid. They are periodic: 1/2 is -1/2.
    """
    peak, at = fine.flatten(1).max(1)
    top = torch.stack([at // _FINE, at % _FINE], dim=1)
    # The plane with the peak in its middle, to less than 1/2 away from it on either side.
    away = torch.arange(1 - _FINE // 2, _FINE // 2)
    down, across = ((top[:, axis, None] + away) % _FINE for axis in (0, 1))
    places = down[:, :, None] * _FINE + across[:, None, :]
    centred = fine.flatten(1).gather(1, places.flatten(1)).reshape(places.shape)
    lobe = _connected_to_middle(centred >= peak[:, None, None] / 2)
    # A wave is its own mirror image through zero: of each pair take the one on the peak's side.
    image_down, image_across = (
        _wrapped(2 * top[:, axis, None] + away).float().square() for axis in (0, 1)
    )
    steps = away.float()
    squares = steps.square()
    lobe &= squares[:, None] + squares <= image_down[:, :, None] + image_across[:, None, :]
    share = centred.where(lobe, 0)
    rows, columns = share.sum(2), share.sum(1)
    mean = torch.stack([rows @ steps, columns @ steps], dim=1) / rows.sum(1, keepdim=True)
    is_image = (_wrapped(2 * top) == 0).all(1)  # of itself, and so is its lobe
    frequency = _wrapped(top + mean.masked_fill(is_image[:, None], 0)) / _FINE
    is_blob = (top == 0).all(1)
    orientation = torch.rad2deg(torch.atan2(frequency[:, 1], frequency[:, 0])) % 180
    orientation = orientation.where(orientation < 180, 0)  # rounding may lift a remainder to it
    area = lobe.sum((1, 2)).float() / _FINE**2
    nothing = ~(peak > 0)
    return Stripes(
        frequency.norm(dim=1).masked_fill(nothing, torch.nan),
        orientation.masked_fill(nothing | is_blob, torch.nan),
        (2 * (area / pi).sqrt()).masked_fill(nothing, torch.nan),
    )


def _wrapped(steps: Tensor) -> Tensor:
    """The same frequencies, from -1/2 to 1/2."""
    return (steps + _FINE // 2) % _FINE - _FINE // 2


def _connected_to_middle(mask: Tensor) -> Tensor:
    """Of each mask (N, M, M) what hangs together with its middle."""
    beside = torch.zeros(3, 3, 3, dtype=torch.bool)
    beside[1, 1, :] = beside[1, :, 1] = True
    regions = torch.from_numpy(ndimage.label(mask.numpy(), beside.numpy())[0])
    middle = mask.shape[1] // 2
    return regions == regions[:, middle, middle, None, None]


def _refined(power: Tensor, kernel: tuple[int, int]) -> Tensor:
    """The power at the fine frequencies, shape (N, M, M), from that of half the plane."""
    image = power[:, :, 1:].flip(1, 2).roll(1, 1)
    down, across = (_interpolation(size).to(power) for size in kernel)
    return (down @ torch.cat([power, image], dim=2) @ across.T).clamp_(min=0)


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
    return torch.cat([angle.cos(), angle.sin()], dim=1)


@lru_cache(maxsize=64)
def _interpolation(size: int) -> Tensor:
    """Shape (M, F): the power along an axis at the fine frequencies from that at F = 2 size - 1."""
    coarse = torch.arange(2 * size - 1).double() / (2 * size - 1)
    fine = torch.arange(_FINE).double() / _FINE
    lags = torch.arange(1 - size, size).double()
    return torch.cos(2 * pi * (fine[:, None] - coarse)[..., None] * lags).mean(2)

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

# Frequencies to look for the peak at, along each axis, from 0 to 1 cycle a pixel: this many, or
# more for large kernels. A peak of a kernel of k pixels is at least 0.9 / k wide at half its power
# (that of a constant kernel: Harris, Proc. IEEE 1978, table I).
_FEWEST_FINE = 32
_FINE_A_PIXEL = 2
_FINE_A_TAP = 8  # of a kernel of one row or column: there the count of them is the bandwidth
_MOST_NUMBERS = 2**18  # of a transform in memory at once


class Stripes(NamedTuple):
    """The dominant wave in each filter: three tensors of shape (N,).

    Attributes:
        frequency: In cycles a pixel: 0 for a blob, 1/2 for a sign change at every pixel.
        orientation: Of the stripes, in degrees [0, 180): 0 horizontal, 90 vertical, 45 rising to
            the right. NaN where the frequency is 0.
        bandwidth: Diameter of the lobe of frequencies round the peak that have at least half its
            power, in cycles a pixel: of the circle of the same area, or, where kernels are one row
            or one column, the lobe's width. k pixels cannot have less than about 0.9 / k.
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
    frequencies = (2 * height - 1) * width
    at_once = max(1, _MOST_NUMBERS // (2 * frequencies * channels))
    parts = torch.split(weights, at_once)
    if height * width * 2 * frequencies <= _MOST_NUMBERS:  # up to 16x16, or 362 taps
        transform = _transform(height, width).to(weights)
        waves = (part.reshape(-1, height * width) @ transform for part in parts)
        squares = (w.square().reshape(-1, channels, 2 * frequencies).sum(1) for w in waves)
        real, imaginary = torch.cat(list(squares)).chunk(2, dim=1)
        return (real + imaginary).reshape(filters, 2 * height - 1, width)
    return torch.cat([_fast_power(part) for part in parts])


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
    height, width = kernel
    is_line = 1 in kernel
    fine = _fine_count(height, is_line), _fine_count(width, is_line)
    normed = power / power.amax((1, 2), keepdim=True)
    parts = torch.split(normed, max(1, _MOST_NUMBERS // (fine[0] * fine[1])))
    found = (_stripes(_refined(part, kernel, fine)) for part in parts)
    return Stripes(*map(torch.cat, zip(*found, strict=True)))


def _fine_count(size: int, is_line: bool) -> int:
    """How many fine frequencies there are along an axis: one if it has one pixel.

    A power of two, so that they have no rounding errors.
    """
    if size == 1:
        return 1
    least = size * (_FINE_A_TAP if is_line else _FINE_A_PIXEL)
    return max(_FEWEST_FINE, 1 << (least - 1).bit_length())


def _stripes(fine: Tensor) -> Stripes:
    """The wave from the power at the fine frequencies, shape (N, Mh, Mw), from (0, 0) on.

    They are periodic: 1/2 is -1/2.
    """
    counts = fine.shape[1:]
    peak, at = fine.flatten(1).max(1)
    top = at // counts[1], at % counts[1]
    # The plane with the peak in its middle, to less than 1/2 away from it on either side.
    reach = [(count - 1) // 2 for count in counts]
    away = [torch.arange(-most, most + 1) for most in reach]
    down, across = ((t[:, None] + a) % m for t, a, m in zip(top, away, counts, strict=True))
    places = down[:, :, None] * counts[1] + across[:, None, :]
    centred = fine.flatten(1).gather(1, places.flatten(1)).reshape(places.shape)
    lobe = _connected_to_middle(centred >= peak[:, None, None] / 2)
    # A wave is its own mirror image through zero: of each pair take the one on the peak's side.
    image_down, image_across = (
        _wrapped((2 * t[:, None] + a).float() / m).square()
        for t, a, m in zip(top, away, counts, strict=True)
    )
    cycles = [a.float() / m for a, m in zip(away, counts, strict=True)]
    squares = cycles[0].square()[:, None] + cycles[1].square()
    lobe &= squares <= image_down[:, :, None] + image_across[:, None, :]
    share = centred.where(lobe, 0)
    rows, columns = share.sum(2), share.sum(1)
    mean = torch.stack([rows @ cycles[0], columns @ cycles[1]], dim=1) / rows.sum(1, keepdim=True)
    tops = torch.stack([t.float() / m for t, m in zip(top, counts, strict=True)], dim=1)
    is_image = (_wrapped(2 * tops) == 0).all(1)  # of itself, and so is its lobe
    frequency = _wrapped(tops + mean.masked_fill(is_image[:, None], 0))
    is_blob = (tops == 0).all(1)
    orientation = torch.rad2deg(torch.atan2(frequency[:, 1], frequency[:, 0])) % 180
    orientation = orientation.where(orientation < 180, 0)  # rounding may lift a remainder to it
    area = lobe.sum((1, 2)).float() / (counts[0] * counts[1])
    bandwidth = area if 1 in counts else 2 * (area / pi).sqrt()
    nothing = ~(peak > 0)
    return Stripes(
        frequency.norm(dim=1).masked_fill(nothing, torch.nan),
        orientation.masked_fill(nothing | is_blob, torch.nan),
        bandwidth.masked_fill(nothing, torch.nan),
    )


def _wrapped(frequency: Tensor) -> Tensor:
    """The same frequencies, from -1/2 to 1/2."""
    return (frequency + 0.5) % 1 - 0.5


def _connected_to_middle(mask: Tensor) -> Tensor:
    """The part of each mask, shape (N, odd, odd), that is connected to its middle pixel."""
    down, across = mask.shape[1] // 2, mask.shape[2] // 2
    region = torch.zeros_like(mask)
    region[:, :, across] = _run_through_middle(mask[:, :, across])
    region[:, down] |= _run_through_middle(mask[:, down])
    while True:  # one pixel further each time: the lobe of a stripe or a blob is small and round
        grown = region.clone()
        grown[:, 1:] |= region[:, :-1]
        grown[:, :-1] |= region[:, 1:]
        grown[:, :, 1:] |= region[:, :, :-1]
        grown[:, :, :-1] |= region[:, :, 1:]
        grown &= mask
        if torch.equal(grown, region):
            return region
        region = grown


def _run_through_middle(line: Tensor) -> Tensor:
    """The run of each line, shape (N, odd), that contains its middle pixel."""
    middle = line.shape[1] // 2
    before = line[:, : middle + 1].flip(1).byte().cumprod(1).flip(1)
    after = line[:, middle:].byte().cumprod(1)
    return torch.cat([before[:, :-1], after], dim=1).bool()


def _refined(power: Tensor, kernel: tuple[int, int], fine: tuple[int, int]) -> Tensor:
    """The power at the fine frequencies, shape (N, Mh, Mw), float32, by way of its transform."""
    height, width = kernel
    autocorrelation = torch.fft.irfft2(power.double(), s=(2 * height - 1, 2 * width - 1))
    # Lags down from 0 on, then the negative ones; the lags across need no mirror image.
    padded = power.new_zeros(len(power), fine[0], width, dtype=torch.float64)
    padded[:, :height] = autocorrelation[:, :height, :width]
    padded[:, fine[0] - height + 1 :] = autocorrelation[:, height:, :width]
    refined: Tensor = torch.fft.hfft2(padded, s=fine)
    return refined.float().clamp_(min=0)


def _fast_power(weights: Tensor) -> Tensor:
    """`power_spectrum` of large kernels, where `_transform` would be larger than all of them."""
    _, _, height, width = weights.shape
    waves = torch.fft.rfft2(weights, s=(2 * height - 1, 2 * width - 1))
    return torch.view_as_real(waves).square().sum((1, 4))


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

"""Measure filters by their power spectrum: the dominant stripes, and the distance from noise.

All numbers are computed from one power spectrum per filter, summed over its kernels, at
2 kH - 1 by 2 kW - 1 frequencies. These determine the power at every other frequency. The reason:
the Fourier transform of the power is the autocorrelation of the kernels, and it has 2 kH - 1 by
2 kW - 1 values, too.
"""

from functools import lru_cache
from math import pi
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

# The peak is searched on a fine grid of frequencies from 0 to 1 cycle per pixel along each axis. An
# axis has at least _FEWEST_FINE frequencies, and at least _FINE_PER_PIXEL for each pixel of the
# kernel. That is fine enough: at half its power, the peak of a kernel of k pixels has a width of at
# least 0.9 / k, the width for a constant kernel (Harris, Proc. IEEE 1978, table I).
_FEWEST_FINE = 32
_FINE_PER_PIXEL = 2
# Replaces _FINE_PER_PIXEL for kernels with one row or column: their bandwidth is a number of steps
# of this grid.
_FINE_PER_TAP = 8
_MOST_NUMBERS = 2**18  # numbers of a transform that are in memory at once
_PLACES = torch.tensor([1 << place for place in range(8)], dtype=torch.uint8, device="cpu")


class Stripes(NamedTuple):
    """The dominant wave of each filter: three tensors of shape (N,).

    Attributes:
        frequency: In cycles per pixel. 0 for a blob, 1/2 for vertical or horizontal stripes whose
            sign changes at every pixel.
        orientation: Direction of the stripes, in degrees [0, 180): 0 is horizontal, 90 vertical, 45
            rising to the right. NaN if the frequency is 0.
        bandwidth: Size of a region of frequencies, in cycles per pixel. The region is connected,
            contains the peak, and has at least half the power of the peak everywhere. Its size is
            the diameter of a circle of the same area, or its width for kernels with one row or
            column. For a kernel of k pixels it is at least about 0.9 / k.
    """

    frequency: Tensor
    orientation: Tensor
    bandwidth: Tensor


def power_spectrum(weights: Tensor) -> Tensor:
    """Compute the power of each filter at each frequency: |Fourier transform|^2 of its kernels.

    The power of a filter is the sum over its kernels.

    Args:
        weights: Shape (N, C, kH, kW), floating point, not modified.

    Returns:
        Shape (N, 2 kH - 1, kW), in the type of the weights. Row i has the vertical frequency
        i / (2 kH - 1), and column j has the horizontal frequency j / (2 kW - 1), in cycles per
        pixel. This is the order of `torch.fft.rfft2`.
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
    """Measure how far each filter is from noise: how much its power is concentrated.

    Args:
        power: The result of `power_spectrum`.

    Returns:
        Shape (N,): the mean of the squared power, divided by the square of the mean power. A flat
        spectrum has the concentration 1. Random filters have slightly more, and stripes and blobs
        several times as much. The concentration equals the sum of the squared autocorrelation over
        all lags, so every regular pattern increases it. NaN for a filter of zeros.

    Source: the portmanteau statistic of Box & Pierce, JASA 1970, in two dimensions.
    """
    # Opposite frequencies have the same power. In column 0 both are in ``power``. In the other
    # columns one of them is not, so the numbers count twice.
    twice = torch.full_like(power[0], 2)
    twice[:, 0] = 1
    count = twice.sum()
    # The power is normed before it is squared: the fourth power of a small weight would be zero.
    normed = power / power.amax((1, 2), keepdim=True)
    mean = (normed * twice).sum((1, 2)) / count
    return (normed.square() * twice).sum((1, 2)) / count / mean.square()


def dominant_stripes(power: Tensor, kernel: tuple[int, int]) -> Stripes:
    """Find the strongest wave in each filter.

    Args:
        power: The result of `power_spectrum`, on the CPU.
        kernel: (kH, kW).

    Returns:
        The waves. All numbers are NaN for filters of zeros and for 1x1 kernels.
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
    """Return the number of fine frequencies along an axis of a kernel.

    The number is a power of two, so that the frequencies have no rounding errors. It is 1 for an
    axis of one pixel.
    """
    if size == 1:
        return 1
    least = size * (_FINE_PER_TAP if is_line else _FINE_PER_PIXEL)
    return max(_FEWEST_FINE, 1 << (least - 1).bit_length())


def _stripes(fine: Tensor) -> Stripes:
    """Find the strongest waves.

    Frequencies are periodic: 1/2 is the same as -1/2.

    Args:
        fine: The power at the fine frequencies, shape (N, Mh, Mw). The first one is (0, 0).
    """
    counts = fine.shape[1:]
    peak, at = fine.flatten(1).max(1)
    top = at // counts[1], at % counts[1]
    # Shift the peak to the middle. The frequencies on each side of it are less than 1/2 away.
    reach = [(count - 1) // 2 for count in counts]
    away = [torch.arange(-most, most + 1, device="cpu") for most in reach]
    down, across = ((t[:, None] + a) % m for t, a, m in zip(top, away, counts, strict=True))
    places = down[:, :, None] * counts[1] + across[:, None, :]
    centred = fine.flatten(1).gather(1, places.flatten(1)).reshape(places.shape)
    lobe = _connected_to_middle(centred >= peak[:, None, None] / 2)
    # Opposite frequencies have the same power. Keep the one of them that is nearer to the peak.
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
    # If the opposite of the peak's frequency is the same frequency, the region is symmetric about
    # the peak, and the frequency of the peak is used as it is.
    is_symmetric = (_wrapped(2 * tops) == 0).all(1)
    frequency = _wrapped(tops + mean.masked_fill(is_symmetric[:, None], 0))
    is_blob = (tops == 0).all(1)
    orientation = torch.rad2deg(torch.atan2(frequency[:, 1], frequency[:, 0])) % 180
    orientation = orientation.where(orientation < 180, 0)  # the remainder may be rounded up to 180
    area = lobe.sum((1, 2)).float() / (counts[0] * counts[1])
    bandwidth = area if 1 in counts else 2 * (area / pi).sqrt()
    nothing = ~(peak > 0)
    return Stripes(
        frequency.norm(dim=1).masked_fill(nothing, torch.nan),
        orientation.masked_fill(nothing | is_blob, torch.nan),
        bandwidth.masked_fill(nothing, torch.nan),
    )


def _wrapped(frequency: Tensor) -> Tensor:
    """Return the same frequencies in the range from -1/2 to 1/2."""
    return (frequency + 0.5) % 1 - 0.5


def _connected_to_middle(mask: Tensor) -> Tensor:
    """Return the part of each mask, shape (N, odd, odd), that is connected to its middle pixel.

    A mask becomes one large integer with a bit for each pixel, so that a pass over all of its
    pixels takes a microsecond. The region grows by one pixel in each pass.
    """
    count, height, width = mask.shape
    pitch = width + 1  # an empty column, so that no pixel touches the next row
    middle = 1 << height // 2 * pitch + width // 2
    grown = []
    for pixels in _to_integers(functional.pad(mask, (0, 1)).flatten(1)):
        region, larger = 0, pixels & middle
        while region != larger:
            region = larger
            larger |= region << 1 | region >> 1 | region << pitch | region >> pitch
            larger &= pixels
        grown.append(region)
    return _to_bits(grown, height * pitch).reshape(count, height, pitch)[:, :, :width]


def _to_integers(bits: Tensor) -> list[int]:
    """Return each row of a bool tensor as an integer, the first bit lowest."""
    padded = functional.pad(bits, (0, -bits.shape[1] % 8)).reshape(len(bits), -1, 8)
    packed = (padded * _PLACES).sum(2, dtype=torch.uint8)
    return [int.from_bytes(bytes(row), "little") for row in packed.tolist()]


def _to_bits(integers: list[int], length: int) -> Tensor:
    """Return the rows of which `_to_integers` makes these integers."""
    packed = b"".join(integer.to_bytes(-(-length // 8), "little") for integer in integers)
    rows = torch.frombuffer(bytearray(packed), dtype=torch.uint8).reshape(len(integers), -1, 1)
    return (rows & _PLACES).bool().flatten(1)[:, :length]


def _refined(power: Tensor, kernel: tuple[int, int], fine: tuple[int, int]) -> Tensor:
    """Interpolate the power at the fine frequencies, shape (N, Mh, Mw), float32."""
    height, width = kernel
    autocorrelation = torch.fft.irfft2(power.double(), s=(2 * height - 1, 2 * width - 1))
    # The vertical lags from 0 on come first, then the negative ones. Negative horizontal lags are
    # not needed, because the autocorrelation is symmetric.
    padded = power.new_zeros(len(power), fine[0], width, dtype=torch.float64)
    padded[:, :height] = autocorrelation[:, :height, :width]
    padded[:, fine[0] - height + 1 :] = autocorrelation[:, height:, :width]
    refined: Tensor = torch.fft.hfft2(padded, s=fine)
    return refined.float().clamp_(min=0)


def _fast_power(weights: Tensor) -> Tensor:
    """Compute the `power_spectrum` of large kernels, whose `_transform` would need much memory."""
    _, _, height, width = weights.shape
    waves = torch.fft.rfft2(weights, s=(2 * height - 1, 2 * width - 1))
    return torch.view_as_real(waves).square().sum((1, 4))


@lru_cache(maxsize=64)
def _transform(height: int, width: int) -> Tensor:
    """Return the matrix of the transform at F frequencies, shape (kH kW, 2 F).

    The real parts come first, then the imaginary parts.
    """
    down = torch.arange(2 * height - 1, device="cpu").double() / (2 * height - 1)
    across = torch.arange(width, device="cpu").double() / (2 * width - 1)
    y, x = torch.meshgrid(
        torch.arange(height, device="cpu"), torch.arange(width, device="cpu"), indexing="ij"
    )
    turns = (
        y.flatten()[:, None, None] * down[:, None] + x.flatten()[:, None, None] * across
    ).flatten(1)
    angle = 2 * pi * turns
    return torch.cat([angle.cos(), angle.sin()], dim=1)

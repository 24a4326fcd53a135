"""Compute the null model: limits for the cosines, norms and spectra of random filters.

A cosine of 0.9 between two filters is common among 32 random filters of 1x3x3, and practically
impossible among 64 random filters of 3x7x7. So a verdict needs more than a fixed limit: it also
compares a filter with independent Gaussian filters of the same shape.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from math import pi

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from kernelviz_callback.filters.measures import relative_norms
from kernelviz_callback.filters.spectrum import concentration, power_spectrum

# Share of healthy layers that have a duplicate, near-zero or dominating filter by chance.
FALSE_ALARM_RATE = 0.005
_RATE_EACH = FALSE_ALARM_RATE / 3
# Share of random filters that are not recognized as noise.
NOISE_MISS_RATE = 0.02
# A filter can get the verdict on noise only if at least this share of smooth filters of the same
# shape differs from noise.
LEAST_POWER = 0.95
# Filters with up to this many channels are simulated as colour filters: all kernels of a filter are
# multiples of one pattern.
_MOST_COLOURS = 4
_NOISE_OF_SMOOTH = 0.1  # RMS of the noise, as a share of the RMS of the pattern
_SEED = 7
_MOST_DRAWS = 4000
_MOST_DRAWN = 4_000_000  # random numbers for one limit; large filters need more
_MOST_NUMBERS = 2**18  # random numbers that are in memory at once


@dataclass(frozen=True)
class NullModel:
    """Limits within which independent Gaussian filters of one shape usually are.

    Attributes:
        largest_cosine: Two filters with a larger cosine are more similar than random filters. NaN
            if there are no two filters to compare, or if a filter has only one weight.
        smallest_norm: A filter with a smaller norm is weaker than random filters. The norm is a
            share of the layer's median norm.
        largest_norm: A filter with a larger norm is stronger than random filters. The norm is a
            share of the layer's median norm.
        noise_concentration: The `spectrum.concentration` that 98 % of random filters do not exceed.
            NaN for 1x1 kernels.
        noise_power: Share of smooth filters with 10 % noise that exceed ``noise_concentration``.
            The share is computed for Gabor functions and for blobs, and this is the smaller one. 0
            for 1x1 kernels.
    """

    largest_cosine: float
    smallest_norm: float
    largest_norm: float
    noise_concentration: float
    noise_power: float

    @property
    def can_detect_noise(self) -> bool:
        """Whether kernels of this size are large enough to distinguish noise from patterns."""
        return self.noise_power >= LEAST_POWER


@lru_cache(maxsize=128)
def null_model(shape: tuple[int, int, int, int], groups: int = 1) -> NullModel:
    """Compute the null model for the shape of a layer, in less than a second, and cache it.

    Args:
        shape: Shape (N, C, kH, kW) of the layer's weights.
        groups: Number of groups of the convolution. Only filters of the same group are compared.

    Source: the largest cosine of N random directions follows from the beta distribution of one
    cosine: Cai, Fan & Jiang, "Distributions of angles in random packing on spheres", JMLR 2013. The
    other limits are simulated with a separate random generator.

    Example:
        >>> round(null_model((64, 3, 7, 7)).largest_cosine, 2)
        0.38
    """
    filters, channels, height, width = shape
    size = channels * height * width
    smallest, largest = _norm_limits(filters, size)
    limit, power = noise_limits(channels, height, width)
    return NullModel(
        largest_cosine=_cosine_limit(filters, groups, size),
        smallest_norm=smallest,
        largest_norm=largest,
        noise_concentration=limit,
        noise_power=power,
    )


def smooth_filters(
    count: int,
    channels: int,
    height: int,
    width: int,
    *,
    stripes: bool,
    generator: torch.Generator,
) -> Tensor:
    """Draw filters that resemble trained filters: Gabor functions or blobs, with 10 % noise.

    Args:
        count: Number of filters.
        channels: Number of channels. With up to four channels, each channel is the same pattern
            times a random number. With more channels, each channel has a different pattern.
        height: Height of a kernel, in pixels.
        width: Width of a kernel, in pixels.
        stripes: True for Gabor functions. Their frequency is between one period per kernel and 0.3
            cycles per pixel; in kernels of up to 3 pixels it is 0.3. Their direction is random,
            except in kernels with one row or column. False for Gaussian blobs.
        generator: The random generator.

    Returns:
        Shape (count, channels, height, width), float32.
    """
    patterns = 1 if channels <= _MOST_COLOURS else channels
    is_line = 1 in (height, width)
    size = max(height, width) if is_line else (height + width) / 2

    def between(low: float, high: float) -> Tensor:
        drawn = torch.rand(
            (count, patterns, 1, 1), generator=generator, dtype=torch.float32, device="cpu"
        )
        return low + (high - low) * drawn

    y = (
        torch.arange(height, dtype=torch.float32, device="cpu")[:, None]
        - (height - 1) / 2
        - between(-0.1, 0.1) * height
    )
    x = (
        torch.arange(width, dtype=torch.float32, device="cpu")
        - (width - 1) / 2
        - between(-0.1, 0.1) * width
    )
    spread = size * between(0.18, 0.35)
    pattern = torch.exp(-(x.square() + y.square()) / (2 * spread.square()))
    if stripes:
        angle = between(0, pi)
        frequency = between(min(1 / size, 0.3), 0.3)
        # In a kernel with one row or column, either x or y is constant.
        along = x + y if is_line else x * angle.cos() + y * angle.sin()
        pattern = pattern * torch.cos(2 * pi * frequency * along + between(0, 2 * pi))
    colours = _normal(count, channels, 1, 1, generator=generator)
    smooth = pattern * colours
    smooth = smooth / smooth.square().mean((1, 2, 3), keepdim=True).sqrt()
    noise = _normal(count, channels, height, width, generator=generator)
    return smooth + _NOISE_OF_SMOOTH * noise


def _cosine_limit(filters: int, groups: int, size: int) -> float:
    each = filters // groups
    pairs = groups * each * (each - 1) // 2
    if pairs == 0 or size == 1:
        return float("nan")
    half = (size - 1) / 2
    return 1 - 2 * float(betaincinv(half, half, _RATE_EACH / pairs))


def _norm_limits(filters: int, size: int) -> tuple[float, float]:
    generator = np.random.default_rng(_SEED)
    draws = max(500, min(_MOST_DRAWS, _MOST_DRAWN // filters))
    smallest, largest = [], []
    for some in _in_parts(draws, filters):
        squares = torch.from_numpy(generator.chisquare(size, (some, filters)))
        relative = relative_norms(squares.float().sqrt())
        smallest.append(relative.amin(1))
        largest.append(relative.amax(1))
    return (
        torch.cat(smallest).quantile(_RATE_EACH).item(),
        torch.cat(largest).quantile(1 - _RATE_EACH).item(),
    )


@lru_cache(maxsize=128)
def noise_limits(channels: int, height: int, width: int) -> tuple[float, float]:
    """Return the limit of `concentration`, and the share of smooth filters above it."""
    if height * width == 1:
        return float("nan"), 0.0
    generator = torch.Generator().manual_seed(_SEED)
    numbers = channels * height * width
    draws = max(100, min(_MOST_DRAWS, _MOST_DRAWN // numbers))

    def concentrations(count: int, draw: Callable[[int], Tensor]) -> Tensor:
        parts = _in_parts(count, numbers)
        return torch.cat([concentration(power_spectrum(draw(some))) for some in parts])

    def noise(count: int) -> Tensor:
        return _normal(count, channels, height, width, generator=generator)

    def smooth(count: int, *, stripes: bool) -> Tensor:
        return smooth_filters(count, channels, height, width, stripes=stripes, generator=generator)

    limit = concentrations(draws, noise).quantile(1 - NOISE_MISS_RATE)
    power = [
        (concentrations(min(draws, 1000), partial(smooth, stripes=stripes)) > limit).float().mean()
        for stripes in (True, False)
    ]
    return limit.item(), torch.stack(power).amin().item()


def _in_parts(draws: int, numbers: int) -> list[int]:
    """Split ``draws`` into parts, so that the random numbers of a part fit into memory.

    Args:
        draws: How many times random numbers are drawn.
        numbers: Random numbers for each draw.
    """
    at_once = max(1, _MOST_NUMBERS // numbers)
    return [min(at_once, draws - done) for done in range(0, draws, at_once)]


def _normal(*size: int, generator: torch.Generator) -> Tensor:
    return torch.randn(size, generator=generator, dtype=torch.float32, device="cpu")

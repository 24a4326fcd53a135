"""What chance alone does in a layer of a given shape: the yardstick of the verdicts.

A cosine of 0.9 between two filters is nothing special among 32 random filters of 1x3x3 and beyond
belief among 64 of 3x7x7. So no verdict has a fixed limit: each is compared with what independent
Gaussian filters of the very shape would show.
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

# Share of healthy layers in which any of duplicate, near-zero, dominating is raised by chance.
FALSE_ALARM_RATE = 0.005
_RATE_EACH = FALSE_ALARM_RATE / 3
# Share of random filters that are not recognized as noise.
NOISE_MISS_RATE = 0.02
# Share of smooth filters that must be told from noise, or no verdict on noise is given.
LEAST_POWER = 0.95
# Filters that see this many channels or fewer see colours: the kernels of a filter are one pattern.
_MOST_COLOURS = 4
_NOISE_OF_SMOOTH = 0.1  # RMS, as a share of the pattern's
_SEED = 7
_MOST_DRAWS = 4000
_MOST_DRAWN = 4_000_000  # numbers
_MOST_NUMBERS = 2**18  # in memory at once


@dataclass(frozen=True)
class NullModel:
    """What independent Gaussian filters show, and how well structure can be told from it.

    Attributes:
        largest_cosine: Above it two filters of the layer are more alike than chance explains. NaN
            where there are no two filters to compare, or they have one weight.
        smallest_norm: Below it a filter is weaker, beside its layer's median, than by chance.
        largest_norm: Above it a filter is stronger.
        noise_concentration: `spectrum.concentration` that 98 % of random filters stay below.
        noise_power: Share of smooth filters (Gabor functions or blobs, whichever are recognized
            less well, with 10 % noise) that are above it.
    """

    largest_cosine: float
    smallest_norm: float
    largest_norm: float
    noise_concentration: float
    noise_power: float

    @property
    def knows_noise(self) -> bool:
        """Whether kernels of this size are large enough to call one noise."""
        return self.noise_power >= LEAST_POWER


@lru_cache(maxsize=128)
def null_model(shape: tuple[int, int, int, int], groups: int = 1) -> NullModel:
    """Compute the null model of a layer's shape: less than a second, and then kept.

    Args:
        shape: (N, C, kH, kW) of its weights.
        groups: Of the convolution; only filters of one group are compared.

    Source: the distribution of the largest cosine of N random directions, from the beta
    distribution of a single one, as in Cai, Fan & Jiang, "Distributions of angles in random packing
    on spheres", JMLR 2013; the others by simulation with a generator of its own.

    Example:
        >>> round(null_model((64, 3, 7, 7)).largest_cosine, 2)
        0.38
    """
    filters, channels, height, width = shape
    size = channels * height * width
    smallest, largest = _norm_limits(filters, size)
    limit, power = _noise_limits(channels, height, width)
    return NullModel(
        largest_cosine=_cosine_limit(filters, groups, size),
        smallest_norm=smallest,
        largest_norm=largest,
        noise_concentration=limit,
        noise_power=power,
    )


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
def _noise_limits(channels: int, height: int, width: int) -> tuple[float, float]:
    """The limit of `concentration`, and the share of smooth filters above it."""
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
    """Split draws of some numbers each into as many as are in memory at once."""
    at_once = max(1, _MOST_NUMBERS // numbers)
    return [min(at_once, draws - done) for done in range(0, draws, at_once)]


def smooth_filters(
    count: int,
    channels: int,
    height: int,
    width: int,
    *,
    stripes: bool,
    generator: torch.Generator,
) -> Tensor:
    """Draw filters as training makes them: Gabor functions or blobs, with 10 % noise.

    Args:
        count: How many.
        channels: Up to four are the colours of one pattern, with random weights; of more, each has
            a pattern of its own.
        height: Of a kernel.
        width: Likewise.
        stripes: True for Gabor functions of at least one period a kernel and 0.3 cycles a pixel at
            most, in any direction, in kernels of one row or column along it; False for Gaussian
            blobs.
        generator: What to draw with.

    Returns:
        Shape (count, channels, height, width).
    """
    patterns = 1 if channels <= _MOST_COLOURS else channels
    is_line = 1 in (height, width)
    size = max(height, width) if is_line else (height + width) / 2

    def between(low: float, high: float) -> Tensor:
        drawn = torch.rand((count, patterns, 1, 1), generator=generator, dtype=torch.float32)
        return low + (high - low) * drawn

    y = (
        torch.arange(height, dtype=torch.float32)[:, None]
        - (height - 1) / 2
        - between(-0.1, 0.1) * height
    )
    x = torch.arange(width, dtype=torch.float32) - (width - 1) / 2 - between(-0.1, 0.1) * width
    spread = size * between(0.18, 0.35)
    pattern = torch.exp(-(x.square() + y.square()) / (2 * spread.square()))
    if stripes:
        angle = between(0, pi)
        frequency = between(min(1 / size, 0.3), 0.3)
        # Of a line either x or y is but an offset.
        along = x + y if is_line else x * angle.cos() + y * angle.sin()
        pattern = pattern * torch.cos(2 * pi * frequency * along + between(0, 2 * pi))
    colours = _normal(count, channels, 1, 1, generator=generator)
    smooth = pattern * colours
    smooth = smooth / smooth.square().mean((1, 2, 3), keepdim=True).sqrt()
    noise = _normal(count, channels, height, width, generator=generator)
    return smooth + _NOISE_OF_SMOOTH * noise


def _normal(*size: int, generator: torch.Generator) -> Tensor:
    return torch.randn(size, generator=generator, dtype=torch.float32)

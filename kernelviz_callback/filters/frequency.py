"""The frequency gain of filters of 1-D layers."""

import torch
from torch import Tensor

from kernelviz_callback.filters.measures import largest_magnitude

_MOST_NUMBERS = 2**20  # complex numbers of the spectra that are in memory at once
_FEWEST_POINTS = 256  # of a Fourier transform


def frequency_gain(weights: Tensor, *, dilation: int = 1) -> Tensor:
    """Compute the gain of each 1-D filter at each frequency.

    The gain shows whether a filter is a low pass, a band pass or a high pass. It is the magnitude
    of the transfer function, |H(f)| = |sum over t of w[t] exp(-2 pi i f t)|. For a filter with
    several channels it is the square root of the sum of the squared gains of the channels. This is
    the gain for uncorrelated signals in the channels.

    Args:
        weights: Shape (N, C, k), floating point, not modified.
        dilation: Spacing of the weights of a kernel, in samples.

    Returns:
        Shape (N, frequencies), float32, not negative, in units of the weights. The frequencies go
        from 0 to half the sampling rate in equal steps. NaN for a filter with NaN or infinity.

    Raises:
        ValueError: If ``weights`` is empty or does not have three dimensions.

    Example:
        >>> gain = frequency_gain(torch.tensor([[[0.5, 0.5]], [[0.5, -0.5]]]))
        >>> gain[:, 0], gain[:, -1].round(decimals=6)
        (tensor([1., 0.]), tensor([0., 1.]))
    """
    if weights.ndim != 3 or 0 in weights.shape:
        raise ValueError(
            f"expected weights of shape (N, C, k), not empty; found {tuple(weights.shape)}"
        )
    filters, _, taps = weights.shape
    points = max(_FEWEST_POINTS, 2 ** (dilation * (taps - 1)).bit_length())
    # The spectrum of a dilated kernel at the frequency f equals the spectrum of the same kernel
    # without dilation at the frequency dilation * f.
    places = torch.arange(points // 2 + 1, device=weights.device) * dilation % points
    places = torch.minimum(places, points - places)
    largest = largest_magnitude(weights)
    unit = weights.float() / torch.where(largest > 0, largest, 1)[:, None, None]
    power = unit.new_zeros(filters, len(places))
    at_once = max(1, _MOST_NUMBERS // power.numel())
    for some in torch.split(unit, at_once, dim=1):
        power += torch.fft.rfft(some, points)[..., places].abs().square().sum(1)
    return power.sqrt() * largest[:, None]

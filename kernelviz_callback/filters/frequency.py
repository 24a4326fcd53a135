"""What filters of one dimension let through of each frequency."""

import torch
from torch import Tensor

from kernelviz_callback.filters.measures import largest_magnitude

_MOST_NUMBERS = 2**20  # of the spectra in memory at once, complex
_FEWEST_POINTS = 256  # of a transform: twice as many as a tile is wide


def frequency_gain(weights: Tensor, *, dilation: int = 1) -> Tensor:
    """How much of each frequency a 1-D filter lets through: whether it is a low, band or high pass.

    The magnitude of its transfer function, |H(f)| = |sum over t of w[t] exp(-2 pi i f t)|. Of a
    filter with several channels the root of the summed squares: the gain for signals that have
    nothing to do with each other.

    Args:
        weights: Shape (N, C, k), floating point, not modified.
        dilation: Spacing of the taps, in samples.

    Returns:
        Shape (N, frequencies), float32, not negative, in units of the weights: at frequencies from
        0 to half the sampling rate, in equal steps. NaN for a filter with NaN or infinity.

    Raises:
        ValueError: If ``weights`` are no filters of a 1-D layer, or empty.

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
    # Spread taps repeat the spectrum: at f it is what that of the taps is at dilation * f.
    places = torch.arange(points // 2 + 1, device=weights.device) * dilation % points
    places = torch.minimum(places, points - places)
    largest = largest_magnitude(weights)
    unit = weights.float() / torch.where(largest > 0, largest, 1)[:, None, None]
    power = unit.new_zeros(filters, len(places))
    at_once = max(1, _MOST_NUMBERS // power.numel())
    for some in torch.split(unit, at_once, dim=1):
        power += torch.fft.rfft(some, points)[..., places].abs().square().sum(1)
    return power.sqrt() * largest[:, None]

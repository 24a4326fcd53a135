"""Find what is wrong with the images that a layer reads, such as a forgotten normalisation."""

from typing import NamedTuple

import torch
from torch import Tensor

# The mean of a channel is far from zero if it is more than this many standard deviations away.
# Photographs in [0, 1] are at 1 to 2, also dark and bright ones.
FAR_FROM_ZERO = 4.0
_LEAST_BYTE_RANGE = 64  # a batch of photographs in [0, 255] always has a larger value
_LARGEST_BYTE = 255


class ChannelRanges(NamedTuple):
    """The values of each channel that a layer reads, over all images: tensors of shape (C,).

    NaN and infinite values are left out.

    Attributes:
        low: Smallest value, float64.
        high: Largest value, float64.
        mean: Mean, float64.
        deviation: Standard deviation, float64.
    """

    low: Tensor
    high: Tensor
    mean: Tensor
    deviation: Tensor


def channel_ranges(inputs: Tensor) -> ChannelRanges:
    """Measure the values of each channel.

    Args:
        inputs: What a layer reads, shape (B, C, ...), floating point, not modified.

    Returns:
        The numbers of each channel; NaN for a channel that has no finite value.

    Example:
        >>> found = channel_ranges(torch.tensor([[[0.0, 2.0], [5.0, 5.0]]]))
        >>> found.mean.tolist(), found.deviation.tolist()
        ([1.0, 5.0], [1.0, 0.0])
    """
    values = inputs.detach().transpose(0, 1).flatten(1).double()
    finite = values.isfinite()
    low = values.where(finite, torch.inf).amin(1)
    high = values.where(finite, -torch.inf).amax(1)
    count = finite.sum(1)
    mean = values.where(finite, 0).sum(1) / count
    apart = (values - mean[:, None]).where(finite, 0)
    deviation = (apart.square().sum(1) / count).sqrt()
    return ChannelRanges(
        low.where(count > 0, torch.nan), high.where(count > 0, torch.nan), mean, deviation
    )


def find_input_faults(inputs: Tensor, *, has_norm: bool) -> list[str]:
    """Say what is unusual in the images that a first layer reads, in plain words.

    The rules and when they are wrong:

    - NaN or infinite values: never wrong.
    - values of 0 to 255: no value is negative, the largest is from 64 to 255. It is wrong for data
      in units of their own that are in this range.
    - equal channels: all channels are equal in every image. It is right also for grey images that
      are repeated on purpose.
    - a constant channel: one value in all images, while another channel varies.
    - a mean far from zero: more than `FAR_FROM_ZERO` standard deviations in every channel, and no
      norm follows the layer. It is wrong for data that hardly vary.

    Args:
        inputs: Shape (B, C, ...), floating point, not modified.
        has_norm: Whether a norm follows the layer.

    Returns:
        One clause for each fault; empty if there is none.

    Example:
        >>> find_input_faults(torch.full((1, 1, 8, 8), torch.nan), has_norm=True)
        ['all values are NaN or infinite']
    """
    finite = inputs.isfinite()
    if not finite.any():
        return ["all values are NaN or infinite"]
    faults = []
    if not finite.all():
        share = 1 - finite.double().mean().item()
        faults.append(f"{max(share, 1e-4):.2%} of the values are NaN or infinite")
    ranges = channel_ranges(inputs)
    low, high = ranges.low.nan_to_num(torch.inf).min(), ranges.high.nan_to_num(-torch.inf).max()
    is_bytes = bool(low >= 0) and _LEAST_BYTE_RANGE <= high <= _LARGEST_BYTE
    if is_bytes:
        faults.append(f"values from {low:.4g} to {high:.4g}, as of images that are not scaled")
    channels = inputs.shape[1]
    if channels > 1 and bool((inputs == inputs[:, :1]).all()):
        faults.append(f"all {channels} channels are equal")
    constant = (ranges.deviation == 0).nonzero().flatten().tolist()
    if 0 < len(constant) < channels:
        names = ", ".join(map(str, constant))
        subject = f"channel {names} has" if len(constant) == 1 else f"channels {names} have"
        faults.append(f"{subject} one value only")
    distance = (ranges.mean.abs() / ranges.deviation).nan_to_num(0.0, posinf=0.0).min().item()
    if distance > FAR_FROM_ZERO and not has_norm and not is_bytes:
        faults.append(
            f"the mean is {distance:.1f} standard deviations from zero, and no norm follows"
        )
    return faults

"""Filters of one and of three dimensions as rows of planes: what pictures and measures work on."""

from collections.abc import Sequence

from torch import Tensor

# Whose kernels are drawn one by one: colours with alpha, or two by two sensors. Of more, one
# picture tells of all.
MOST_CHANNELS = 4


def as_planes(filters: Tensor) -> Tensor:
    """Lay the kernels of filters side by side, whatever their dimensions.

    Args:
        filters: Shape (N, C, kH, kW); (N, C, k) of a 1-D layer; (N, C, kD, kH, kW) of a 3-D one.
            Not modified.

    Returns:
        Shape (N, C, kH, kW); (N, C, 1, k) of a 1-D layer; (N, kD * C, kH, kW) of a 3-D one: the C
        kernels of the first slice, then those of the next. A view where torch can make one.

    Example:
        >>> from torch import rand
        >>> as_planes(rand(8, 3, 9)).shape, as_planes(rand(8, 3, 2, 5, 5)).shape
        (torch.Size([8, 3, 1, 9]), torch.Size([8, 6, 5, 5]))
    """
    if filters.ndim == 5:
        return filters.movedim(2, 1).flatten(1, 2)
    return filters.unsqueeze(2) if filters.ndim == 3 else filters


def why_no_image(shape: Sequence[int]) -> str | None:
    """Why filters of this shape do not respond to one image; None if they do."""
    if len(shape) == 3:
        return "a 1-D convolution reads signals, not images"
    if len(shape) == 5:
        return "a 3-D convolution reads several images at a time, and the probe is one"
    return None


def check_filters(shape: Sequence[int]) -> None:
    """Raise a `ValueError` unless this is the shape of filters."""
    if len(shape) not in (3, 4, 5) or 0 in shape:
        raise ValueError(
            "expected filters of shape (N, C, kH, kW), (N, C, k) of a 1-D layer or "
            f"(N, C, kD, kH, kW) of a 3-D one, not empty; found {tuple(shape)}"
        )

"""Convert filters of 1-D and 3-D layers to the planes that pictures and measures work on."""

from collections.abc import Sequence

from torch import Tensor

# With up to this many channels, each kernel of a filter is drawn. Four are enough for RGB with
# alpha, or for the 2 x 2 pixels of a camera sensor. With more channels, one picture represents the
# whole filter.
MOST_CHANNELS = 4


def as_planes(filters: Tensor) -> Tensor:
    """Return filters of any dimension as 2-D planes.

    Args:
        filters: Shape (N, C, kH, kW); (N, C, k) for a 1-D layer; (N, C, kD, kH, kW) for a 3-D
            layer. Not modified.

    Returns:
        Shape (N, C, kH, kW); (N, C, 1, k) for a 1-D layer; (N, kD * C, kH, kW) for a 3-D layer,
        with the C kernels of the first slice, then those of the second slice, and so on. It is a
        view of ``filters`` if possible.

    Example:
        >>> from torch import rand
        >>> as_planes(rand(8, 3, 9)).shape, as_planes(rand(8, 3, 2, 5, 5)).shape
        (torch.Size([8, 3, 1, 9]), torch.Size([8, 6, 5, 5]))
    """
    if filters.ndim == 5:
        return filters.movedim(2, 1).flatten(1, 2)
    return filters.unsqueeze(2) if filters.ndim == 3 else filters


def why_no_image(shape: Sequence[int]) -> str | None:
    """Return why filters of this shape have no response to one image; None if they have one."""
    if len(shape) == 3:
        return "a 1-D convolution reads signals, not images"
    if len(shape) == 5:
        return "a 3-D convolution reads several images at a time, and the probe is one"
    return None


def check_filters(shape: Sequence[int]) -> None:
    """Raise a `ValueError` if the filters of a layer cannot have this shape."""
    if len(shape) not in (3, 4, 5) or 0 in shape:
        raise ValueError(
            "expected filters of shape (N, C, kH, kW), (N, C, k) of a 1-D layer or "
            f"(N, C, kD, kH, kW) of a 3-D layer, not empty; found {tuple(shape)}"
        )

"""How many pixels a weight has: a square, except in a kernel that would be a thin line.

The tab draws the same, see ``weightSize`` in ``tensorboard_plugin/static/paint.js``.
"""

from math import floor

from torch import Tensor

SQUARE_UP_TO = 8  # a kernel whose long side is up to so many times its short side is not stretched
_STRETCHED = 4  # the long side of a stretched kernel over its short side, ...
_SHORT_SIDE = 16  # pixels: ... unless the short side is as long as this, not enlarged


def cell_size(height: int, width: int) -> tuple[int, int]:
    """Return the height and the width of a weight in a kernel that is not enlarged, in pixels.

    Args:
        height: Height of the kernel, in weights.
        width: Width of the kernel, in weights.

    Example:
        >>> cell_size(7, 7), cell_size(1, 64), cell_size(25, 1), cell_size(3, 64)
        ((1, 1), (16, 1), (1, 6), (5, 1))
    """
    short, long = sorted((height, width))
    if long <= SQUARE_UP_TO * short:
        return 1, 1
    wanted = min(long / _STRETCHED, _SHORT_SIDE)
    factor = max(1, floor(wanted / short + 0.5))
    return (factor, 1) if height < width else (1, factor)


def stretch(planes: Tensor) -> Tensor:
    """Repeat the weights of slender kernels so that each has the pixels of `cell_size`.

    Args:
        planes: Shape (N, C, kH, kW), not modified.

    Returns:
        Shape (N, C, H, W); ``planes`` itself if their weights are square.
    """
    down, across = cell_size(*planes.shape[2:])
    if down > 1:
        return planes.repeat_interleave(down, 2)
    return planes.repeat_interleave(across, 3) if across > 1 else planes


def stretched_size(height: int, width: int) -> tuple[int, int]:
    """Return the height and the width of a kernel that is not enlarged, in pixels."""
    down, across = cell_size(height, width)
    return height * down, width * across


def usual_side(height: int, width: int) -> int:
    """Return the side that the enlargement of a kernel is chosen for, in pixels.

    This is the long side. A stretched kernel is enlarged until its area is that of a square kernel.

    Args:
        height: Height of the kernel, in weights.
        width: Width of the kernel, in weights.
    """
    high, wide = stretched_size(height, width)
    return max(high, wide) if (high, wide) == (height, width) else round((high * wide) ** 0.5)


def stretch_note(height: int, width: int) -> str | None:
    """Say how long a weight of a stretched kernel is; None for a square weight.

    Example:
        >>> stretch_note(1, 64)
        'each weight is drawn 16 times as high as wide'
    """
    down, across = cell_size(height, width)
    if down == across:
        return None
    long, short = ("high", "wide") if down > across else ("wide", "high")
    return f"each weight is drawn {max(down, across)} times as {long} as {short}"

"""Draw the built-in probe: a test chart with all orientations, frequencies and colours."""

import torch
from torch import Tensor

SPOKES = 16
SMALLEST_CHART = 16  # pixels; the quarters of a smaller chart show nothing useful


def make_chart(size: int = 224) -> Tensor:
    """Draw the test chart, on which the response of a filter shows what the filter responds to.

    The chart has four quarters:

    - Top left, a zone plate with every orientation and every frequency up to the Nyquist limit. An
      oriented filter responds in two opposite arcs.
    - Top right, a Siemens star with sharp edges in every direction.
    - Bottom left, a hue wheel that is white in the middle. A colour-opponent filter responds with
      opposite signs in its two halves.
    - Bottom right, edges, lines of one pixel, a single dot and flat patches. The response to the
      dot is the kernel, rotated by 180 degrees. A filter responds to a flat patch only if the sum
      of its weights is not zero.

    Args:
        size: Height and width in pixels.

    Returns:
        Shape (3, size, size), float32, in [0, 1], on the CPU. Every value is a multiple of 1/255.
        The pixels depend on the size alone.

    Raises:
        ValueError: If ``size`` is less than 16.

    Example:
        >>> make_chart(64).shape
        torch.Size([3, 64, 64])
    """
    if size < SMALLEST_CHART:
        raise ValueError(f"the chart needs at least {SMALLEST_CHART} pixels, found size={size}")
    near = size // 2
    far = size - near
    with torch.device("cpu"):  # the user may have set another default device
        return _draw(near, far)


def _draw(near: int, far: int) -> Tensor:
    top = torch.cat([_zone_plate(near, near), _siemens_star(near, far)], dim=2)
    bottom = torch.cat([_hue_wheel(far, near), _edges_and_patches(far, far)], dim=2)
    return (torch.cat([top, bottom], dim=1) * 255).round().div(255).float()


def _polar(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the radius and the angle in radians of each pixel's centre.

    The radius is 1 at the middle of the longer sides.
    """
    y = torch.arange(height, dtype=torch.float64, device="cpu") + 0.5 - height / 2
    x = torch.arange(width, dtype=torch.float64, device="cpu") + 0.5 - width / 2
    radius = (y[:, None] ** 2 + x[None, :] ** 2).sqrt() / (min(height, width) / 2)
    return radius, torch.atan2(y[:, None].expand(height, width), x[None, :].expand(height, width))


def _zone_plate(height: int, width: int) -> Tensor:
    # The local frequency of cos(a r^2) grows with r. It is 1/2 cycle per pixel at radius 1.
    radius, _ = _polar(height, width)
    phase = torch.pi / 2 * (min(height, width) / 2) * radius**2
    inside = radius <= 1
    return torch.where(inside, 0.5 + 0.5 * torch.cos(phase), 0.5).expand(3, -1, -1)


def _siemens_star(height: int, width: int) -> Tensor:
    radius, angle = _polar(height, width)
    bright = torch.sin(SPOKES * angle) > 0
    return torch.where(radius <= 0.95, bright.double(), 0.5).expand(3, -1, -1)


def _hue_wheel(height: int, width: int) -> Tensor:
    radius, angle = _polar(height, width)
    saturation = radius.clamp(max=1)
    # Hue to RGB (HSV with value 1): three clipped triangle waves, a third of a turn apart.
    sixths = (angle / (2 * torch.pi) * 6).remainder(6)
    offsets = torch.tensor([5.0, 3.0, 1.0], dtype=torch.float64, device="cpu")[:, None, None]
    k = (offsets + sixths).remainder(6)
    rgb = 1 - saturation * torch.minimum(k, 4 - k).clamp(0, 1)
    return torch.where(radius <= 0.95, rgb, 0.5)


def _edges_and_patches(height: int, width: int) -> Tensor:
    quarter = torch.full((3, height, width), 0.5, dtype=torch.float64, device="cpu")
    middle_y, middle_x = height // 2, width // 2
    quarter[:, :middle_y, : middle_x // 2] = 0.0  # a vertical edge, black to white
    quarter[:, :middle_y, middle_x // 2 : middle_x] = 1.0
    line_y, line_x = middle_y // 2, middle_x + middle_x // 3
    quarter[:, : middle_y - 1, line_x] = 1.0  # two lines of one pixel, and a dot
    quarter[:, line_y, middle_x + middle_x // 3 :] = 0.0
    quarter[:, middle_y // 4, middle_x + 2 * middle_x // 3] = 1.0
    colours = torch.tensor(
        [
            [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]],
            [[0, 1, 1], [1, 0, 1], [1, 1, 0], [1, 1, 1]],
        ],
        dtype=torch.float64,
        device="cpu",
    )
    rows = (torch.arange(height - middle_y, device="cpu") * 2 // (height - middle_y)).clamp(max=1)
    columns = (torch.arange(width, device="cpu") * 4 // width).clamp(max=3)
    quarter[:, middle_y:] = colours[rows][:, columns].permute(2, 0, 1)
    return quarter

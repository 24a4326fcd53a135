"""The part of a layer that a film strip or an animation shows: which filters, channels, slices."""

from dataclasses import dataclass, replace
from math import sqrt

import torch
from torch import Tensor

from kernelviz_callback.drawing.cells import cell_size, stretch, stretched_size, usual_side
from kernelviz_callback.drawing.curves import curve_width, draw_curves
from kernelviz_callback.drawing.tile_style import TileStyle, tile_style
from kernelviz_callback.filters.measures import movement
from kernelviz_callback.filters.planes import MOST_CHANNELS, as_planes
from kernelviz_callback.filters.principal import principal_planes

MOST_ROWS = 128  # filters in one picture: with more, the eye cannot follow one of them
MOST_PIXELS = 12_288  # of the kernels in one frame, not enlarged: 101 of 11x11, 48 of 16x16
WIDEST_ROW = 168  # pixels: slices side by side, so that twelve rows fit in a film strip, ...
_BETWEEN = 2  # pixels: ... with this distance between two slices
_CURVE_HEIGHT = 28  # pixels, not enlarged, of a single curve in a tile; less if there are several
_COLUMN_PIXELS = 4  # pixels of noisy kernels that take as many bytes as one column of noisy curves


@dataclass(frozen=True)
class Crop:
    """The part of a layer that is drawn.

    Attributes:
        shape: Shape of the weights of the whole layer.
        filters: Numbers of the filters that are drawn, ascending.
        style: How they are drawn. Its channels and slices are the ones that are drawn: the first
            ones of the layer.
    """

    shape: tuple[int, ...]
    filters: tuple[int, ...]
    style: TileStyle

    @property
    def kernel_size(self) -> tuple[int, int]:
        """Height and width of a kernel, in weights. A 1-D kernel is one row."""
        *_, height, width = 1, *self.shape[2:]
        return height, width

    @property
    def picture_size(self) -> tuple[int, int]:
        """Height and width of a picture, not enlarged: see `cell_size`, or of a curve."""
        height, width = self.kernel_size
        if not self.style.is_curve:
            return stretched_size(height, width)
        height = 2 * round(_CURVE_HEIGHT / sqrt(self.style.pictures) / 2)
        return height, curve_width(width, height)

    @property
    def usual_side(self) -> int:
        """The side that the enlargement of a picture is chosen for, in pixels."""
        return max(self.picture_size) if self.style.is_curve else usual_side(*self.kernel_size)

    @property
    def is_stretched(self) -> bool:
        """Whether a weight is not a square, see `cell_size`."""
        return not self.style.is_curve and cell_size(*self.kernel_size) != (1, 1)

    @property
    def pixels(self) -> int:
        """Number of weights of all drawn kernels.

        For curves, the number of pixels of noisy kernels that take as many bytes.
        """
        height, width = self.kernel_size
        if self.style.is_curve:
            height, width = _COLUMN_PIXELS, self.picture_size[1]
        return len(self.filters) * self.style.pictures * height * width

    def apply(self, weights: Tensor) -> Tensor:
        """Copy the part of a layer's weights that is drawn, in the order of `as_planes`."""
        channels = None if self.style.is_principal else self.style.channels
        drawn = weights[list(self.filters), :channels]
        if self.style.is_principal:
            drawn = principal_planes(drawn).planes
        if self.style.slices is not None:
            drawn = drawn[:, :, : self.style.slices]
        return as_planes(drawn).float().contiguous()

    def to_pictures(self, planes: Tensor, half_ranges: Tensor) -> Tensor:
        """Return the values of a frame that are to be coloured: kernels, or drawn curves.

        Args:
            planes: The part of the weights that is drawn, see `apply`.
            half_ranges: The magnitude at the ends of each filter's colour scale, shape (filters,).

        Returns:
            Shape (filters, pictures, H, W), H and W from `picture_size`. RGB pictures have three
            planes each.
        """
        if not self.style.is_curve:
            return stretch(planes)
        height, width = self.picture_size
        return draw_curves(planes[:, :, 0], half_ranges, height=height, width=width)


def choose_crop(first: Tensor | None, last: Tensor, most_pixels: int = MOST_PIXELS) -> Crop:
    """Choose the part of a layer that is drawn: the whole layer if there is room for it.

    If there are too many filters, those that changed most are chosen.

    Args:
        first: The layer's weights at the beginning; None if the layer did not exist.
        last: The layer's weights at the end.
        most_pixels: Pixels of all kernels together, before they are enlarged.

    Example:
        >>> crop = choose_crop(None, torch.ones(512, 64, 3, 3))
        >>> len(crop.filters), crop.style.is_principal, crop.picture_size
        (128, True, (3, 3))
    """
    shape = tuple(last.shape)
    style = _fitting_style(shape, most_pixels)
    pixels_of_one = Crop(shape, (0,), style).pixels
    most = min(len(last), MOST_ROWS, max(1, most_pixels // pixels_of_one))
    return Crop(shape, _most_changed(first, last, most), style)


def _fitting_style(shape: tuple[int, ...], most_pixels: int) -> TileStyle:
    """How a layer is drawn, with as many channels and slices as one filter has room for."""
    style = tile_style(shape)
    if style.kind == "matrix":
        # A row of the matrix is too long beside others: its first weights are drawn as planes.
        style = replace(style, kind="planes")
    slices = style.slices
    if slices is not None:
        style = replace(style, slices=1)
    if not style.is_rgb and not style.is_principal:
        pixels_of_one = Crop(shape, (0,), replace(style, channels=1)).pixels
        fitting = min(style.channels, MOST_CHANNELS, most_pixels // pixels_of_one)
        style = replace(style, channels=max(1, fitting))
    if slices is not None:
        wide = Crop(shape, (0,), style).picture_size[1]
        in_a_row = WIDEST_ROW // (style.pictures * (wide + _BETWEEN))
        fitting = min(slices, in_a_row, most_pixels // Crop(shape, (0,), style).pixels)
        style = replace(style, slices=max(1, fitting))
    return style


def _most_changed(first: Tensor | None, last: Tensor, most: int) -> tuple[int, ...]:
    """Choose the filters that changed most, at most this many, in ascending order."""
    if most >= len(last):
        return tuple(range(len(last)))
    before = torch.zeros_like(last) if first is None or first.shape != last.shape else first
    change = movement(last, before).change.nan_to_num(torch.inf, posinf=torch.inf)
    chosen = change.argsort(descending=True, stable=True)[:most]
    return tuple(sorted(chosen.tolist()))

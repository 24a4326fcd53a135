"""How the filters of a layer are drawn: the one place that decides it from the layer's shape.

| shape | kind | a tile |
|---|---|---|
| (N, 3, kH, kW) | "rgb" | one RGB picture: red, green and blue are input channels 0, 1 and 2 |
| (N, C, kH, kW), C <= 4 | "planes" | a row of C pictures, one for each input channel |
| (N, C, kH, kW), C > 4 | "planes" | the principal plane of the filter |
| (N, C, 1, 1), (N, C, 1), C > 4 | "matrix" | a row of C cells, one for each weight |
| (N, C, k), C <= 4 | "curve" | a row of C pictures with bars, one for each input channel |
| (N, C, k), C > 4 | "curve" | the principal 1-D kernel, as bars |
| (N, C, kD, kH, kW) | as (N, C, kH, kW) | the same for each slice, slice by slice in a row |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from kernelviz_callback.drawing.colour import ZERO_LEVEL, diverging
from kernelviz_callback.drawing.curves import Base
from kernelviz_callback.filters.planes import MOST_CHANNELS

Channels: TypeAlias = Literal["auto", "all", "principal"]
TileKind: TypeAlias = Literal["rgb", "planes", "curve", "matrix"]

_RULES: dict[TileKind, int] = {"rgb": 2, "planes": 1, "curve": 1, "matrix": 0}  # pixels


@dataclass(frozen=True)
class TileStyle:
    """How the filters of a layer are drawn.

    Attributes:
        kind: What the pictures of a tile are. "rgb": three channels as the colours of one picture.
            "planes": one channel in the diverging colour map. "curve": one channel of a 1-D filter
            as a curve. "matrix": a row of cells, one for each weight of a filter with one tap.
        channels: Number of channels that are drawn; 1 if ``is_principal``.
        slices: Number of slices of a 3-D filter that are drawn; None for 1-D and 2-D filters.
        is_principal: Whether the channels of a filter are first reduced to their principal plane,
            see `principal_planes`.
        base: Where a curve has its zero: in the "middle" of the tile, or at its "bottom" if values
            are never negative.
    """

    kind: TileKind
    channels: int
    slices: int | None = None
    is_principal: bool = False
    base: Base = "middle"

    @property
    def is_rgb(self) -> bool:
        """Whether each three channels are one picture."""
        return self.kind == "rgb"

    @property
    def is_curve(self) -> bool:
        """Whether each channel is drawn as a curve."""
        return self.kind == "curve"

    @property
    def pictures(self) -> int:
        """Number of pictures side by side in a tile."""
        return (self.slices or 1) * (1 if self.is_rgb else self.channels)

    @property
    def rule(self) -> int:
        """Pixels between two pictures of a tile."""
        return _RULES[self.kind]


# How the frequency responses of 1-D filters are drawn.
GAIN_STYLE = TileStyle("curve", channels=1, base="bottom")


def tile_style(shape: Sequence[int], channels: Channels = "auto") -> TileStyle:
    """Decide how filters of a shape are drawn.

    Args:
        shape: Shape of the weights: (N, C, kH, kW), (N, C, k) or (N, C, kD, kH, kW).
        channels: "all" to draw every channel, "principal" to draw the principal plane of each
            filter, "auto" for the rules in the table of this module.

    Raises:
        ValueError: If ``channels`` is none of these.

    Example:
        >>> tile_style((64, 3, 7, 7)).kind, tile_style((64, 64, 1, 1)).kind
        ('rgb', 'matrix')
        >>> tile_style((8, 16, 3, 5, 5))
        TileStyle(kind='planes', channels=1, slices=3, is_principal=True, base='middle')
    """
    if channels not in get_args(Channels):
        raise ValueError(f'channels must be "auto", "all" or "principal"; found {channels!r}')
    _, count, *kernel = shape
    slices = kernel[0] if len(kernel) == 3 else None
    has_many_channels = count > MOST_CHANNELS
    if has_many_channels and prod(kernel) == 1 and channels != "principal":
        return TileStyle("matrix", count, slices)
    is_principal = channels == "principal" or (channels == "auto" and has_many_channels)
    drawn = 1 if is_principal else count
    if len(kernel) == 1:
        return TileStyle("curve", drawn, is_principal=is_principal)
    return TileStyle("rgb" if drawn == 3 else "planes", drawn, slices, is_principal)


def response_style(shape: Sequence[int]) -> TileStyle:
    """Decide how responses are drawn: three planes as RGB, any other number as a row of planes.

    The response of a 1-D filter is a curve: which frequencies it passes.

    Args:
        shape: Shape of the responses, (N, C, H, W) or (N, C, kD, H, W). The shape of the weights
            gives the same answer if each channel has its own response. (N, C, k) for a 1-D layer.
    """
    if len(shape) == 3:
        return GAIN_STYLE
    channels = shape[1]
    slices = shape[2] if len(shape) == 5 else None
    return TileStyle("rgb" if channels == 3 else "planes", channels, slices)


def colour_bar(style: TileStyle) -> Tensor:
    """Draw the colours of the scale from its low to its high end: shape (levels, 3), uint8."""
    lowest = ZERO_LEVEL if style.base == "bottom" else 1
    levels = torch.arange(lowest, 256, dtype=torch.uint8, device="cpu")
    return levels[:, None].expand(-1, 3) if style.is_rgb else diverging(levels[None])[:, 0].T

"""The kernel grid, the response grid and the gain grid: one tile for each filter."""

from collections.abc import Iterable
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from kernelviz_callback.drawing.arrangement import (
    GAP,
    LARGEST_KERNEL,
    arrange_matrix,
    arrange_tiles,
    curve_height,
)
from kernelviz_callback.drawing.caption_layout import draw_caption
from kernelviz_callback.drawing.caption_text import (
    Scale,
    kernel_note,
    non_finite_note,
    principal_note,
    response_note,
    scale_note,
)
from kernelviz_callback.drawing.curves import curve_width, draw_curves
from kernelviz_callback.drawing.picture import Layout, Picture
from kernelviz_callback.drawing.tile_style import (
    GAIN_STYLE,
    Channels,
    TileStyle,
    colour_bar,
    response_style,
    tile_style,
)
from kernelviz_callback.drawing.tiles import paint_tiles
from kernelviz_callback.drawing.verdict_frames import Flags
from kernelviz_callback.filters.measures import largest_magnitude
from kernelviz_callback.filters.planes import as_planes, check_filters
from kernelviz_callback.filters.principal import principal_planes
from kernelviz_callback.filters.responses import ResponseChunks
from kernelviz_callback.model.host import to_host

LARGEST_RESPONSE = 224  # pixels: responses of a small probe are not enlarged beyond this
FRAME = 3  # pixels of a verdict's frame, outside the tile; less for tiles below 48 pixels
MOST_PLANES = 4096  # kernels in one picture; above this, each filter shows its first channels
MOST_WEIGHTS = 2**18  # weights in the matrix of a 1x1 convolution; above this, its first channels


def kernel_grid(
    weights: Tensor,
    *,
    scale: Scale = "filter",
    channels: Channels = "auto",
    title: str = "",
    flags: Flags | None = None,
) -> Picture:
    """Picture the filters of a layer: the picture shows the structure that training adds.

    Noise means untrained or dead filters. A flat tile is a constant filter. Stripes and blobs are
    edge and colour detectors. How a tile is drawn depends on the shape of the weights:

    - 3 input channels: the filter as an RGB picture, grey where a weight is zero, brighter where it
      is positive, darker where it is negative.
    - 1, 2 or 4 input channels: a row of the filter's kernels, red positive, blue negative, white
      zero.
    - More input channels: the filter's principal plane in these colours, see `principal_planes`.
      The caption says how much of the filter the plane explains.
    - A 1x1 convolution with more than 4 input channels: a matrix. A row is a filter, a column is an
      input channel.
    - A 1-D layer: kernels are curves, the first tap at the left, zero in the middle.
    - A 3-D layer: the slices of a filter stand in a row, each drawn as in a 2-D layer.

    NaN and infinity are striped magenta and black. Weights are enlarged by a whole factor.

    Args:
        weights: Filters, shape (N, C, kH, kW), or (N, C, k) for a 1-D layer, or
            (N, C, kD, kH, kW) for a 3-D layer. Floating point, any device, not modified.
        scale: What the ends of the colour scale stand for. "filter": each filter's own largest
            magnitude. "layer": the largest magnitude of all filters. A number: that magnitude, or
            the layer's largest if that is larger. Pass the last picture's to keep one scale through
            a training.
        channels: "all" draws all N x C kernels, or the first channels of each filter if there are
            more than 4,096. "principal" draws principal planes. "auto" follows the list above.
        title: First line of the caption.
        flags: Frames around tiles and their legend, see `flag_filters`. The grid keeps room for
            frames even if no tile has one, so that tiles do not move from step to step.

    Raises:
        ValueError: If ``weights`` is not a tensor of filters or is empty, or if ``scale`` or
            ``channels`` is none of the above.

    Example:
        >>> picture = kernel_grid(torch.randn(64, 3, 7, 7), title="conv1")
        >>> picture.tile(0).shape, picture.layout.columns
        (torch.Size([56, 56, 3]), 8)
        >>> kernel_grid(torch.randn(64, 64, 3, 3)).tile(0).shape
        torch.Size([54, 54, 3])
    """
    check_filters(weights.shape)
    _check_scale(scale)
    style = tile_style(weights.shape, channels)
    filters, count = weights.shape[:2]
    explained = None
    if style.is_principal:
        found = principal_planes(weights)
        weights, explained = found.planes, found.explained
    planes = as_planes(weights)
    shown = _shown_planes(style, filters)
    return _draw_grid(
        [planes],
        tuple(planes.shape),
        style=style,
        shown=shown,
        scale=scale,
        largest_tile=LARGEST_KERNEL,
        lines=[
            title,
            kernel_note(style, shown)
            if explained is None
            else principal_note(style, count, explained),
        ],
        noun="weight" if explained is None else "principal weight",
        flags=flags,
    )


def response_grid(
    responses: Tensor | ResponseChunks, *, scale: Scale = "filter", title: str = "", note: str = ""
) -> Picture:
    """Picture how each filter responds to the probe: a flat tile is a filter that does not respond.

    Three planes make an RGB picture. One plane (a summed response, or a grey layer) is drawn red
    where it is positive and blue where it is negative. Any other number of planes stands in a row.
    Zero is neutral. Small responses are enlarged by a whole factor.

    Args:
        responses: Shape (N, C, H, W) as `channel_responses` or `summed_responses` return them, or
            (N, C, kD, H, W) for the slices of a 3-D layer, or `ResponseChunks`. They have the size
            that they are shown at, see `fitting_shrink`.
        scale: The option of `kernel_grid`.
        title: First line of the caption.
        note: How the responses were made; second line of the caption.

    Raises:
        ValueError: If ``responses`` has another shape or is empty, or if ``scale`` is none of the
            values that `kernel_grid` takes.
    """
    shape = tuple(responses.shape)
    if len(shape) not in (4, 5) or 0 in shape:
        raise ValueError(
            "expected responses of shape (N, C, H, W) or (N, C, kD, H, W), not empty; found "
            f"{shape}"
        )
    _check_scale(scale)
    style = response_style(shape)
    planes = prod(shape[1:-2])
    return _draw_grid(
        [as_planes(responses)] if isinstance(responses, Tensor) else responses,
        (shape[0], planes, *shape[-2:]),
        style=style,
        shown=planes,
        scale=scale,
        largest_tile=LARGEST_RESPONSE,
        lines=[title, note, response_note(style)],
        noun="response",
    )


def gain_grid(
    gains: Tensor, *, scale: Scale = "filter", title: str = "", note: str = ""
) -> Picture:
    """Picture which frequencies 1-D filters pass: low-pass, band-pass, high-pass, or none.

    A tile is a curve over frequency: frequency 0 at the left, half the sampling rate at the right,
    zero gain at the bottom.

    Args:
        gains: Shape (N, frequencies), not negative, as `frequency_gain` returns them.
        scale: The option of `kernel_grid`.
        title: First line of the caption.
        note: Second line of the caption.

    Raises:
        ValueError: If ``gains`` is not 2-D or is empty, or if ``scale`` is none of the values that
            `kernel_grid` takes.

    Example:
        >>> from kernelviz_callback import frequency_gain
        >>> gain_grid(frequency_gain(torch.randn(16, 1, 31))).tile(0).shape
        torch.Size([56, 129, 3])
    """
    if gains.ndim != 2 or 0 in gains.shape:
        raise ValueError(
            f"expected gains of shape (N, frequencies), not empty; found {tuple(gains.shape)}"
        )
    _check_scale(scale)
    return _draw_grid(
        [gains[:, None, None]],
        (len(gains), 1, 1, gains.shape[1]),
        style=GAIN_STYLE,
        shown=1,
        scale=scale,
        largest_tile=LARGEST_KERNEL,
        lines=[title, note],
        noun="gain",
    )


def _check_scale(scale: Scale) -> None:
    if isinstance(scale, str) and scale not in ("filter", "layer"):
        raise ValueError(f'scale must be "filter", "layer" or a number; found {scale!r}')


def _shown_planes(style: TileStyle, filters: int) -> int:
    """Number of planes of each filter that a kernel grid has room for: whole slices, if possible.

    At least one slice of a 3-D filter, or one channel of another, is drawn.
    """
    room = max(1, (MOST_WEIGHTS if style.kind == "matrix" else MOST_PLANES) // filters)
    slices = style.slices or 1
    if style.is_rgb:
        return 3 * min(slices, room)
    if slices > 1:
        return style.channels * min(slices, max(1, room // style.channels))
    return min(style.channels, room)


def _draw_grid(
    chunks: Iterable[Tensor],
    shape: tuple[int, ...],
    *,
    style: TileStyle,
    shown: int,
    scale: Scale,
    largest_tile: int,
    lines: list[str],
    noun: str,
    flags: Flags | None = None,
) -> Picture:
    """Paint filters on one picture, chunk by chunk. A shared scale needs a second pass.

    Args:
        chunks: Planes of some filters each, see `as_planes`.
        shape: Shape of all chunks together, (N, C, H, W).
        style: How the filters are drawn.
        shown: Number of planes of each filter that are painted, from the first on. The scale and
            the notes on non-finite values are of all planes.
        scale: The option of `kernel_grid`.
        largest_tile: Planes are not enlarged beyond this height and width, in pixels.
        lines: The caption so far.
        noun: What is drawn, for the caption.
        flags: Frames around tiles, and their legend.
    """
    filters, _, height, width = shape
    pictures = shown // 3 if style.is_rgb else shown
    if style.is_curve:
        height = curve_height(filters, pictures, width, largest_tile)
        width = curve_width(width, height)
    if style.kind == "matrix":
        between = 1 if flags is None else 3
        columns, zoom = arrange_matrix(filters, pictures * width, between)
    else:
        largest_zoom = largest_tile // max(height, width)
        columns, zoom = arrange_tiles(filters, height, pictures * width, largest_zoom)

    painted = _paint_chunks(chunks, style, scale, shown, (height, width), zoom)
    tile_height, tile_width = painted.tiles.shape[2:]
    lines = [line for line in lines if line] + non_finite_note(painted.non_finite, filters)
    (low, high), scale_line = scale_note(painted.half_ranges, scale, noun)
    bar_ends = "0" if style.base == "bottom" else low, high
    gap = 1 if style.kind == "matrix" else GAP if pictures == 1 else 3 * GAP
    frame = 0 if flags is None else max(1, min(FRAME, tile_height // 16))
    tight = Layout(filters, columns, tile_height, tile_width, gap=gap + 2 * frame)
    legend = None if flags is None else flags.legend
    pixels, layout = draw_caption(tight, [*lines, scale_line], colour_bar(style), bar_ends, legend)
    canvas = pixels.numpy()
    for i, planes in enumerate(painted.tiles.numpy()):
        if flags is not None and flags.colours[i] is not None:
            canvas[layout.box(i, margin=frame)] = flags.colours[i]
        tile = canvas[layout.box(i)]
        for colour, plane in enumerate(planes):  # one by one: half the time of a permuted copy
            tile[..., colour] = plane
    return Picture(pixels, layout, painted.half_ranges)


class _Painted(NamedTuple):
    """The tiles of a grid, and what its caption says of them.

    Attributes:
        tiles: Shape (N, 3, H, W), uint8, on the CPU.
        half_ranges: The magnitude at the ends of each filter's scale, shape (N,), on the CPU.
        non_finite: Numbers of the filters with NaN or infinity.
    """

    tiles: Tensor
    half_ranges: Tensor
    non_finite: list[int]


def _paint_chunks(
    chunks: Iterable[Tensor],
    style: TileStyle,
    scale: Scale,
    shown: int,
    curve_size: tuple[int, int],
    zoom: int,
) -> _Painted:
    common = None if scale == "filter" else _common_half_range(chunks, scale)
    painted, half_ranges = [], []
    is_non_finite: list[bool] = []
    for values in chunks:
        own = largest_magnitude(values) if common is None else common.expand(len(values))
        bad = _non_finite(values)
        drawn = values[:, :shown]
        if style.is_curve:
            height, width = curve_size
            drawn = draw_curves(drawn[:, :, 0], own, height=height, width=width, base=style.base)
        colours = paint_tiles(
            drawn,
            own,
            is_rgb=style.is_rgb,
            zoom=zoom,
            rule=style.rule,
            non_finite=None if bad is None else ~drawn.isfinite(),
        )
        painted.append(colours)
        half_ranges.append(own)
        is_non_finite += [False] * len(values) if bad is None else bad.flatten(1).any(1).tolist()
    return _Painted(
        to_host(torch.cat(painted)),
        torch.cat(half_ranges).cpu(),
        [i for i, is_bad in enumerate(is_non_finite) if is_bad],
    )


def _common_half_range(chunks: Iterable[Tensor], scale: Scale) -> Tensor:
    """The largest magnitude of all filters, and no less than ``scale`` if that is a number."""
    largest = torch.stack([largest_magnitude(values).amax() for values in chunks]).amax()
    return largest if scale == "layer" else largest.clamp(min=float(scale))


def _non_finite(values: Tensor) -> Tensor | None:
    """Where values are NaN or infinite, bool, same shape; None if all are finite."""
    # A finite sum proves that all are finite. The sum of finite numbers may overflow, so otherwise
    # each is checked.
    return None if values.sum().isfinite() else ~values.isfinite()

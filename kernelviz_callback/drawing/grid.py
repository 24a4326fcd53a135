"""The kernel grid and the response grid: a signed tensor in, a picture with a tile a filter out."""

from collections.abc import Iterable
from math import ceil, prod, sqrt
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from kernelviz_callback.drawing.caption import framed
from kernelviz_callback.drawing.colour import ZERO_LEVEL, diverging
from kernelviz_callback.drawing.curves import Base, curve_width, draw_curves
from kernelviz_callback.drawing.notes import (
    Scale,
    kernel_note,
    non_finite_note,
    principal_note,
    response_note,
    scale_note,
)
from kernelviz_callback.drawing.picture import Layout, Picture
from kernelviz_callback.drawing.tiles import paint_tiles
from kernelviz_callback.drawing.verdict_frames import Flags
from kernelviz_callback.filters.measures import largest_magnitude
from kernelviz_callback.filters.planes import MOST_CHANNELS, as_planes, check_filters
from kernelviz_callback.filters.principal import principal_planes
from kernelviz_callback.filters.responses import ResponseChunks
from kernelviz_callback.model.host import to_host

Channels: TypeAlias = Literal["auto", "all", "principal"]

GRID_SIDE = 900  # pixels: what TensorBoard and a laptop show without shrinking
GRID_SLACK = 56  # pixels that responses may exceed it by, rather than be shrunk once more
LARGEST_KERNEL = 56  # pixels: kernels are not enlarged beyond this
LARGEST_RESPONSE = 224  # pixels: responses of a small probe are not enlarged beyond this
SMALLEST_CURVE = 24  # pixels: curves are not drawn lower than this
SMALLEST_TILE = 32  # pixels: responses are not shrunk below this, ...
LARGEST_SIDE = 1800  # pixels: ... unless their grid would be larger than this
GAP = 2  # pixels between tiles; three times as much where a tile is itself a row
FRAME = 3  # pixels around a flagged tile, beside the gap; less around tiles below 48 pixels
MOST_PLANES = 4096  # kernels in one picture; of more, each filter shows its first channels
MOST_WEIGHTS = 2**18  # in the matrix of a 1x1 convolution: likewise


def kernel_grid(
    weights: Tensor,
    *,
    scale: Scale = "filter",
    channels: Channels = "auto",
    title: str = "",
    flags: Flags | None = None,
) -> Picture:
    """Picture the filters of a layer: structure that training adds is seen at a glance.

    Noise means untrained (or dead) filters, a flat tile a constant one, stripes and blobs are
    edge and colour detectors. With three input channels a tile is the filter as an RGB picture,
    grey where a weight is zero, brighter where it is positive, darker where it is negative. With
    one, two or four a tile is the row of the filter's kernels, red positive, blue negative, white
    zero. With more it is in these colours the filter's principal plane, the one pattern that most
    of it is made of (see `principal_planes`), and the caption says of how much. A 1x1 convolution
    has no patterns, only what each filter takes of each channel: the picture is that matrix, a row
    a filter, a column a channel. NaN and infinity are striped magenta and black. Weights are
    enlarged by a whole factor.

    The kernels of a 1-D layer are curves, first tap left, zero in the middle; those of a 3-D layer
    stand slice by slice in a row, each as those of a 2-D one.

    Args:
        weights: Filters, shape (N, C, kH, kW), of a 1-D layer (N, C, k), of a 3-D layer
            (N, C, kD, kH, kW); floating point, any device, not modified.
        scale: What the ends of the colour scale stand for: "filter", each filter's own largest
            magnitude; "layer", the largest of all; a number, that magnitude, widened where the
            layer exceeds it (pass the last picture's to hold one scale through a run).
        channels: "all" for the N x C kernels (of more than 4,096, the first channels of each),
            "principal" for principal planes, "auto" for what is said above.
        title: First line of the caption.
        flags: Frames around tiles and their legend (see `flag_filters`). There is room for them
            even where no tile has one, so that tiles stay where they are from step to step.

    Raises:
        ValueError: If ``weights`` are no filters or empty, or ``scale`` or ``channels`` is none of
            the above.

    Example:
        >>> picture = kernel_grid(torch.randn(64, 3, 7, 7), title="conv1")
        >>> picture.tile(0).shape, picture.layout.columns
        (torch.Size([56, 56, 3]), 8)
        >>> kernel_grid(torch.randn(64, 64, 3, 3)).tile(0).shape
        torch.Size([54, 54, 3])
    """
    check_filters(weights.shape)
    _check_scale(scale)
    if channels not in get_args(Channels):
        raise ValueError(f'channels must be "auto", "all" or "principal"; found {channels!r}')
    filters, count, *kernel = weights.shape
    is_matrix = count > MOST_CHANNELS and prod(kernel) == 1 and channels != "principal"
    explained = None
    if channels == "principal" or (channels == "auto" and count > MOST_CHANNELS and not is_matrix):
        found = principal_planes(weights)
        weights, explained = found.planes, found.explained
    planes = as_planes(weights)
    is_rgb = weights.shape[1] == 3 and len(kernel) > 1
    fitting = max(1, (MOST_WEIGHTS if is_matrix else MOST_PLANES) // filters)
    slices = planes.shape[1] // weights.shape[1]
    together = weights.shape[1] if slices > 1 or is_rgb else 1  # a whole slice, or one channel
    pictures = 1 if is_rgb else together
    shown = together * min(planes.shape[1] // together, max(1, fitting // pictures))
    note = kernel_note(tuple(weights.shape), shown, is_matrix=is_matrix)
    if explained is not None:
        note = principal_note(count, kernel, explained)
    return _compose(
        [planes],
        tuple(planes.shape),
        shown=shown,
        is_rgb=is_rgb,
        curve="middle" if len(kernel) == 1 and not is_matrix else None,
        scale=scale,
        largest_tile=LARGEST_KERNEL,
        lines=[title, note],
        noun="weight" if explained is None else "principal weight",
        flags=flags,
        is_matrix=is_matrix,
    )


def response_grid(
    responses: Tensor | ResponseChunks, *, scale: Scale = "filter", title: str = "", note: str = ""
) -> Picture:
    """Picture what every filter makes of the probe: a live filter shows what it looks for.

    Three planes make an RGB picture, one plane (a summed response, or a grey layer) is drawn red
    where positive and blue where negative, any other number stands in a row. Zero is neutral; a
    filter that answers to nothing has a flat tile. Small responses are enlarged by a whole factor.

    Args:
        responses: Shape (N, C, H, W) as `channel_responses` or `summed_responses` return them, or
            `ResponseChunks`, at the size they are to be shown (see `fitting_shrink`); of the slices
            of a 3-D layer (N, C, kD, H, W).
        scale: As for `kernel_grid`.
        title: First line of the caption.
        note: How the responses were made; second line of the caption.

    Raises:
        ValueError: If ``responses`` have no such shape or are empty, or for ``scale`` as in
            `kernel_grid`.
    """
    shape = tuple(responses.shape)
    if len(shape) not in (4, 5) or 0 in shape:
        raise ValueError(
            "expected responses of shape (N, C, H, W) or (N, C, kD, H, W), not empty; found "
            f"{shape}"
        )
    _check_scale(scale)
    chunks = [as_planes(responses)] if isinstance(responses, Tensor) else responses
    planes = prod(shape[1:-2])
    return _compose(
        chunks,
        (shape[0], planes, *shape[-2:]),
        shown=planes,
        is_rgb=shape[1] == 3,
        scale=scale,
        largest_tile=LARGEST_RESPONSE,
        lines=[title, note, response_note(shape)],
        noun="response",
    )


def gain_grid(
    gains: Tensor, *, scale: Scale = "filter", title: str = "", note: str = ""
) -> Picture:
    """Picture what 1-D filters let through: which are low, band and high passes, and which nothing.

    A tile is a curve over frequency, from 0 at its left to half the sampling rate at its right,
    zero at its bottom.

    Args:
        gains: Shape (N, frequencies), not negative, as `frequency_gain` returns them.
        scale: As for `kernel_grid`.
        title: First line of the caption.
        note: Second line.

    Raises:
        ValueError: If ``gains`` are not 2-D or are empty, or for ``scale`` as in `kernel_grid`.

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
    return _compose(
        [gains[:, None, None]],
        (len(gains), 1, 1, gains.shape[1]),
        shown=1,
        is_rgb=False,
        curve="bottom",
        scale=scale,
        largest_tile=LARGEST_KERNEL,
        lines=[title, note],
        noun="gain",
    )


def fitting_shrink(filters: int, planes: int, height: int, width: int) -> int:
    """By what whole factor to shrink responses so that their grid fits the screen.

    Args:
        filters: Tiles in the grid.
        planes: Response planes in a tile; 1 and 3 share one place.
        height: Of a full-size response, in pixels.
        width: Likewise.

    Example:
        >>> fitting_shrink(64, 3, 218, 218)
        2
    """
    side_by_side = 1 if planes == 3 else planes
    columns = _columns(filters, height, side_by_side * width)
    side = max(columns * side_by_side * width, ceil(filters / columns) * height)
    fitting = min(ceil(side / (GRID_SIDE + GRID_SLACK)), min(height, width) // SMALLEST_TILE)
    return max(1, fitting, min(ceil(side / LARGEST_SIDE), height, width))


def _check_scale(scale: Scale) -> None:
    if isinstance(scale, str) and scale not in ("filter", "layer"):
        raise ValueError(f'scale must be "filter", "layer" or a number; found {scale!r}')


def _columns(filters: int, tile_height: int, tile_width: int) -> int:
    """Columns that make the grid about as high as wide."""
    return min(filters, max(1, ceil(sqrt(filters * tile_height / tile_width) - 1e-9)))


def _compose(
    chunks: Iterable[Tensor],
    shape: tuple[int, ...],
    *,
    shown: int,
    is_rgb: bool,
    scale: Scale,
    largest_tile: int,
    lines: list[str],
    noun: str,
    curve: Base | None = None,
    flags: Flags | None = None,
    is_matrix: bool = False,
) -> Picture:
    """Paint filters on one picture, chunk by chunk; twice over if they share a scale.

    Of ``shape`` (N, C, H, W), all chunks together, the first ``shown`` planes are painted: three by
    three in RGB, or the one row of each as a curve. The scale and what is said of a filter are
    those of all its planes. In a matrix nothing stands between them.
    """
    filters, _, height, width = shape
    beside = shown // 3 if is_rgb else shown
    if curve:
        height = _curve_height(filters, beside, width, largest_tile)
        width = curve_width(width, height)
    rule = 0 if is_matrix else 2 if is_rgb else 1
    wide = beside * width
    if is_matrix:
        columns, zoom = _matrix_arrangement(filters, wide, between=1 if flags is None else 3)
    else:
        columns, zoom = _arrangement(filters, height, wide, largest_tile // max(height, width))
    common = None if scale == "filter" else _common_half_range(chunks, scale)
    painted, half_ranges = [], []
    non_finite: list[bool] = []
    for values in chunks:
        own = largest_magnitude(values) if common is None else common.expand(len(values))
        bad = _non_finite(values)
        drawn = values[:, :shown]
        if curve:
            drawn = draw_curves(drawn[:, :, 0], own, height=height, width=width, base=curve)
        part = None if bad is None else ~drawn.isfinite()
        colours = paint_tiles(drawn, own, is_rgb=is_rgb, zoom=zoom, rule=rule, non_finite=part)
        painted.append(colours)
        half_ranges.append(own)
        non_finite += [False] * len(values) if bad is None else bad.flatten(1).any(1).tolist()
    tiles = to_host(torch.cat(painted))
    del painted
    half_range = torch.cat(half_ranges).cpu()
    tile_height, tile_width = tiles.shape[2:]
    lines = [line for line in lines if line] + non_finite_note(non_finite)
    (low, high), scale_line = scale_note(half_range, scale, noun)
    ends = "0" if curve == "bottom" else low, high
    ramp = torch.arange(ZERO_LEVEL if curve == "bottom" else 1, 256, dtype=torch.uint8)
    bar = ramp[:, None].expand(-1, 3) if is_rgb else diverging(ramp[None])[:, 0].T
    gap = 1 if is_matrix else GAP if beside == 1 else 3 * GAP
    frame = 0 if flags is None else max(1, min(FRAME, tile_height // 16))
    tight = Layout(filters, columns, tile_height, tile_width, gap=gap + 2 * frame)
    legend = None if flags is None else flags.legend
    pixels, layout = framed(tight, [*lines, scale_line], bar, ends, legend)
    canvas = pixels.numpy()
    for i, planes in enumerate(tiles.numpy()):
        if flags is not None and flags.colours[i] is not None:
            canvas[layout.box(i, margin=frame)] = flags.colours[i]
        tile = canvas[layout.box(i)]
        for colour, plane in enumerate(planes):  # one by one: half the time of a permuted copy
            tile[..., colour] = plane
    return Picture(pixels, layout, half_range)


def _arrangement(filters: int, height: int, width: int, largest_zoom: int) -> tuple[int, int]:
    """Columns and enlargement of tiles that make the grid about square and fill the screen."""
    columns = _columns(filters, height, width)
    room = GRID_SIDE // max(columns * width, ceil(filters / columns) * height)
    return columns, max(1, min(room, largest_zoom))


def _curve_height(filters: int, beside: int, points: int, largest: int) -> int:
    """Even, and small enough that the grid is not larger than it may be, if that can be read."""
    for height in range(largest, SMALLEST_CURVE, -2):
        wide = beside * (curve_width(points, height) + GAP)
        columns = _columns(filters, height, wide)
        if max(columns * wide, ceil(filters / columns) * (height + GAP)) <= LARGEST_SIDE:
            return height
    return SMALLEST_CURVE


def _matrix_arrangement(filters: int, width: int, between: int) -> tuple[int, int]:
    """Likewise for rows of a matrix, ``between`` pixels apart: in one block if there is room."""
    for zoom in range(LARGEST_KERNEL, 0, -1):
        columns = ceil(filters / (GRID_SIDE // (zoom + between)))
        if columns * zoom * width <= GRID_SIDE:
            return columns, zoom
    return _columns(filters, 1 + between, width), 1


def _common_half_range(chunks: Iterable[Tensor], scale: Scale) -> Tensor:
    """What all filters share: the largest magnitude of any, and not less than a number given."""
    widest = torch.stack([largest_magnitude(values).amax() for values in chunks]).amax()
    return widest if scale == "layer" else widest.clamp(min=float(scale))


def _non_finite(values: Tensor) -> Tensor | None:
    """Where values are NaN or infinite, bool and of their shape; None where all are finite."""
    # A sum of finite numbers may overflow, so it can only acquit.
    return None if values.sum().isfinite() else ~values.isfinite()

"""The kernel grid, the response grid and the gain grid: one tile for each filter."""

from math import prod

from torch import Tensor

from kernelviz_callback.drawing.arrangement import LARGEST_KERNEL
from kernelviz_callback.drawing.caption_text import (
    Scale,
    kernel_note,
    principal_note,
    response_note,
)
from kernelviz_callback.drawing.cells import stretch, stretch_note
from kernelviz_callback.drawing.painted_grid import PaintedGrid, paint_grid
from kernelviz_callback.drawing.picture import Picture
from kernelviz_callback.drawing.tile_style import (
    GAIN_STYLE,
    Channels,
    TileStyle,
    response_style,
    tile_style,
)
from kernelviz_callback.drawing.verdict_frames import Flags
from kernelviz_callback.filters.planes import as_planes, check_filters
from kernelviz_callback.filters.principal import principal_planes
from kernelviz_callback.filters.responses import ResponseChunks

LARGEST_RESPONSE = 224  # pixels: responses of a small probe are not enlarged beyond this
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
    - A 1-D layer: kernels are bars, the first tap at the left, zero in the middle.
    - A 3-D layer: the slices of a filter stand in a row, each drawn as in a 2-D layer.

    NaN and infinity are striped magenta and black. Weights are enlarged by a whole factor. In a
    kernel that is more than eight times as long as wide, such as 1x64, a weight is not a square but
    a rectangle, and the caption says so.

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
        >>> from torch import randn
        >>> picture = kernel_grid(randn(64, 3, 7, 7), title="conv1")
        >>> picture.tile(0).shape, picture.layout.columns
        (torch.Size([56, 56, 3]), 8)
        >>> kernel_grid(randn(64, 64, 3, 3)).tile(0).shape
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
    note = kernel_note(style, shown)
    if explained is not None:
        note = principal_note(style, count, explained)
    largest_tile = LARGEST_KERNEL
    stretched = None if style.is_curve else stretch_note(*planes.shape[2:])
    if stretched is not None:
        note, planes = f"{note}; {stretched}", stretch(planes)
        largest_tile = _longest_side(planes)
    grid = paint_grid(
        [planes],
        tuple(planes.shape),
        style=style,
        shown=shown,
        scale=scale,
        largest_tile=largest_tile,
        lines=[title, note],
        noun="weight" if explained is None else "principal weight",
        has_frames=flags is not None,
    )
    return grid.compose(flags)


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
    return paint_response_grid(responses, scale=scale, title=title, note=note).compose()


def paint_response_grid(
    responses: Tensor | ResponseChunks, *, scale: Scale = "filter", title: str = "", note: str = ""
) -> PaintedGrid:
    """Do the part of `response_grid` that runs on the device of the responses.

    Args:
        responses: The argument of `response_grid`.
        scale: The option of `kernel_grid`.
        title: The argument of `response_grid`.
        note: The argument of `response_grid`.

    Raises:
        ValueError: In the cases of `response_grid`.
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
    return paint_grid(
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
        >>> from torch import randn
        >>> gain_grid(frequency_gain(randn(16, 1, 31))).tile(0).shape
        torch.Size([56, 129, 3])
    """
    return paint_gain_grid(gains, scale=scale, title=title, note=note).compose()


def paint_gain_grid(
    gains: Tensor, *, scale: Scale = "filter", title: str = "", note: str = ""
) -> PaintedGrid:
    """Do the part of `gain_grid` that runs on the device of the gains.

    Args:
        gains: The argument of `gain_grid`.
        scale: The option of `kernel_grid`.
        title: The argument of `gain_grid`.
        note: The argument of `gain_grid`.

    Raises:
        ValueError: In the cases of `gain_grid`.
    """
    if gains.ndim != 2 or 0 in gains.shape:
        raise ValueError(
            f"expected gains of shape (N, frequencies), not empty; found {tuple(gains.shape)}"
        )
    _check_scale(scale)
    return paint_grid(
        [gains[:, None, None]],
        (len(gains), 1, 1, gains.shape[1]),
        style=GAIN_STYLE,
        shown=1,
        scale=scale,
        largest_tile=LARGEST_KERNEL,
        lines=[title, note],
        noun="gain",
    )


def _longest_side(planes: Tensor) -> int:
    """The long side, in pixels, at which the short side is as long as that of a square kernel."""
    short, long = sorted(planes.shape[-2:])
    return LARGEST_KERNEL * long // short


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

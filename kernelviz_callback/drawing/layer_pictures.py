"""The pictures of a layer that the callback logs, with their captions."""

from math import prod
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from kernelviz_callback.drawing.arrangement import fitting_shrink
from kernelviz_callback.drawing.caption_text import Scale
from kernelviz_callback.drawing.grid import (
    MOST_PLANES,
    kernel_grid,
    paint_gain_grid,
    paint_response_grid,
)
from kernelviz_callback.drawing.painted_grid import PaintedGrid
from kernelviz_callback.drawing.picture import Picture
from kernelviz_callback.drawing.tile_style import response_style
from kernelviz_callback.drawing.verdict_frames import flag_filters
from kernelviz_callback.filters.frequency import frequency_gain
from kernelviz_callback.filters.responses import ResponseChunks, response_size
from kernelviz_callback.filters.words import describe_filters
from kernelviz_callback.health.kernel_health import KernelHealth
from kernelviz_callback.model.convolutions import Geometry
from kernelviz_callback.model.feature_maps import FeatureMap
from kernelviz_callback.probe.probe import Probe

Response: TypeAlias = Literal["channels", "sum"]

# A longer row of response planes cannot be read, so the sum is shown instead, and the caption says
# so. The same holds for layers with more than MOST_PLANES response planes in all.
MOST_RESPONSE_PLANES = 16


def kernel_picture(
    weights: Tensor,
    *,
    layer: str,
    groups: int = 1,
    when: str = "",
    scale: Scale = "filter",
    health: KernelHealth | None = None,
) -> Picture:
    """Picture the filters of a layer, with the layer's name and shape in the caption.

    Args:
        weights: Filters, see `kernel_grid`.
        layer: Name of the layer, for the caption.
        groups: Groups of the convolution, for the caption.
        when: Step and epoch, for the caption.
        scale: The option of `kernel_grid`.
        health: If given, each filter with a verdict has a frame in the verdict's colour.
    """
    title = _title(f"{layer} kernels", weights, groups, when)
    flags = None if health is None else flag_filters(health)
    return kernel_grid(weights, scale=scale, title=title, flags=flags)


def response_picture(
    weights: Tensor,
    geometry: Geometry,
    probe: Probe,
    *,
    layer: str,
    when: str = "",
    response: Response = "channels",
    scale: Scale = "filter",
) -> Picture:
    """Picture the responses of a layer's filters to the probe.

    The filters of a 1-D layer do not read images: for these the picture shows which frequencies
    they pass. For a 3-D layer each slice is convolved with the probe separately.

    Args:
        weights: Shape (N, C, kH, kW), (N, C, k) or (N, C, kD, kH, kW); the work is done on its
            device.
        geometry: The layer's geometry. Its dilation and groups are used; its stride and padding
            are not.
        probe: The fixed image. It is adapted to the channels of the layer.
        layer: Name of the layer, for the caption.
        when: Step and epoch, for the caption.
        response: "channels" for one plane for each input channel, "sum" for the layer's linear
            response (for a 3-D layer, the linear response of each slice).
        scale: The option of `kernel_grid`.

    Raises:
        ValueError: If the probe does not fit the layer.
    """
    return paint_responses(
        weights, geometry, probe, layer=layer, when=when, response=response, scale=scale
    ).compose()


def paint_responses(
    weights: Tensor,
    geometry: Geometry,
    probe: Probe,
    *,
    layer: str,
    when: str = "",
    response: Response = "channels",
    scale: Scale = "filter",
) -> PaintedGrid:
    """Do the part of `response_picture` that runs on the device of the weights.

    Args:
        weights: The argument of `response_picture`.
        geometry: The argument of `response_picture`.
        probe: The argument of `response_picture`.
        layer: The argument of `response_picture`.
        when: The argument of `response_picture`.
        response: The argument of `response_picture`.
        scale: The option of `kernel_grid`.

    Raises:
        ValueError: If the probe does not fit the layer.
    """
    style = response_style(weights.shape)
    if style.is_curve:
        return _paint_gains(weights, geometry, layer=layer, when=when, scale=scale)
    filters, channels, *depth, height, width = weights.shape
    slices = prod(depth)
    probe = probe.covering((height, width), geometry.plane_dilation)
    image = probe.for_channels(channels * geometry.groups).to(weights.device)
    too_many = style.pictures > MOST_RESPONSE_PLANES or style.pictures * filters > MOST_PLANES
    summed = response == "sum" or too_many
    full = response_size(probe.size, (height, width), geometry.plane_dilation)
    shrink = fitting_shrink(filters, slices if summed else style.pictures, *full)
    chunks = ResponseChunks(
        image,
        weights.movedim(2, 1).flatten(0, 1) if depth else weights,
        dilation=geometry.plane_dilation,
        groups=geometry.groups,
        shrink=shrink,
        summed=summed,
    )
    plane = (
        "tile = probe * filter" + (f", summed over {channels} channels" if channels > 1 else "")
        if summed
        else "plane c of a tile = probe[c] * kernel[c]"
    )
    dilation = geometry.plane_dilation
    dilated = f", dilation {dilation}" if prod(dilation) > 1 else ""
    shrunk = f", averaged {shrink}x{shrink}" if shrink > 1 else ""
    source = probe.name
    if len(image) != len(probe.image):
        source += ", in grey" if len(image) == 1 else f", in grey in each of {len(image)} channels"
    if depth:
        plane = f"each slice by itself: {plane}"
    return paint_response_grid(
        _join_slices(chunks, slices) if depth else chunks,
        scale=scale,
        title=_title(f"{layer} responses to {source}", weights, geometry.groups, when),
        note=f"{plane} (stride 1, no padding{dilated}{shrunk})",
    )


def paint_feature_maps(
    found: FeatureMap,
    weights: Tensor,
    probe: Probe,
    *,
    layer: str,
    when: str = "",
    groups: int = 1,
    scale: Scale = "filter",
) -> PaintedGrid:
    """Paint a layer's output when the model reads the probe: red positive, blue negative.

    Args:
        found: The feature maps at the size that they are drawn at, see `feature_maps` and
            `map_shrink`.
        weights: Weights of the layer, shape (N, C, kH, kW), for the caption.
        probe: The image that the model has read.
        layer: Name of the layer, for the caption.
        when: Step and epoch, for the caption.
        groups: Groups of the convolution, for the caption.
        scale: The option of `kernel_grid`.
    """
    averaged = f", averaged {found.shrink}x{found.shrink}" if found.shrink > 1 else ""
    return paint_response_grid(
        found.values[:, None],
        scale=scale,
        title=_title(f"feature maps of {layer} for {probe.name}", weights, groups, when),
        note=f"tile = output of the filter in the model, in evaluation mode, with bias{averaged}",
    )


def map_shrink(filters: int, height: int, width: int) -> int:
    """Return the whole factor by which feature maps are averaged so that they fit a picture.

    Args:
        filters: Number of feature maps.
        height: Height of a feature map, in pixels.
        width: Width of a feature map, in pixels.
    """
    return fitting_shrink(filters, 1, height, width)


def _paint_gains(
    weights: Tensor, geometry: Geometry, *, layer: str, when: str, scale: Scale
) -> PaintedGrid:
    _, channels, taps = weights.shape
    [dilation] = geometry.dilation
    of_channels = f", root of the squares summed over {channels} channels" if channels > 1 else ""
    dilated = f", dilation {dilation}" if dilation > 1 else ""
    flat = ", flat, for there is one tap" if taps == 1 else ""
    return paint_gain_grid(
        frequency_gain(weights, dilation=dilation),
        scale=scale,
        title=_title(f"{layer} frequency response", weights, geometry.groups, when),
        note=f"tile = gain |H(f)|, f from 0 to half the sampling rate of the layer's input"
        f"{of_channels}{dilated}{flat}",
    )


def _join_slices(chunks: ResponseChunks, slices: int) -> Tensor:
    """Turn the responses of single slices, (N kD, C, H, W), into (N, C, kD, H, W)."""
    every = torch.cat(list(chunks))
    return every.reshape(-1, slices, *every.shape[1:]).movedim(1, 2)


def _title(what: str, weights: Tensor, groups: int, when: str) -> str:
    own = f"{groups} groups, each with its own channels" if groups > 1 else ""
    parts = (what, describe_filters(weights.shape), own, when)
    return " · ".join(part for part in parts if part)

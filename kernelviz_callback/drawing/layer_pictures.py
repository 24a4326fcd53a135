"""The two pictures of a layer in a snapshot, captioned: what the callback logs."""

from math import prod
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from kernelviz_callback.drawing.grid import (
    MOST_PLANES,
    fitting_shrink,
    gain_grid,
    kernel_grid,
    response_grid,
)
from kernelviz_callback.drawing.notes import Scale
from kernelviz_callback.drawing.picture import Picture
from kernelviz_callback.drawing.verdict_frames import flag_filters
from kernelviz_callback.filters.frequency import frequency_gain
from kernelviz_callback.filters.responses import ResponseChunks, response_size
from kernelviz_callback.health.kernel_health import KernelHealth
from kernelviz_callback.model.convolutions import Geometry
from kernelviz_callback.model.feature_maps import FeatureMap
from kernelviz_callback.probe.probe import Probe

Response: TypeAlias = Literal["channels", "sum"]

# A row of more response planes than this says nothing: such a layer shows the sum, and says so, as
# does one of so many filters that their planes would not fit a picture.
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
    """Picture the filters of a layer, captioned with its name, shape and ``when``.

    With ``health``, filters that have a verdict are framed in its colour.
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
    """Picture what the filters of a layer make of the probe.

    Those of a 1-D layer see no images: pictured is which frequencies they let through. Of a 3-D
    layer each slice is convolved with the probe by itself.

    Args:
        weights: Shape (N, C, kH, kW), (N, C, k) or (N, C, kD, kH, kW); the work is done on its
            device.
        geometry: Of the layer; its own stride and padding are left aside, dilation and groups
            count.
        probe: Adapted to the channels of the layer.
        layer: Name, for the caption.
        when: Step and epoch, for the caption.
        response: "channels" for one plane an input channel, "sum" for the layer's linear response
            (of a 3-D layer, for that of each slice).
        scale: As for `kernel_grid`.

    Raises:
        ValueError: If the probe does not fit the layer.
    """
    if weights.ndim == 3:
        return _gain_picture(weights, geometry, layer=layer, when=when, scale=scale)
    filters, channels, *depth, height, width = weights.shape
    slices = prod(depth)
    image = probe.for_channels(channels * geometry.groups).to(weights.device)
    beside = slices * (1 if channels == 3 else channels)
    too_many = beside > MOST_RESPONSE_PLANES or beside * filters > MOST_PLANES
    summed = response == "sum" or too_many
    full = response_size(probe.size, (height, width), geometry.plane_dilation)
    pictures = slices * (1 if summed or channels == 3 else channels)
    shrink = fitting_shrink(filters, pictures, *full)
    chunks = ResponseChunks(
        image,
        weights.movedim(2, 1).flatten(0, 1) if depth else weights,
        dilation=geometry.plane_dilation,
        groups=geometry.groups,
        shrink=shrink,
        summed=summed,
    )
    plane = (
        f"tile = probe * filter, summed over {channels} channels"
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
    return response_grid(
        _by_filter(chunks, slices) if depth else chunks,
        scale=scale,
        title=_title(f"{layer} responses to {source}", weights, geometry.groups, when),
        note=f"{plane} (stride 1, no padding{dilated}{shrunk})",
    )


def _gain_picture(
    weights: Tensor, geometry: Geometry, *, layer: str, when: str, scale: Scale
) -> Picture:
    _, channels, taps = weights.shape
    [dilation] = geometry.dilation
    of_channels = f", root of the squares summed over {channels} channels" if channels > 1 else ""
    dilated = f", dilation {dilation}" if dilation > 1 else ""
    flat = ", flat, for there is one tap" if taps == 1 else ""
    return gain_grid(
        frequency_gain(weights, dilation=dilation),
        scale=scale,
        title=_title(f"{layer} frequency response", weights, geometry.groups, when),
        note=f"tile = gain |H(f)|, f from 0 to half the sampling rate of the layer's input"
        f"{of_channels}{dilated}{flat}",
    )


def _by_filter(chunks: ResponseChunks, slices: int) -> Tensor:
    """The responses of single slices, (N kD, C, H, W), as (N, C, kD, H, W)."""
    every = torch.cat(list(chunks))
    return every.reshape(-1, slices, *every.shape[1:]).movedim(1, 2)


def feature_map_picture(
    found: FeatureMap,
    weights: Tensor,
    probe: Probe,
    *,
    layer: str,
    when: str = "",
    groups: int = 1,
    scale: Scale = "filter",
) -> Picture:
    """Picture what a layer gives out when the model reads the probe: red positive, blue negative.

    Args:
        found: At the size that it is to be drawn, see `feature_maps` and `map_shrink`.
        weights: Shape (N, C, kH, kW), of the layer.
        probe: That the model has read.
        layer: Name, for the caption.
        when: Step and epoch, for the caption.
        groups: Of the layer.
        scale: As for `kernel_grid`.
    """
    averaged = f", averaged {found.shrink}x{found.shrink}" if found.shrink > 1 else ""
    return response_grid(
        found.values[:, None],
        scale=scale,
        title=_title(f"feature maps of {layer} for {probe.name}", weights, groups, when),
        note=f"tile = output of the filter in the model, in evaluation mode, with bias{averaged}",
    )


def map_shrink(filters: int, height: int, width: int) -> int:
    """By what whole factor to average feature maps of this size so that they fit a picture."""
    return fitting_shrink(filters, 1, height, width)


def _title(what: str, weights: Tensor, groups: int, when: str) -> str:
    filters, *shape = weights.shape
    count = "1 filter" if filters == 1 else f"{filters} filters"
    own = f"{groups} groups, each with its own channels" if groups > 1 else ""
    parts = (what, f"{count} {'x'.join(map(str, shape))}", own, when)
    return " · ".join(part for part in parts if part)

"""The two pictures of a layer in a snapshot, captioned: what the callback logs."""

from math import prod
from typing import Literal, TypeAlias

from torch import Tensor

from kernelviz_callback.filters import Geometry
from kernelviz_callback.flags import flag_filters
from kernelviz_callback.grid import (
    MOST_PLANES,
    Scale,
    fitting_shrink,
    kernel_grid,
    response_grid,
)
from kernelviz_callback.health import KernelHealth
from kernelviz_callback.picture import Picture
from kernelviz_callback.probe import Probe
from kernelviz_callback.responses import ResponseChunks, response_size
from kernelviz_callback.running import FeatureMap

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

    Args:
        weights: Shape (N, C, kH, kW); the convolution runs on its device.
        geometry: Of the layer; its own stride and padding are left aside, dilation and groups
            count.
        probe: Adapted to the channels of the layer.
        layer: Name, for the caption.
        when: Step and epoch, for the caption.
        response: "channels" for one plane an input channel, "sum" for the layer's linear response.
        scale: As for `kernel_grid`.

    Raises:
        ValueError: If the probe does not fit the layer.
    """
    filters, channels = weights.shape[:2]
    image = probe.for_channels(channels * geometry.groups).to(weights.device)
    beside = 1 if channels == 3 else channels
    too_many = beside > MOST_RESPONSE_PLANES or beside * filters > MOST_PLANES
    summed = response == "sum" or too_many
    planes = 1 if summed else channels
    full = response_size(probe.size, _kernel_size(weights), geometry.dilation)
    shrink = fitting_shrink(filters, planes, *full)
    chunks = ResponseChunks(
        image,
        weights,
        dilation=geometry.dilation,
        groups=geometry.groups,
        shrink=shrink,
        summed=summed,
    )
    plane = (
        f"tile = probe * filter, summed over {channels} channels"
        if summed
        else "plane c of a tile = probe[c] * kernel[c]"
    )
    dilated = f", dilation {geometry.dilation}" if prod(geometry.dilation) > 1 else ""
    shrunk = f", averaged {shrink}x{shrink}" if shrink > 1 else ""
    source = probe.name
    if len(image) != len(probe.image):
        source += ", in grey" if len(image) == 1 else f", in grey in each of {len(image)} channels"
    return response_grid(
        chunks,
        scale=scale,
        title=_title(f"{layer} responses to {source}", weights, geometry.groups, when),
        note=f"{plane} (stride 1, no padding{dilated}{shrunk})",
    )


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


def check_fit(shape: tuple[int, int, int, int], geometry: Geometry, probe: Probe) -> None:
    """Raise a `ValueError` unless the probe can be convolved with filters of this shape.

    Args:
        shape: (N, C, kH, kW) of the weights.
        geometry: Of the layer.
        probe: Not adapted yet.
    """
    _, channels, height, width = shape
    probe.for_channels(channels * geometry.groups)
    response_size(probe.size, (height, width), geometry.dilation)


def _kernel_size(weights: Tensor) -> tuple[int, int]:
    return weights.shape[2], weights.shape[3]


def _title(what: str, weights: Tensor, groups: int, when: str) -> str:
    filters, *shape = weights.shape
    count = "1 filter" if filters == 1 else f"{filters} filters"
    own = f"{groups} groups, each with its own channels" if groups > 1 else ""
    parts = (what, f"{count} {'x'.join(map(str, shape))}", own, when)
    return " · ".join(part for part in parts if part)

"""What a film strip and an animation say of themselves: which filters, when, on what scale."""

from math import prod
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kernelviz_callback.drawing.animation.sampling import Reel, ReelScale
from kernelviz_callback.drawing.caption import framed
from kernelviz_callback.drawing.colour import diverging
from kernelviz_callback.drawing.picture import Layout

Canvas: TypeAlias = npt.NDArray[np.uint8]

HEADER = 19  # pixels: where a grid has the numbers of its columns
_MARGIN = 8


def captioned(
    body: Canvas, reel: Reel, what: str, *, shown: int, half_ranges: Tensor, scale: ReelScale
) -> tuple[Tensor, int, int]:
    """Put a caption above a picture of a reel.

    Args:
        body: The picture, shape (H, W, 3); its first 19 rows are a header.
        reel: What it shows.
        what: See `caption_lines`; likewise ``shown``.
        shown: Shots in it.
        half_ranges: The magnitude at the ends of each filter's colours.
        scale: Whether all filters share one.

    Returns:
        Shape (H', W', 3), uint8, and the row and the column at which the body begins.
    """
    note, ends = _scale_note(half_ranges, scale)
    lines = [*caption_lines(reel, what, shown), note]
    # The body is the one tile of a grid, and covers the numbers of that.
    height, width = body.shape[:2]
    layout = Layout(1, 1, height - HEADER, width)
    pixels, placed = framed(layout, lines, _colour_bar(reel.cut.is_rgb), ends)
    top = placed.top - HEADER
    pixels[top : top + height, _MARGIN : _MARGIN + width] = torch.from_numpy(body)
    return pixels, top, _MARGIN


def caption_lines(reel: Reel, what: str, shown: int) -> list[str]:
    """Tell what is shown, in lines.

    Args:
        reel: Which part of which layer.
        what: "film" or "evolution".
        shown: How many shots of it are.

    Example:
        >>> from kernelviz_callback.drawing.animation.sampling import Reading, gather_reels
        >>> read = lambda step: Reading(0, {"conv": torch.ones(8, 3, 5, 5)})
        >>> [reel] = gather_reels(range(100), read).values()
        >>> for line in caption_lines(reel, "film", shown=12):
        ...     print(line)
        conv film · 8 filters 3x5x5
        12 of 100 snapshots, steps 0 to 99, early ones denser
        RGB = input channels 0, 1, 2; grey is zero
    """
    lines = [f"{reel.layer} {what} · {_filters(reel)}", _snapshots(reel, shown), _tiles(reel)]
    return lines + _clipped(reel) + _non_finite(reel)


def _scale_note(half_ranges: Tensor, scale: ReelScale) -> tuple[str, tuple[str, str]]:
    """The line beside the colour bar, and the numbers at the bar's ends."""
    high, low = half_ranges.max().item(), half_ranges.min().item()
    if scale == "layer":
        return "one scale for all, in units of the weights", (f"-{high:.3g}", f"+{high:.3g}")
    return (
        f"each filter by its own largest |weight| of all steps, max = {low:.3g} to {high:.3g}",
        ("-max", "+max"),
    )


def _colour_bar(is_rgb: bool) -> Tensor:
    """The colours of the scale from its low to its high end, shape (255, 3), uint8."""
    ramp = torch.arange(1, 256, dtype=torch.uint8)
    return ramp[:, None].expand(-1, 3) if is_rgb else diverging(ramp[None])[:, 0].T


def _filters(reel: Reel) -> str:
    count, *kernel = reel.cut.shape
    drawn, size = len(reel.cut.filters), "x".join(map(str, kernel))
    if drawn < count:
        return f"{drawn} of {count} filters {size}, those that changed most"
    return f"{count} filter{'s' * (count > 1)} {size}"


def _snapshots(reel: Reel, shown: int) -> str:
    first, last = reel.shots[0].step, reel.shots[-1].step
    readable = reel.taken - reel.unread
    if reel.taken == 1:
        text = f"the only snapshot, step {first}"
    elif shown == readable:
        text = f"all {shown} snapshots, steps {first} to {last}"
    else:
        text = f"{shown} of {readable} snapshots, steps {first} to {last}, early ones denser"
    return f"{text}; {reel.unread} more could not be read" if reel.unread else text


def _tiles(reel: Reel) -> str:
    cut = reel.cut
    count, depth = cut.shape[1], prod(cut.shape[2:-2])
    colours = "red is positive, blue negative, white zero"
    if cut.is_curve:
        colours = "taps left to right, red above zero, blue below"
    parts = []
    if depth > 1:
        some = f"slices 0 to {cut.slices - 1}" if cut.slices > 1 else "slice 0"
        parts.append(f"{some} of {depth}")
    if cut.channels is None:
        kind = {1: "curve", 2: "plane", 3: "volume"}[len(cut.shape) - 2]
        parts.append(f"the principal {kind} of {count} channels")
    elif count > 1 and not cut.is_rgb:
        parts.append(f"input channels 0 to {cut.channels - 1} of {count}")
    if cut.is_rgb:
        colours = ", ".join([*parts, "RGB = input channels 0, 1, 2; grey is zero"])
        return f"each tile: {colours}" if parts else colours
    return f"each tile: {' of '.join(parts)}; {colours}" if parts else colours


def _clipped(reel: Reel) -> list[str]:
    if reel.clipped is None:
        return []
    step, magnitude = reel.clipped
    return [f"clipped: the largest |weight| at step {step} reaches {magnitude:.2g}"]


def _non_finite(reel: Reel) -> list[str]:
    is_bad = torch.stack([~s.weights.isfinite().flatten(1).all(1) for s in reel.shots]).any(0)
    bad = [filter_ for filter_, bad in zip(reel.cut.filters, is_bad.tolist(), strict=True) if bad]
    if not bad:
        return []
    first = ", ".join(map(str, bad[:8])) + (", ..." if len(bad) > 8 else "")
    return [f"NaN or infinite in {len(bad)} of {len(is_bad)} filters (striped magenta): {first}"]

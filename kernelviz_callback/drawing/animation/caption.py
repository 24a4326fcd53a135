"""The caption of a film strip or an animation: which filters, which snapshots, which scale."""

from math import prod
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kernelviz_callback.drawing.animation.crop import Crop
from kernelviz_callback.drawing.animation.sampling import FilterSequence, SequenceScale
from kernelviz_callback.drawing.caption_layout import draw_caption
from kernelviz_callback.drawing.caption_text import layer_title, non_finite_note
from kernelviz_callback.drawing.cells import stretch_note
from kernelviz_callback.drawing.picture import Layout
from kernelviz_callback.drawing.tile_style import colour_bar
from kernelviz_callback.filters.words import describe_filters

Canvas: TypeAlias = npt.NDArray[np.uint8]

HEADER = 19  # pixels: the height of the column numbers of a grid
_MARGIN = 8
_SIGNED = "red is positive, blue negative, white zero"


def add_caption(
    body: Canvas,
    sequence: FilterSequence,
    what: str,
    *,
    shown: int,
    half_ranges: Tensor,
    scale: SequenceScale,
) -> tuple[Tensor, int, int]:
    """Put a caption above a picture of a sequence.

    Args:
        body: The picture, shape (H, W, 3). Its first `HEADER` rows are a header.
        sequence: The sequence in the picture.
        what: What the picture is, see `caption_lines`.
        shown: Number of frames in the picture.
        half_ranges: The magnitude at the ends of each filter's colour scale, shape (filters,).
        scale: Whether all filters share one scale.

    Returns:
        The picture with its caption, shape (H', W', 3), uint8, and the row and the column of its
        pixels at which the body begins.
    """
    note, ends = _scale_note(half_ranges, scale)
    lines = [*caption_lines(sequence, what, shown), note]
    # To the caption, the body is the one tile of a grid. The body's header covers the column
    # numbers of this grid.
    height, width = body.shape[:2]
    layout = Layout(1, 1, height - HEADER, width)
    pixels, placed = draw_caption(layout, lines, colour_bar(sequence.crop.style), ends)
    top = placed.top - HEADER
    pixels[top : top + height, _MARGIN : _MARGIN + width] = torch.from_numpy(body)
    return pixels, top, _MARGIN


def caption_lines(sequence: FilterSequence, what: str, shown: int) -> list[str]:
    """Write the lines of a caption, without the line on the scale.

    Args:
        sequence: The sequence in the picture.
        what: "film" or "evolution".
        shown: Number of frames in the picture.

    Example:
        >>> from kernelviz_callback.drawing.animation.sampling import Reading, read_sequences
        >>> read = lambda step: Reading(0, {"conv": torch.ones(8, 3, 5, 5)})
        >>> [sequence] = read_sequences(range(100), read).values()
        >>> for line in caption_lines(sequence, "film", shown=12):
        ...     print(line)
        conv film · 8 filters 3x5x5
        12 of 100 snapshots, steps 0 to 99, early ones denser
        RGB = input channels 0, 1, 2; grey is zero
    """
    title = layer_title(sequence.layer, is_unknown=sequence.is_unknown)
    return [
        f"{title} {what} · {_filters(sequence)}",
        _snapshots(sequence, shown),
        _tiles(sequence.crop),
        *_clipped(sequence),
        *_non_finite(sequence),
    ]


def _scale_note(half_ranges: Tensor, scale: SequenceScale) -> tuple[str, tuple[str, str]]:
    """Write the line beside the colour bar, and the words at the bar's ends."""
    high, low = half_ranges.max().item(), half_ranges.min().item()
    if scale == "layer":
        return "one scale for all, in units of the weights", (f"-{high:.3g}", f"+{high:.3g}")
    return (
        f"each filter by its own largest |weight| of all steps, max = {low:.3g} to {high:.3g}",
        ("-max", "+max"),
    )


def _filters(sequence: FilterSequence) -> str:
    crop = sequence.crop
    drawn = len(crop.filters)
    if drawn < crop.shape[0]:
        return f"{drawn} of {describe_filters(crop.shape)}, those that changed most"
    return describe_filters(crop.shape)


def _snapshots(sequence: FilterSequence, shown: int) -> str:
    first, last = sequence.frames[0].step, sequence.frames[-1].step
    readable = sequence.available - sequence.unreadable
    if sequence.available == 1:
        text = f"the only snapshot, step {first}"
    elif shown == readable:
        text = f"all {shown} snapshots, steps {first} to {last}"
    else:
        text = f"{shown} of {readable} snapshots, steps {first} to {last}, early ones denser"
    if sequence.unreadable:
        text += f"; {sequence.unreadable} more could not be read"
    return text


def _tiles(crop: Crop) -> str:
    style = crop.style
    count, depth = crop.shape[1], prod(crop.shape[2:-2])
    colours = _SIGNED
    if style.is_curve:
        colours = "taps left to right, red above zero, blue below"
    elif (stretched := stretch_note(*crop.kernel_size)) is not None:
        colours += f"; {stretched}"
    parts = []
    if depth > 1:
        shown = style.slices or 1
        some = f"slices 0 to {shown - 1}" if shown > 1 else "slice 0"
        parts.append(f"{some} of {depth}")
    if style.is_principal:
        kind = {1: "curve", 2: "plane", 3: "volume"}[len(crop.shape) - 2]
        parts.append(f"the principal {kind} of {count} channels")
    elif count > 1 and not style.is_rgb:
        parts.append(f"input channels 0 to {style.channels - 1} of {count}")
    if style.is_rgb:
        rgb = colours.replace(_SIGNED, "RGB = input channels 0, 1, 2; grey is zero")
        colours = ", ".join([*parts, rgb])
        return f"each tile: {colours}" if parts else colours
    return f"each tile: {' of '.join(parts)}; {colours}" if parts else colours


def _clipped(sequence: FilterSequence) -> list[str]:
    if sequence.clipped is None:
        return []
    step, magnitude = sequence.clipped
    return [f"clipped: the largest |weight| at step {step} reaches {magnitude:.2g}"]


def _non_finite(sequence: FilterSequence) -> list[str]:
    is_bad = torch.stack([~f.weights.isfinite().flatten(1).all(1) for f in sequence.frames]).any(0)
    filters = sequence.crop.filters
    bad = [number for number, bad in zip(filters, is_bad.tolist(), strict=True) if bad]
    return non_finite_note(bad, len(filters))

"""The lines below the title of a grid.

They explain how to read a tile, describe the colour scale, and name filters with NaN or infinity.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from torch import Tensor

from kernelviz_callback.drawing.tile_style import TileStyle

Scale: TypeAlias = Literal["filter", "layer"] | float

_SIGNED = "red is positive, blue negative, white zero"


def layer_title(layer: str, *, is_unknown: bool) -> str:
    """Name a layer in a caption.

    Args:
        layer: Name of the layer.
        is_unknown: Whether the layer may multiply its input with other weights than those that are
            drawn, see `Kernel.unknown`.

    Example:
        >>> layer_title("conv1", is_unknown=True)
        'conv1 (weights as stored)'
    """
    return f"{layer} (weights as stored)" if is_unknown else layer


def kernel_note(style: TileStyle, shown: int) -> str:
    """Explain how to read the kernels of a layer.

    Args:
        style: How the kernels are drawn. For principal planes use `principal_note`.
        shown: Number of planes of each filter that are drawn. For a 3-D filter, this is the number
            of slices times the number of channels.
    """
    if style.kind == "matrix":
        return (
            f"1x1: each row is a filter, its weights for the input channels left to right "
            f"({_part(shown, style.channels)}); {_SIGNED}"
        )
    if style.slices is not None:
        return _slices_note("kernels", style, shown, style.slices)
    if style.is_curve:
        curves = "a curve is the taps left to right, red above zero, blue below"
        return curves if style.channels == 1 else f"{_row_note('kernels', style, shown)}; {curves}"
    return _tile_note("kernels", style, shown)


def response_note(style: TileStyle) -> str:
    """Explain how to read the responses of a layer. All channels and slices must be drawn."""
    if style.slices is not None:
        return _slices_note("responses", style, style.channels * style.slices, style.slices)
    return _tile_note("responses", style, style.channels)


def principal_note(style: TileStyle, channels: int, explained: Tensor) -> str:
    """Explain how to read principal planes, and how much of a filter they explain.

    Args:
        style: How the planes are drawn.
        channels: Number of channels of each filter.
        explained: For each filter, the share that its principal plane explains; NaN for a filter
            without such a share. See `PrincipalPlanes`.
    """
    known = explained[~explained.isnan()]
    share = f", explaining {known.median().item():.0%} of a filter (median)" if len(known) else ""
    if style.is_curve:
        curve = "taps left to right, red above zero, blue below"
        return f"tile = principal curve of {channels} channels{share}; {curve}"
    if style.slices is None:
        return f"tile = principal plane of {channels} channels{share}; {_SIGNED}"
    slices = f", its {style.slices} slices left to right" if style.slices > 1 else ""
    return f"tile = principal volume of {channels} channels{share}{slices}; {_SIGNED}"


def scale_note(half_ranges: Tensor, scale: Scale, noun: str) -> tuple[tuple[str, str], str]:
    """Write the words at the ends of the colour bar, and the line that explains the scale.

    Args:
        half_ranges: The magnitude at the ends of each tile's scale, shape (N,).
        scale: The option of `kernel_grid`.
        noun: Name of the numbers that are drawn, in the singular: "weight" for example.

    Returns:
        The words at the low end and at the high end of the bar, and the line of the caption.
    """
    high = half_ranges.max().item()
    if scale == "filter":
        low = half_ranges.min().item()
        note = f"each tile by its own largest |{noun}|, max = {low:.3g} to {high:.3g}"
        return ("-max", "+max"), note
    extent = "layer" if scale == "layer" else "run"
    return (f"-{high:.3g}", f"+{high:.3g}"), f"one scale for the {extent}, in units of the {noun}s"


def non_finite_note(bad: Sequence[int], count: int) -> list[str]:
    """Name the first eight filters with NaN or infinity in one line; no line if there are none.

    Args:
        bad: Numbers of all filters with NaN or infinity, ascending.
        count: Number of filters in the picture.
    """
    if not bad:
        return []
    first = ", ".join(map(str, bad[:8])) + (", ..." if len(bad) > 8 else "")
    return [f"NaN or infinite in {len(bad)} of {count} filters (striped magenta): {first}"]


def _tile_note(what: str, style: TileStyle, shown: int) -> str:
    if style.is_rgb:
        return f"RGB = the {what} of input channels 0, 1, 2; grey is zero"
    return _SIGNED if style.channels == 1 else _row_note(what, style, shown)


def _row_note(what: str, style: TileStyle, shown: int) -> str:
    return (
        f"each row of {shown}: the {what} of one filter, input channels left to right "
        f"({_part(shown, style.channels)})"
    )


def _slices_note(what: str, style: TileStyle, shown: int, slices: int) -> str:
    some = _part(shown // style.channels, slices)
    row = f"each row: the {what} of one filter, slice by slice ({some})"
    if style.is_rgb:
        return f"{row}, RGB = input channels 0, 1, 2; grey is zero"
    if style.channels == 1:
        return f"{row}; {_SIGNED}"
    return (
        f"each row of {shown}: the {what} of one filter, slice by slice ({some}), "
        f"{style.channels} input channels of each; {_SIGNED}"
    )


def _part(shown: int, whole: int) -> str:
    return f"{shown} of {whole}" if shown < whole else f"{whole}"

"""What a grid says below its title: how to read a tile, on which scale, and what is broken."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from torch import Tensor

Scale: TypeAlias = Literal["filter", "layer"] | float

_SIGNED = "red is positive, blue negative, white zero"


def kernel_note(shape: Sequence[int], shown: int, *, is_matrix: bool = False) -> str:
    """How to read the kernels of a layer.

    Args:
        shape: Of its weights: (N, C, kH, kW), (N, C, k) or (N, C, kD, kH, kW).
        shown: How many planes of each filter, slices times channels of a 3-D one.
        is_matrix: Whether they are the rows of a matrix.
    """
    channels = shape[1]
    if is_matrix:
        return (
            f"1x1: each row is a filter, its weights for the input channels left to right "
            f"({_part(shown, channels)}); {_SIGNED}"
        )
    if len(shape) == 5:
        return _slices_note("kernels", channels, shown, shape[2])
    if len(shape) == 3:
        curves = "a curve is the taps left to right, red above zero, blue below"
        return curves if channels == 1 else f"{_row_note('kernels', shown, channels)}; {curves}"
    return _tile_note("kernels", shown, channels)


def response_note(shape: Sequence[int]) -> str:
    """How to read responses of shape (N, C, H, W) or (N, C, kD, H, W)."""
    if len(shape) == 5:
        return _slices_note("responses", shape[1], shape[1] * shape[2], shape[2])
    return _tile_note("responses", shape[1], shape[1])


def principal_note(channels: int, kernel: Sequence[int], explained: Tensor) -> str:
    """How to read principal planes of so many channels, and how much they tell.

    Args:
        channels: Of each filter.
        kernel: Its size.
        explained: See `PrincipalPlanes`.
    """
    known = explained[~explained.isnan()]
    share = f", explaining {known.median().item():.0%} of a filter (median)" if len(known) else ""
    if len(kernel) == 1:
        curve = "taps left to right, red above zero, blue below"
        return f"tile = principal curve of {channels} channels{share}; {curve}"
    if len(kernel) == 3:
        kind = "volume"
        slices = f", its {kernel[0]} slices left to right" if kernel[0] > 1 else ""
    else:
        kind, slices = "plane", ""
    return f"tile = principal {kind} of {channels} channels{share}{slices}; {_SIGNED}"


def scale_note(half_ranges: Tensor, scale: Scale, noun: str) -> tuple[tuple[str, str], str]:
    """The words at the ends of the colour bar, and what they stand for.

    Args:
        half_ranges: Shape (N,), of the tiles.
        scale: See `kernel_grid`.
        noun: What is painted: "weight", "response".
    """
    high = half_ranges.max().item()
    if scale == "filter":
        low = half_ranges.min().item()
        note = f"each tile by its own largest |{noun}|, max = {low:.3g} to {high:.3g}"
        return ("-max", "+max"), note
    extent = "layer" if scale == "layer" else "run"
    return (f"-{high:.3g}", f"+{high:.3g}"), f"one scale for the {extent}, in units of the {noun}s"


def non_finite_note(is_non_finite: Sequence[bool]) -> list[str]:
    """The line that tells of filters with NaN or infinity, if there are any."""
    bad = [i for i, is_bad in enumerate(is_non_finite) if is_bad]
    if not bad:
        return []
    first = ", ".join(map(str, bad[:8])) + (", ..." if len(bad) > 8 else "")
    filters = len(is_non_finite)
    return [f"NaN or infinite in {len(bad)} of {filters} filters (striped magenta): {first}"]


def _tile_note(what: str, shown: int, channels: int) -> str:
    if channels == 3:
        return f"RGB = the {what} of input channels 0, 1, 2; grey is zero"
    return _SIGNED if channels == 1 else _row_note(what, shown, channels)


def _row_note(what: str, shown: int, channels: int) -> str:
    return (
        f"each row of {shown}: the {what} of one filter, input channels left to right "
        f"({_part(shown, channels)})"
    )


def _slices_note(what: str, channels: int, shown: int, slices: int) -> str:
    """How to read the ``shown`` planes of a filter of so many slices and channels."""
    some = _part(shown // channels, slices)
    row = f"each row: the {what} of one filter, slice by slice ({some})"
    if channels == 3:
        return f"{row}, RGB = input channels 0, 1, 2; grey is zero"
    if channels == 1:
        return f"{row}; {_SIGNED}"
    return (
        f"each row of {shown}: the {what} of one filter, slice by slice ({some}), {channels} input "
        f"channels of each; {_SIGNED}"
    )


def _part(shown: int, whole: int) -> str:
    return f"{shown} of {whole}" if shown < whole else f"{whole}"

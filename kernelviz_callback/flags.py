"""Verdicts as colours: one for every filter that has any, and what they stand for."""

from dataclasses import dataclass

from kernelviz_callback.health import KernelHealth
from kernelviz_callback.verdicts import VERDICT_NAMES, VerdictName

Colour = tuple[int, int, int]

# Okabe & Ito's colours, told apart with any colour vision, and magenta as in the stripes of what is
# not finite. Noise, which most filters begin as, is the least conspicuous.
VERDICT_COLOURS: dict[VerdictName, Colour] = {
    "non-finite": (255, 0, 255),
    "near-zero": (213, 94, 0),
    "silent": (240, 228, 66),
    "duplicate": (86, 180, 233),
    "dominating": (204, 121, 167),
    "frozen": (0, 158, 115),
    "noise-like": (125, 125, 135),
}


@dataclass(frozen=True)
class Flags:
    """What marks the tiles of a grid.

    Attributes:
        colours: Of the frame of every tile, None for no frame.
        legend: Colours and what they stand for.
    """

    colours: tuple[Colour | None, ...]
    legend: tuple[tuple[Colour, str], ...]


def flag_filters(health: KernelHealth) -> Flags:
    """Mark every filter with its gravest verdict, and count the filters of each.

    Example:
        >>> from kernelviz_callback import kernel_health
        >>> weights = torch.randn(4, 3, 3, 3)
        >>> weights[2] = 0
        >>> flag_filters(kernel_health(weights)).legend
        (((213, 94, 0), '1 near-zero'),)
    """
    counts = [(name, len(health.flagged(name))) for name in VERDICT_NAMES]
    return Flags(
        colours=tuple(VERDICT_COLOURS[name] if name else None for name in gravest(health)),
        legend=tuple((VERDICT_COLOURS[name], f"{n} {name}") for name, n in counts if n),
    )


def gravest(health: KernelHealth) -> list[VerdictName | None]:
    """The gravest verdict of every filter, None for a healthy one."""
    found: list[VerdictName | None] = [None] * health.shape[0]
    for verdict in reversed(health.verdicts):
        found[verdict.filter] = verdict.name
    return found

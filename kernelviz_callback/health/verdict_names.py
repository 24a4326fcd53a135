"""What may be wrong with a filter: the names of the verdicts, and their colours."""

from typing import Literal, TypeAlias, get_args

VerdictName: TypeAlias = Literal[
    "non-finite", "near-zero", "silent", "duplicate", "dominating", "frozen", "noise-like"
]
# From the gravest to the mildest: where there is room for one, the first is shown.
VERDICT_NAMES: tuple[VerdictName, ...] = get_args(VerdictName)

Colour: TypeAlias = tuple[int, int, int]

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

"""The names of the verdicts on filters, and their colours."""

from typing import Literal, TypeAlias, get_args

VerdictName: TypeAlias = Literal[
    "non-finite", "near-zero", "silent", "duplicate", "dominating", "frozen", "noise-like"
]
# The most serious verdict is first. If only one verdict of a filter can be shown, it is the first.
VERDICT_NAMES: tuple[VerdictName, ...] = get_args(VerdictName)

Colour: TypeAlias = tuple[int, int, int]

# The colours of Okabe & Ito can be distinguished with any colour vision. Magenta is also the colour
# of values that are not finite in pictures. Noise is grey, because most filters are noise at first.
VERDICT_COLOURS: dict[VerdictName, Colour] = {
    "non-finite": (255, 0, 255),
    "near-zero": (213, 94, 0),
    "silent": (240, 228, 66),
    "duplicate": (86, 180, 233),
    "dominating": (204, 121, 167),
    "frozen": (0, 158, 115),
    "noise-like": (125, 125, 135),
}

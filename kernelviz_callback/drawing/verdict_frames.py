"""Frames around the tiles of filters that have a verdict, and their legend."""

from dataclasses import dataclass

from kernelviz_callback.health.kernel_health import KernelHealth
from kernelviz_callback.health.missing_numbers import withheld_verdicts
from kernelviz_callback.health.verdict_names import VERDICT_COLOURS, VERDICT_NAMES, Colour


@dataclass(frozen=True)
class Flags:
    """The frames around the tiles of a grid.

    Attributes:
        colours: Colour of the frame of each tile, None for no frame.
        legend: Colours and their meaning; the colour is None for a remark without a colour.
        remarks: Which verdicts are not possible for the layer, and why. They are the same for all
            snapshots of a layer with a finite weight, so that its tiles do not move.
    """

    colours: tuple[Colour | None, ...]
    legend: tuple[tuple[Colour | None, str], ...]
    remarks: tuple[str, ...] = ()


def flag_filters(health: KernelHealth) -> Flags:
    """Frame each filter in the colour of its gravest verdict, and count filters by verdict.

    The remarks name the verdicts that are not possible for this layer: without them, a layer with
    this fault would look healthy.

    Example:
        >>> from torch import randn
        >>> from kernelviz_callback import kernel_health
        >>> weights = randn(4, 3, 3, 3)
        >>> weights[2] = 0
        >>> flags = flag_filters(kernel_health(weights))
        >>> flags.legend
        (((213, 94, 0), '1 near-zero'),)
        >>> flags.remarks
        ('noise-like is not judged: kernels of 3x3x3 are too small',)
    """
    counts = [(name, len(health.flagged(name))) for name in VERDICT_NAMES]
    legend: list[tuple[Colour | None, str]] = [
        (VERDICT_COLOURS[name], f"{n} {name}") for name, n in counts if n
    ]
    if len(health.flagged(*VERDICT_NAMES)) < len(health.verdicts):
        legend.append((None, "(a frame shows a filter's gravest)"))
    if not legend:
        legend.append((None, "no filter has a verdict against it"))
    return Flags(
        colours=tuple(VERDICT_COLOURS[name] if name else None for name in health.gravest()),
        legend=tuple(legend),
        remarks=tuple(
            f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} not judged: {reason}"
            for reason, names in withheld_verdicts(health).items()
        ),
    )

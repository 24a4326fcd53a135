"""Give the reason why a layer cannot have a number or a verdict."""

from collections.abc import Iterator, Sequence
from math import isfinite, prod

import torch

from kernelviz_callback.health.kernel_health import FilterMeasures, KernelHealth, LayerMeasures
from kernelviz_callback.health.null_model import LEAST_POWER, NullModel
from kernelviz_callback.health.verdict_names import VERDICT_NAMES, VerdictName
from kernelviz_callback.health.verdicts import DOMINATING_NORM, LARGEST_USEFUL_COSINE

_SHARES = ("edge_share", "colour_share", "blob_share", "noise_share")
_NEIGHBOUR_NUMBERS = (
    *("autocorrelation", "roughness", "concentration", "frequency", "orientation", "bandwidth"),
    *("variance_entropy", *_SHARES, "noise-like verdict"),
)
INDEX_NUMBERS = ("nearest", "antiphase")
_PAIR_NUMBERS = ("nearest", "nearest_cosine", "antiphase", "antiphase_cosine")
FIRST_SNAPSHOT_NUMBERS = ("cosine_to_first", "change_from_first", "drift")
_PREVIOUS_SNAPSHOT_NUMBERS = ("cosine_to_previous", "change_from_previous", "update_ratio")
NO_FIRST_SNAPSHOT = "there is no first snapshot to compare with"
NO_PREVIOUS_SNAPSHOT = "there is no previous snapshot to compare with"
NO_PROBE = "there is no probe"
# Reasons that are not a property of the layer: the caller had nothing to compare with.
_NOT_GIVEN = (NO_PREVIOUS_SNAPSHOT, NO_PROBE)
# Reasons that depend on the values of the weights, not on their shape.
_VALUE_REASONS = {
    "autocorrelation": "every kernel is constant",
    "orientation": "no filter has stripes",
    "opponent_axis": "every filter is grey",
    "variance_entropy": "there is one kernel",
    **dict.fromkeys((*_PAIR_NUMBERS, "orthogonality"), "there are no two filters to compare"),
    **dict.fromkeys(FIRST_SNAPSHOT_NUMBERS, "the first snapshot was zero"),
    **dict.fromkeys(_PREVIOUS_SNAPSHOT_NUMBERS, "the previous snapshot was zero"),
}


def explain_missing(
    filters: FilterMeasures,
    totals: LayerMeasures,
    *,
    shape: Sequence[int],
    groups: int,
    null: NullModel,
    has_first: bool,
    has_previous: bool,
    is_one_step: bool,
    why_no_probe: str | None,
) -> dict[str, str]:
    """Return the reasons for numbers that no filter has and verdicts that no filter can have.

    Args:
        filters: Numbers of the filters.
        totals: Numbers of the layer.
        shape: Shape of the weights.
        groups: Number of groups of the convolution.
        null: Null model of this shape.
        has_first: Whether the first snapshot is known.
        has_previous: Whether the previous snapshot is known.
        is_one_step: Whether the previous snapshot was taken one optimizer step ago.
        why_no_probe: Reason why there is no probe; None if there is one.

    Returns:
        Name of a number, or "<name> verdict", to the reason.
    """
    values = torch.stack(list(vars(filters).values()))
    is_index = torch.tensor(
        [[name in INDEX_NUMBERS] for name in vars(filters)], dtype=torch.bool, device="cpu"
    )
    has_any = (values.isfinite() & ~(is_index & (values < 0))).any(1).tolist()
    missing = [name for name, exists in zip(vars(filters), has_any, strict=True) if not exists]
    missing += [name for name, value in vars(totals).items() if not isfinite(value)]
    if filters.norm.isnan().all():
        verdicts = [f"{name} verdict" for name in VERDICT_NAMES if name != "non-finite"]
        return dict.fromkeys(missing + verdicts, "every filter has NaN or infinite weights")
    reasons = dict.fromkeys(missing, "every filter is zero")
    if (filters.norm > 0).any():
        reasons |= {name: why for name, why in _VALUE_REASONS.items() if name in reasons}
    known = [
        *_reference_reasons(has_first, has_previous, is_one_step, why_no_probe),
        *_shape_reasons(shape, groups, null),
    ]
    for names, reason in known:
        reasons |= {n: reason for n in names if n in missing or n.endswith(" verdict")}
    return reasons


def withheld_verdicts(health: KernelHealth) -> dict[str, list[VerdictName]]:
    """Return which verdicts no filter of this layer can have: the short reason to the names.

    Without one of these verdicts a layer can still have the fault. A verdict that only lacks a
    previous snapshot or a probe is not in the result.

    Example:
        >>> from torch import randn
        >>> from kernelviz_callback import kernel_health
        >>> withheld_verdicts(kernel_health(randn(8, 1, 9)))
        {'kernels of 1x9 are too small': ['noise-like']}
    """
    found: dict[str, list[VerdictName]] = {}
    for name in VERDICT_NAMES:
        reason = health.absent.get(f"{name} verdict")
        if reason is not None and reason not in _NOT_GIVEN:
            found.setdefault(reason.partition(":")[0], []).append(name)
    return found


def _reference_reasons(
    has_first: bool, has_previous: bool, is_one_step: bool, why_no_probe: str | None
) -> Iterator[tuple[tuple[str, ...], str]]:
    if not has_first:
        yield FIRST_SNAPSHOT_NUMBERS, NO_FIRST_SNAPSHOT
    if not has_previous:
        names = (*_PREVIOUS_SNAPSHOT_NUMBERS, "frozen verdict")
        yield names, NO_PREVIOUS_SNAPSHOT
    elif not is_one_step:
        yield ("update_ratio",), "the previous snapshot is not one optimizer step away"
    if why_no_probe is not None:
        yield ("response_rms", "silent verdict"), why_no_probe


def _shape_reasons(
    shape: Sequence[int], groups: int, null: NullModel
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the reasons that hold for any weights of the shape, the most specific last."""
    filters, channels, *kernel = shape
    size = "x".join(map(str, shape[1:]))
    if null.largest_cosine >= LARGEST_USEFUL_COSINE:
        reason = f"random filters of this shape have cosines of up to {null.largest_cosine:.4f}"
        yield ("duplicate verdict",), reason
    if channels * prod(kernel) == 1:
        yield ("duplicate verdict",), "filters with one weight differ only in scale"
    if groups == filters:
        yield (*_PAIR_NUMBERS, "duplicate verdict"), "every filter is alone in its group"
    if filters == 1:
        verdicts = ("duplicate verdict", "dominating verdict", "frozen verdict")
        yield (*_PAIR_NUMBERS, "orthogonality", *verdicts), "there is one filter"
    if filters == 2:
        reason = f"neither of two filters can have {DOMINATING_NORM:.0f} times their median norm"
        yield ("dominating verdict",), reason
    if not null.can_detect_noise:
        yield (
            (*_SHARES, "noise-like verdict"),
            f"kernels of {size} are too small: {null.noise_power:.0%} of smooth filters can be "
            f"distinguished from noise, {LEAST_POWER:.0%} are required",
        )
    if len(kernel) == 1:
        yield ("orientation",), "a 1-D kernel has no direction"
    colour = ("colour", "opponent_axis", "colour_share")
    if len(kernel) != 2:
        yield colour, f"colour needs a 2-D layer; this one has {len(kernel)} dimensions"
    elif channels != 3:
        yield colour, f"colour needs 3 input channels; there are {channels}"
    if prod(kernel[-2:]) == 1:
        yield _NEIGHBOUR_NUMBERS, "a 1x1 kernel has no neighbouring weights"

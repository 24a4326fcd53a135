"""Why a number or a verdict does not exist for a layer, in a few words each."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from math import isfinite, prod

import torch

from kernelviz_callback.health.kernel_health import FilterMeasures, LayerMeasures
from kernelviz_callback.health.null_model import LEAST_POWER, NullModel
from kernelviz_callback.health.verdict_names import VERDICT_NAMES
from kernelviz_callback.health.verdicts import DOMINATING_NORM, LARGEST_TELLING_COSINE

_SHARES = ("edge_share", "colour_share", "blob_share", "noise_share")
_OF_NEIGHBOURING_WEIGHTS = (
    *("autocorrelation", "roughness", "concentration", "frequency", "orientation", "bandwidth"),
    *("variance_entropy", *_SHARES, "noise-like verdict"),
)
_INDICES = ("nearest", "antiphase")
_OF_PAIRS = ("nearest", "nearest_cosine", "antiphase", "antiphase_cosine")
OF_FIRST = ("cosine_to_first", "change_from_first", "drift")
_OF_PREVIOUS = ("cosine_to_previous", "change_from_previous", "update_ratio")
# What other weights of the same shape would have.
_BY_CHANCE = {
    "autocorrelation": "every kernel is constant",
    "orientation": "no filter has stripes",
    "opponent_axis": "every filter is grey",
    "variance_entropy": "there is one kernel",
    **dict.fromkeys((*_OF_PAIRS, "orthogonality"), "there are no two filters to compare"),
    **dict.fromkeys(OF_FIRST, "the first snapshot was zero"),
    **dict.fromkeys(_OF_PREVIOUS, "the snapshot before was zero"),
}


def explain_absence(
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
    """Tell why the layer lacks a number that no filter has, or a verdict that none can get.

    Args:
        filters: Numbers of the filters.
        totals: Numbers of the layer.
        shape: Of the weights.
        groups: Of the convolution.
        null: Of this shape.
        has_first: Whether there was a first snapshot to compare with.
        has_previous: Whether there was a snapshot before.
        is_one_step: Whether that was one optimizer step ago.
        why_no_probe: None if there was one.

    Returns:
        Name of a number, or "<name> verdict", to the reason.
    """
    values = torch.stack(list(vars(filters).values()))
    is_index = torch.tensor([name in _INDICES for name in vars(filters)])[:, None]
    has_any = (values.isfinite() & ~(is_index & (values < 0))).any(1).tolist()
    missing = [name for name, is_there in zip(vars(filters), has_any, strict=True) if not is_there]
    missing += [name for name, value in asdict(totals).items() if not isfinite(value)]
    if filters.norm.isnan().all():
        verdicts = [f"{name} verdict" for name in VERDICT_NAMES if name != "non-finite"]
        return dict.fromkeys(missing + verdicts, "every filter holds NaN or infinity")
    reasons = dict.fromkeys(missing, "every filter is zero")
    if (filters.norm > 0).any():
        reasons |= {name: why for name, why in _BY_CHANCE.items() if name in reasons}
    known = [
        *_of_references(has_first, has_previous, is_one_step, why_no_probe),
        *_of_shape(shape, groups, null),
    ]
    for names, reason in known:
        reasons |= {n: reason for n in names if n in missing or n.endswith(" verdict")}
    return reasons


def _of_references(
    has_first: bool, has_previous: bool, is_one_step: bool, why_no_probe: str | None
) -> Iterator[tuple[tuple[str, ...], str]]:
    if not has_first:
        yield OF_FIRST, "there is no first snapshot to compare with"
    if not has_previous:
        yield (*_OF_PREVIOUS, "frozen verdict"), "there is no snapshot before to compare with"
    elif not is_one_step:
        yield ("update_ratio",), "the snapshot before is not one optimizer step away"
    if why_no_probe is not None:
        yield ("response_rms", "silent verdict"), why_no_probe


def _of_shape(
    shape: Sequence[int], groups: int, null: NullModel
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Reasons that hold for any weights of the shape, the more telling last."""
    filters, channels, *kernel = shape
    size = "x".join(map(str, shape[1:]))
    if null.largest_cosine >= LARGEST_TELLING_COSINE:
        reason = f"chance alone makes cosines of {null.largest_cosine:.4f} in this shape"
        yield ("duplicate verdict",), reason
    if channels * prod(kernel) == 1:
        yield ("duplicate verdict",), "filters of one weight are all alike"
    if groups == filters:
        yield (*_OF_PAIRS, "duplicate verdict"), "every filter has a group of its own"
    if filters == 1:
        verdicts = ("duplicate verdict", "dominating verdict", "frozen verdict")
        yield (*_OF_PAIRS, "orthogonality", *verdicts), "there is one filter"
    if filters == 2:
        reason = f"neither of two filters can have {DOMINATING_NORM:.0f} times their median norm"
        yield ("dominating verdict",), reason
    if not null.knows_noise:
        yield (
            (*_SHARES, "noise-like verdict"),
            f"kernels of {size} are too small: {null.noise_power:.0%} of "
            f"smooth filters would be told from noise, {LEAST_POWER:.0%} are wanted",
        )
    if len(kernel) == 1:
        yield ("orientation",), "a 1-D kernel has no direction"
    colour = ("colour", "opponent_axis", "colour_share")
    if len(kernel) != 2:
        yield colour, f"colour needs a 2-D layer; this one has {len(kernel)} dimensions"
    elif channels != 3:
        yield colour, f"colour needs 3 input channels; there are {channels}"
    if prod(kernel[-2:]) == 1:
        yield _OF_NEIGHBOURING_WEIGHTS, "a 1x1 kernel has no neighbouring weights"

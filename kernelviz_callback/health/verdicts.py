"""From numbers to words: what is wrong with which filter, judged against chance in its shape."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isnan

import torch
from torch import Tensor

from kernelviz_callback.filters.measures import relative_norms
from kernelviz_callback.health.null_model import NullModel
from kernelviz_callback.health.verdict_names import VerdictName

# Beyond chance is not enough where chance is narrow: of 384 filters 3x16x16 a norm of 0.8 medians
# is significant, and harmless. A verdict needs both, what chance does not do and these.
NEAR_ZERO_NORM = 0.1  # of the median norm: a hundredth of a typical filter's energy
DOMINATING_NORM = 4.0  # of the median norm: sixteen times a typical filter's energy
# If more of the layer is that strong, the rest is weak.
_MOST_DOMINATING = 0.25
DUPLICATE_COSINE = 0.98  # the difference is a fifth of the filter's length
FROZEN_CHANGE = 0.01  # of the median change
# Cosine of a filter and its copy with 5 % noise is 0.9988. Where chance reaches this, there is no
# verdict on duplicates.
LARGEST_TELLING_COSINE = 0.998
# A filter that for its norm responds less than one level of an 8-bit picture on which the most
# responsive filter of the layer spans the range.
SILENT_GAIN = 1 / 255
# Movement below what float32 resolves is none.
_LEAST_MOVEMENT = 1e-6


@dataclass(frozen=True)
class Verdict:
    """What is wrong with a filter: its index, a name, and the reason in words and numbers."""

    filter: int
    name: VerdictName
    reason: str


@dataclass(frozen=True)
class Evidence:
    """The numbers that verdicts are made of; tensors of shape (N,), see `FilterMeasures`.

    ``is_weak`` is what `is_near_zero` says; no such filter is a ``nearest``. ``change`` is the norm
    of each filter's change since the snapshot before, ``norm`` now; None where there was none,
    ``response_rms`` where there is no probe.
    """

    is_finite: Tensor
    is_weak: Tensor
    norm: Tensor
    relative_norm: Tensor
    nearest: Tensor
    nearest_cosine: Tensor
    concentration: Tensor
    response_rms: Tensor | None
    change: Tensor | None


def judge(evidence: Evidence, null: NullModel) -> list[Verdict]:
    """Give every filter its verdicts: none, or several.

    At most 0.5 % of healthy layers have a duplicate, dominating or near-zero filter by chance
    (`null_model.FALSE_ALARM_RATE`).

    Returns:
        In the order of `VERDICT_NAMES`, then of the filters.
    """
    return [
        *_non_finite(evidence),
        *_near_zero(evidence, null),
        *_silent(evidence),
        *_duplicate(evidence, null),
        *_dominating(evidence, null),
        *_frozen(evidence, null),
        *_noise_like(evidence, null),
    ]


def is_near_zero(relative_norm: Tensor, norm: Tensor, null: NullModel) -> Tensor:
    """Which filters hardly take part in their layer, bool of shape (N,)."""
    return (norm == 0) | (relative_norm < near_zero_limit(null))


def is_noise(evidence: Evidence, null: NullModel) -> Tensor:
    """Which filters cannot be told from noise, bool of shape (N,). None of a shape too small."""
    if not null.knows_noise:
        return torch.zeros_like(evidence.is_finite)
    return (evidence.concentration <= null.noise_concentration) & ~evidence.is_weak


def near_zero_limit(null: NullModel) -> float:
    """Share of the median norm below which a filter is near zero."""
    return min(NEAR_ZERO_NORM, null.smallest_norm)


def duplicate_limit(null: NullModel) -> float:
    """Cosine above which two filters are duplicates; NaN where they are too small to tell."""
    limit = max(DUPLICATE_COSINE, null.largest_cosine)
    return limit if null.largest_cosine < LARGEST_TELLING_COSINE else float("nan")


def _non_finite(evidence: Evidence) -> Iterator[Verdict]:
    for i in _indices(~evidence.is_finite):
        yield Verdict(i, "non-finite", "it holds NaN or infinity")


def _near_zero(evidence: Evidence, null: NullModel) -> Iterator[Verdict]:
    limit = near_zero_limit(null)
    for i in _indices(evidence.is_weak):
        norm, relative = evidence.norm[i].item(), evidence.relative_norm[i].item()
        beside = "" if isnan(relative) else f", {relative:.2g} of the layer's median"
        yield Verdict(i, "near-zero", f"norm {norm:.2g}{beside} (limit {limit:.2g})")


def _silent(evidence: Evidence) -> Iterator[Verdict]:
    if evidence.response_rms is None:
        return
    gain = evidence.response_rms / evidence.norm
    share = gain / gain.nan_to_num(0.0).amax()
    for i in _indices((share < SILENT_GAIN) | (gain == 0)):
        beside = share[i].item()
        reason = "the probe holds nothing that it responds to"
        if not isnan(beside):
            reason = f"for its norm it responds {beside:.1g} times as much as the layer's best"
        yield Verdict(i, "silent", f"{reason} (limit {SILENT_GAIN:.1g})")


def _duplicate(evidence: Evidence, null: NullModel) -> Iterator[Verdict]:
    limit = duplicate_limit(null)
    for i in _indices((evidence.nearest_cosine > limit) & ~evidence.is_weak):
        cosine, twin = evidence.nearest_cosine[i].item(), int(evidence.nearest[i])
        reason = f"cosine {cosine:.4f} to filter {twin} (limit {limit:.2g})"
        yield Verdict(i, "duplicate", reason)


def _dominating(evidence: Evidence, null: NullModel) -> Iterator[Verdict]:
    limit = max(DOMINATING_NORM, null.largest_norm)
    found = _indices(evidence.relative_norm > limit)
    if len(found) > max(1, _MOST_DOMINATING * len(evidence.relative_norm)):
        return
    for i in found:
        relative = evidence.relative_norm[i].item()
        yield Verdict(i, "dominating", f"norm {relative:.3g} medians (limit {limit:.2g})")


def _frozen(evidence: Evidence, null: NullModel) -> Iterator[Verdict]:
    if evidence.change is None:
        return
    limit = min(FROZEN_CHANGE, null.smallest_norm)
    movement = evidence.change.nan_to_num(0.0, posinf=0.0).norm()
    if movement <= _LEAST_MOVEMENT * evidence.norm.nan_to_num(0.0, posinf=0.0).norm():
        return
    relative = relative_norms(evidence.change)
    for i in _indices(relative < limit):
        reason = f"moved {relative[i].item():.2g} of the median change (limit {limit:.2g})"
        yield Verdict(i, "frozen", reason)


def _noise_like(evidence: Evidence, null: NullModel) -> Iterator[Verdict]:
    limit = null.noise_concentration
    found = _indices(is_noise(evidence, null))
    for i, value in zip(found, evidence.concentration[found].tolist(), strict=True):
        reason = (
            f"spectrum {value:.2f} times as concentrated as a flat one, noise up to {limit:.2f}"
        )
        yield Verdict(i, "noise-like", reason)


def _indices(mask: Tensor) -> list[int]:
    return mask.nonzero().flatten().tolist()

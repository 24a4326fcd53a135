"""Give verdicts on filters: compare their numbers with limits and with random filters."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isnan

import torch
from torch import Tensor

from kernelviz_callback.filters.measures import relative_norms
from kernelviz_callback.health.null_model import NullModel
from kernelviz_callback.health.verdict_names import VerdictName

# A number outside the range of random filters is not always a fault: among 384 filters of 3x16x16 a
# norm of 0.8 times the median is significant, and harmless. Therefore a number must also be beyond
# one of these limits.
NEAR_ZERO_NORM = 0.1  # times the median norm: 1/100 of the energy of a typical filter
DOMINATING_NORM = 4.0  # times the median norm: 16 times the energy of a typical filter
# If a larger share of the filters is so strong, the other filters are weak instead.
_MOST_DOMINATING = 0.25
DUPLICATE_COSINE = 0.98  # the norm of the difference is a fifth of the norm of the filter
FROZEN_CHANGE = 0.01  # times the median change
# A filter and its copy with 5 % noise have the cosine 0.9988. If random filters reach this limit,
# there is no verdict on duplicates.
LARGEST_USEFUL_COSINE = 0.998
# Share of the largest response per norm in the layer. A weaker response is less than one level of
# an 8-bit picture whose range is the largest response.
SILENT_GAIN = 1 / 255
# Share of the layer's norm. A smaller change is below the precision of float32.
_LEAST_MOVEMENT = 1e-6


@dataclass(frozen=True)
class Verdict:
    """One fault of a filter.

    Attributes:
        filter: Index of the filter.
        name: Name of the verdict.
        reason: The reason in words and numbers.
    """

    filter: int
    name: VerdictName
    reason: str


@dataclass(frozen=True)
class Evidence:
    """The numbers from which verdicts are derived: tensors of shape (N,), see `FilterMeasures`.

    Attributes:
        is_finite: Whether all weights of the filter are finite.
        is_weak: The result of `is_near_zero`. A weak filter is not ``nearest`` of another filter.
        norm: Norm of the filter.
        relative_norm: Norm of the filter divided by the typical norm of the layer.
        nearest: Index of the most similar other filter, -1 for none.
        nearest_cosine: Cosine of the filter ``nearest``.
        concentration: Concentration of the power spectrum.
        response_rms: Root mean square of the response to the probe; None without a probe.
        change: Norm of the difference from the previous snapshot; None without a previous snapshot.
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


def give_verdicts(evidence: Evidence, null: NullModel) -> list[Verdict]:
    """Find the faults of all filters. A filter may have several verdicts, or none.

    At most 0.5 % of healthy layers have a duplicate, dominating or near-zero filter by chance
    (`null_model.FALSE_ALARM_RATE`).

    Args:
        evidence: Numbers of the filters.
        null: Null model of the layer's shape.

    Returns:
        The verdicts in the order of `VERDICT_NAMES`, then in the order of the filters.
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
    """Return which filters are too weak to affect the layer, bool of shape (N,)."""
    return (norm == 0) | (relative_norm < near_zero_limit(null))


def is_noise(evidence: Evidence, null: NullModel) -> Tensor:
    """Return which filters are noise, bool of shape (N,); all False if kernels are too small."""
    if not null.can_detect_noise:
        return torch.zeros_like(evidence.is_finite)
    return (evidence.concentration <= null.noise_concentration) & ~evidence.is_weak


def near_zero_limit(null: NullModel) -> float:
    """Return the share of the median norm below which a filter is near zero."""
    return min(NEAR_ZERO_NORM, null.smallest_norm)


def duplicate_limit(null: NullModel) -> float:
    """Return the cosine above which two filters are duplicates, NaN if filters are too small."""
    limit = max(DUPLICATE_COSINE, null.largest_cosine)
    return limit if null.largest_cosine < LARGEST_USEFUL_COSINE else float("nan")


def _non_finite(evidence: Evidence) -> Iterator[Verdict]:
    for i in _indices(~evidence.is_finite):
        yield Verdict(i, "non-finite", "it has NaN or infinite weights")


def _near_zero(evidence: Evidence, null: NullModel) -> Iterator[Verdict]:
    limit = near_zero_limit(null)
    for i in _indices(evidence.is_weak):
        norm, relative = evidence.norm[i].item(), evidence.relative_norm[i].item()
        share = "" if isnan(relative) else f", {relative:.2g} of the layer's median"
        yield Verdict(i, "near-zero", f"norm {norm:.2g}{share} (limit {limit:.2g})")


def _silent(evidence: Evidence) -> Iterator[Verdict]:
    if evidence.response_rms is None:
        return
    gain = evidence.response_rms / evidence.norm
    share = gain / gain.nan_to_num(0.0).amax()
    for i in _indices((share < SILENT_GAIN) | (gain == 0)):
        relative = share[i].item()
        reason = "it has no response to the probe"
        if not isnan(relative):
            reason = f"its response per norm is {relative:.1g} of the layer's largest"
        yield Verdict(i, "silent", f"{reason} (limit {SILENT_GAIN:.1g})")


def _duplicate(evidence: Evidence, null: NullModel) -> Iterator[Verdict]:
    limit = duplicate_limit(null)
    for i in _indices((evidence.nearest_cosine > limit) & ~evidence.is_weak):
        cosine, other = evidence.nearest_cosine[i].item(), int(evidence.nearest[i])
        reason = f"cosine {cosine:.4f} to filter {other} (limit {limit:.2g})"
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
        reason = f"it changed by {relative[i].item():.2g} of the median change (limit {limit:.2g})"
        yield Verdict(i, "frozen", reason)


def _noise_like(evidence: Evidence, null: NullModel) -> Iterator[Verdict]:
    limit = null.noise_concentration
    found = _indices(is_noise(evidence, null))
    for i, value in zip(found, evidence.concentration[found].tolist(), strict=True):
        reason = f"spectral concentration {value:.2f}, random filters have up to {limit:.2f}"
        yield Verdict(i, "noise-like", reason)


def _indices(mask: Tensor) -> list[int]:
    return mask.nonzero().flatten().tolist()

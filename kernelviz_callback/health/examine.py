"""Examine the filters of a layer: compute their numbers, their verdicts and what is missing."""

from dataclasses import fields, replace

import torch
from torch import Tensor, nn

from kernelviz_callback.filters import measures
from kernelviz_callback.filters.float64 import float64_blocks
from kernelviz_callback.filters.planes import as_planes, check_filters
from kernelviz_callback.filters.similarity import Similarity, similarity
from kernelviz_callback.filters.spectrum import concentration, dominant_stripes, power_spectrum
from kernelviz_callback.filters.words import count_filters
from kernelviz_callback.health.kernel_health import FilterMeasures, KernelHealth, LayerMeasures
from kernelviz_callback.health.missing_numbers import (
    FIRST_SNAPSHOT_NUMBERS,
    INDEX_NUMBERS,
    NO_PROBE,
    explain_missing,
)
from kernelviz_callback.health.null_model import NullModel, null_model
from kernelviz_callback.health.verdicts import Evidence, give_verdicts, is_near_zero, is_noise
from kernelviz_callback.model.convolutions import find_convolutions, geometry_of
from kernelviz_callback.model.weights import effective_weight
from kernelviz_callback.probe.probe_energy import ProbeEnergy

# A filter counts as a colour filter if more than this share of its energy is off the grey axis.
COLOUR_SHARE = 0.5
# A filter counts as a blob if its kernel has less than this many periods of its dominant wave.
BLOB_PERIODS = 0.5


def kernel_health(
    model_or_weights: nn.Module | Tensor,
    layer: str | None = None,
    *,
    first: Tensor | None = None,
    previous: Tensor | None = None,
    steps_since_previous: int | None = None,
    energy: ProbeEnergy | str | None = None,
    groups: int = 1,
) -> KernelHealth:
    """Find the filters of a layer that are dead, duplicate, too strong, frozen, broken or noise.

    Args:
        model_or_weights: A module, or filters of shape (N, C, kH, kW), (N, C, k) or
            (N, C, kD, kH, kW), of any floating point type and on any device. Not modified. They are
            converted to float32 and measured on the CPU. The slices of 3-D kernels are measured
            like channels.
        layer: If a module is given, the name of its layer, or None for its first convolution. If
            weights are given, a name for the result.
        first: The weights of the layer at the start of training; None if unknown.
        previous: The weights of the layer at the previous snapshot; None if unknown.
        steps_since_previous: Optimizer steps since the previous snapshot; None if unknown.
        energy: The probe as `measure_probe` returns it, or the reason why there is no probe.
        groups: Number of groups of the convolution. If a module is given, the number of its layer
            is used instead.

    Returns:
        The numbers of the filters and of the layer, the verdicts, and what is missing.

    Raises:
        ValueError: If ``layer`` does not match exactly one layer, if the weights are empty or do
            not have the shape of filters, or if a reference has another shape.

    Example:
        >>> kernel_health(nn.Conv2d(3, 16, 7)).totals.noise_share > 0.8
        True
    """
    if isinstance(model_or_weights, nn.Module):
        found = find_convolutions(model_or_weights, layer)
        if len(found) > 1:
            raise ValueError(
                f"{layer!r} names {len(found)} layers: {', '.join(found)}; pass one name"
            )
        [(layer, conv)] = found.items()
        groups = geometry_of(conv).groups
        model_or_weights = effective_weight(conv)
    weights = _to_float32_on_cpu(model_or_weights)
    check_filters(weights.shape)
    references = {"first": first, "previous": previous}
    converted = {
        name: None if r is None else _to_float32_on_cpu(r) for name, r in references.items()
    }
    for name, reference in converted.items():
        if reference is not None and reference.shape != weights.shape:
            raise ValueError(
                f"{name} must be the same layer, of shape {tuple(weights.shape)}; found "
                f"{tuple(reference.shape)}"
            )
    return _Examination(
        weights, converted["first"], converted["previous"], steps_since_previous, energy, groups
    ).health(layer or "weights")


def remeasure_drift(first: Tensor, weights: Tensor, health: KernelHealth) -> KernelHealth:
    """Measure the drift of a layer again, from another first snapshot.

    After a resume the first snapshot of the whole training is not that of the resumed training.

    Args:
        first: The weights at the start of the whole training, in the shape of ``weights``.
        weights: The weights that were examined.
        health: The health of these weights.

    Returns:
        The health with new ``cosine_to_first``, ``change_from_first`` and ``drift``. Verdicts do
        not depend on them and do not change.
    """
    now, then = (as_planes(_to_float32_on_cpu(values)) for values in (weights, first))
    moved = measures.movement(now, then)
    is_known = health.filters.norm.isfinite()
    filters = replace(
        health.filters,
        cosine_to_first=moved.cosine.where(is_known, torch.nan),
        change_from_first=moved.relative.where(is_known, torch.nan),
    )
    drift = moved.drift if is_known.any() else torch.nan
    numbers = vars(filters) | {"drift": torch.tensor(drift, dtype=torch.float64, device="cpu")}
    known = {name for name in FIRST_SNAPSHOT_NUMBERS if numbers[name].isfinite().any()}
    return replace(
        health,
        filters=filters,
        totals=replace(health.totals, drift=drift),
        absent={name: why for name, why in health.absent.items() if name not in known},
    )


class _Examination:
    """The examination of one layer. Values that several numbers need are computed once."""

    def __init__(
        self,
        weights: Tensor,
        first: Tensor | None,
        previous: Tensor | None,
        steps_since_previous: int | None,
        energy: ProbeEnergy | str | None,
        groups: int,
    ) -> None:
        self.whole_shape = tuple(weights.shape)
        self.is_colour = weights.ndim == 4 and weights.shape[1] == 3
        self.has_direction = weights.ndim > 3
        self.weights = weights = as_planes(weights)
        filters, channels, height, width = weights.shape
        self.shape = (filters, channels, height, width)
        self.null: NullModel = null_model(self.shape, groups)
        self.norm = measures.filter_norms(weights)
        # The norm is float64, so it is finite for all finite float32 weights.
        self.is_finite = self.norm.isfinite()
        self.relative_norm = measures.relative_norms(self.norm)
        self.is_weak = is_near_zero(self.relative_norm, self.norm, self.null)
        self.since_first, self.since_previous = (
            None if reference is None else measures.movement(weights, as_planes(reference))
            for reference in (first, previous)
        )
        self.is_one_step = steps_since_previous == 1
        self.energy = energy if isinstance(energy, ProbeEnergy) else None
        self.why_no_probe = energy if isinstance(energy, str) else NO_PROBE
        self.groups = groups

    def health(self, layer: str) -> KernelHealth:
        similar = similarity(self.weights, self.groups, candidates=~self.is_weak)
        filters = self._filters(similar)
        evidence = Evidence(
            is_finite=self.is_finite,
            is_weak=self.is_weak,
            norm=self.norm,
            relative_norm=self.relative_norm,
            nearest=similar.nearest,
            nearest_cosine=filters.nearest_cosine,
            concentration=filters.concentration,
            response_rms=None if self.energy is None else filters.response_rms,
            change=None if self.since_previous is None else self.since_previous.change,
        )
        totals = self._totals(filters, similar, is_noise(evidence, self.null))
        return KernelHealth(
            layer=layer,
            shape=self.whole_shape,
            filters=filters,
            totals=totals,
            verdicts=tuple(give_verdicts(evidence, self.null)),
            absent=self._missing(filters, totals),
        )

    def _filters(self, similar: Similarity) -> FilterMeasures:
        weights, nothing = self.weights, torch.full_like(self.norm, torch.nan)
        first, previous = self.since_first, self.since_previous
        numbers = {
            **self._single_filter_numbers(),
            "norm": self.norm,
            "rms": self.norm / weights[0].numel() ** 0.5,
            "relative_norm": self.relative_norm,
            "sparsity": measures.sparsity(weights),
            "nearest": similar.nearest,
            "nearest_cosine": similar.nearest_cosine,
            "antiphase": similar.antiphase,
            "antiphase_cosine": similar.antiphase_cosine,
            "cosine_to_first": nothing if first is None else first.cosine,
            "change_from_first": nothing if first is None else first.relative,
            "cosine_to_previous": nothing if previous is None else previous.cosine,
            "change_from_previous": nothing if previous is None else previous.relative,
            "response_rms": nothing if self.energy is None else self.energy.response_rms(weights),
        }
        return FilterMeasures(
            **{
                name: values.float().masked_fill(
                    ~self.is_finite, -1 if name in INDEX_NUMBERS else torch.nan
                )
                for name, values in numbers.items()
            }
        )

    def _single_filter_numbers(self) -> dict[str, Tensor]:
        """Compute the numbers that depend neither on other filters nor on the scale of a filter."""
        parts = [self._numbers_of_block(block) for block in float64_blocks(self.weights)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _numbers_of_block(self, filters: Tensor) -> dict[str, Tensor]:
        _, _, height, width = self.shape
        nothing = filters.new_full((len(filters),), torch.nan)
        power = power_spectrum(filters)
        stripes = dominant_stripes(power, (height, width))
        colour, axis = nothing, nothing
        if self.is_colour:
            colour, axis = measures.colour_selectivity(filters)
        return {
            "autocorrelation": measures.autocorrelation(filters),
            "roughness": measures.roughness(filters),
            "concentration": nothing if (height, width) == (1, 1) else concentration(power),
            "frequency": stripes.frequency,
            "orientation": stripes.orientation if self.has_direction else nothing,
            "bandwidth": stripes.bandwidth,
            "colour": colour,
            "opponent_axis": axis,
        }

    def _totals(
        self, filters: FilterMeasures, similar: Similarity, is_noise: Tensor
    ) -> LayerMeasures:
        nothing = torch.nan
        finite = self.is_finite
        if not finite.any():
            return LayerMeasures(*[nothing] * len(fields(LayerMeasures)))
        weights, first, previous = self.weights, self.since_first, self.since_previous
        if not finite.all():
            weights = weights[finite]
        edge, colour, blob, noise = self._shares(filters, is_noise)
        return LayerMeasures(
            sparsity=filters.sparsity.nanmean().item(),
            effective_rank=similar.effective_rank,
            variance_entropy=measures.variance_entropy(weights),
            orthogonality=similar.orthogonality,
            edge_share=edge,
            colour_share=colour,
            blob_share=blob,
            noise_share=noise,
            drift=nothing if first is None else first.drift,
            update_ratio=previous.drift if previous is not None and self.is_one_step else nothing,
        )

    def _shares(self, filters: FilterMeasures, is_noise: Tensor) -> list[float]:
        """Compute the shares of edges, colours, blobs and noise.

        The other filters are near zero or not finite.
        """
        if not self.null.can_detect_noise:
            return [torch.nan] * 4
        has_pattern = filters.concentration.isfinite() & ~self.is_weak & ~is_noise
        is_colour = has_pattern & (filters.colour > COLOUR_SHARE)
        periods = filters.frequency * max(self.shape[2:])
        is_blob = has_pattern & ~is_colour & (periods < BLOB_PERIODS)
        is_edge = has_pattern & ~is_colour & ~is_blob
        edge, colour, blob, noise = (
            kind.float().mean().item() for kind in (is_edge, is_colour, is_blob, is_noise)
        )
        return [edge, colour if self.is_colour else torch.nan, blob, noise]

    def _missing(self, filters: FilterMeasures, totals: LayerMeasures) -> dict[str, str]:
        missing = explain_missing(
            filters,
            totals,
            shape=self.whole_shape,
            groups=self.groups,
            null=self.null,
            has_first=self.since_first is not None,
            has_previous=self.since_previous is not None,
            is_one_step=self.is_one_step,
            why_no_probe=self.why_no_probe if self.energy is None else None,
        )
        not_finite = int((~self.is_finite).sum())
        if 0 < not_finite < len(self.weights):
            missing[f"numbers of {count_filters(not_finite)}"] = "they have NaN or infinite weights"
        return missing


def _to_float32_on_cpu(weights: Tensor) -> Tensor:
    return weights.detach().to("cpu", torch.float32)

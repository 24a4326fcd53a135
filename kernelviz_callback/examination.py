"""Examine the filters of one layer: the numbers, then the verdicts, then what could not be told."""

from dataclasses import fields
from math import isnan

import torch
from torch import Tensor, nn

from kernelviz_callback import measures
from kernelviz_callback.filters import effective_weight, find_convolutions, geometry_of
from kernelviz_callback.health import FilterMeasures, KernelHealth, LayerMeasures
from kernelviz_callback.null_model import LEAST_POWER, NullModel, null_model
from kernelviz_callback.probe_energy import ProbeEnergy
from kernelviz_callback.similarity import Similarity, effective_rank, similarity
from kernelviz_callback.spectrum import concentration, dominant_stripes, power_spectrum
from kernelviz_callback.verdicts import (
    LARGEST_TELLING_COSINE,
    Evidence,
    is_near_zero,
    is_noise,
    judge,
)

# A filter looks at colour if most of its energy is off the grey axis.
COLOUR_SHARE = 0.5
# A filter is a blob if less than this many periods of its dominant wave fit into the kernel.
BLOB_PERIODS = 0.5


def kernel_health(
    model_or_weights: nn.Module | Tensor,
    layer: str | None = None,
    *,
    first: Tensor | None = None,
    previous: Tensor | None = None,
    steps_since_previous: int | None = None,
    energy: ProbeEnergy | None = None,
    groups: int = 1,
) -> KernelHealth:
    """Tell which filters of a layer are dead, copies, too strong, stuck, broken or still noise.

    Args:
        model_or_weights: A module, or filters of shape (N, C, kH, kW), any floating point type, any
            device, not modified. Measured in float32 on the CPU.
        layer: Of the module, None for its first convolution; for weights, a name to show.
        first: The same layer at the start of training.
        previous: The same layer at the snapshot before.
        steps_since_previous: Optimizer steps since then.
        energy: The probe, see `measure_probe`.
        groups: Of the convolution. Read from the layer if a module is given.

    Raises:
        ValueError: If there is no such layer, or more than one, or the weights are not 4-D or are
            empty, or a reference has another shape.

    Example:
        >>> kernel_health(nn.Conv2d(3, 16, 7)).totals.noise_share > 0.8
        True
    """
    if isinstance(model_or_weights, nn.Module):
        found = find_convolutions(model_or_weights, layer)
        if len(found) > 1:
            raise ValueError(f"{layer!r} names {len(found)} layers: {', '.join(found)}; name one")
        [(layer, conv)] = found.items()
        groups = geometry_of(conv).groups
        model_or_weights = effective_weight(conv)
    weights = _host(model_or_weights)
    if weights.ndim != 4 or weights.numel() == 0:
        raise ValueError(f"expected the shape (N, C, kH, kW); found {tuple(weights.shape)}")
    references = {"first": first, "previous": previous}
    hosted = {name: None if r is None else _host(r) for name, r in references.items()}
    for name, reference in hosted.items():
        if reference is not None and reference.shape != weights.shape:
            raise ValueError(
                f"{name} must be the same layer, of shape {tuple(weights.shape)}; found "
                f"{tuple(reference.shape)}"
            )
    return _Examination(
        weights, hosted["first"], hosted["previous"], steps_since_previous, energy, groups
    ).health(layer or "weights")


class _Examination:
    """One layer on the table: what its numbers share is computed once."""

    def __init__(
        self,
        weights: Tensor,
        first: Tensor | None,
        previous: Tensor | None,
        steps_since_previous: int | None,
        energy: ProbeEnergy | None,
        groups: int,
    ) -> None:
        filters, channels, height, width = weights.shape
        self.shape = (filters, channels, height, width)
        self.null: NullModel = null_model(self.shape, groups)
        self.is_finite = weights.isfinite().flatten(1).all(1)
        self.weights = weights
        self.since_first, self.since_previous = (
            None if reference is None else measures.movement(weights, reference)
            for reference in (first, previous)
        )
        self.is_one_step = steps_since_previous == 1
        self.energy = energy
        self.groups = groups
        self.absent: dict[str, str] = {}

    def health(self, layer: str) -> KernelHealth:
        alike = similarity(self.weights, self.groups)
        filters = self._filters(alike)
        evidence = Evidence(
            is_finite=self.is_finite,
            norm=filters.norm,
            relative_norm=filters.relative_norm,
            nearest=filters.nearest.nan_to_num(-1).long(),
            nearest_cosine=filters.nearest_cosine,
            concentration=filters.concentration,
            response_rms=None if self.energy is None else filters.response_rms,
            change=None if self.since_previous is None else self.since_previous.change,
        )
        totals = self._totals(filters, alike.orthogonality, is_noise(evidence, self.null))
        self._explain()
        return KernelHealth(
            layer=layer,
            shape=self.shape,
            filters=filters,
            totals=totals,
            verdicts=tuple(judge(evidence, self.null)),
            absent=self.absent,
        )

    def _filters(self, alike: Similarity) -> FilterMeasures:
        weights, (_, channels, height, width) = self.weights, self.shape
        nothing = weights.new_full((len(weights),), torch.nan)
        norm = measures.filter_norms(weights)
        power = power_spectrum(weights)
        stripes = dominant_stripes(power, (height, width))
        colour, axis = measures.colour_selectivity(weights) if channels == 3 else (nothing, nothing)
        first, previous = self.since_first, self.since_previous
        numbers = FilterMeasures(
            norm=norm,
            rms=norm / (channels * height * width) ** 0.5,
            relative_norm=measures.relative_norms(norm),
            sparsity=measures.sparsity(weights),
            autocorrelation=measures.autocorrelation(weights),
            roughness=measures.roughness(weights),
            concentration=nothing if (height, width) == (1, 1) else concentration(power),
            frequency=stripes.frequency,
            orientation=stripes.orientation,
            bandwidth=stripes.bandwidth,
            colour=colour,
            opponent_axis=axis,
            nearest=alike.nearest,
            nearest_cosine=alike.nearest_cosine,
            antiphase=alike.antiphase,
            antiphase_cosine=alike.antiphase_cosine,
            cosine_to_first=nothing if first is None else first.cosine,
            change_from_first=nothing if first is None else first.relative,
            cosine_to_previous=nothing if previous is None else previous.cosine,
            change_from_previous=nothing if previous is None else previous.relative,
            response_rms=nothing if self.energy is None else self.energy.response_rms(weights),
        )
        values = {f.name: getattr(numbers, f.name).float() for f in fields(numbers)}
        return FilterMeasures(
            **{
                name: value.masked_fill(~self.is_finite, -1 if name in _INDICES else torch.nan)
                for name, value in values.items()
            }
        )

    def _totals(
        self, filters: FilterMeasures, orthogonality: float, is_noise: Tensor
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
            effective_rank=effective_rank(weights),
            variance_entropy=measures.variance_entropy(weights),
            orthogonality=orthogonality,
            edge_share=edge,
            colour_share=colour,
            blob_share=blob,
            noise_share=noise,
            drift=nothing if first is None else first.drift,
            update_ratio=previous.drift if previous is not None and self.is_one_step else nothing,
        )

    def _shares(self, filters: FilterMeasures, is_noise: Tensor) -> list[float]:
        """Shares of edges, colours, blobs and noise; the rest is near zero or not finite."""
        if not self.null.knows_noise:
            return [torch.nan] * 4
        formed = filters.concentration.isfinite() & (filters.norm > 0) & ~is_noise
        formed &= ~is_near_zero(filters.relative_norm, filters.norm, self.null)
        is_colour = formed & (filters.colour > COLOUR_SHARE)
        periods = filters.frequency * max(self.shape[2:])
        is_blob = formed & ~is_colour & (periods < BLOB_PERIODS)
        is_edge = formed & ~is_colour & ~is_blob
        return [kind.float().mean().item() for kind in (is_edge, is_colour, is_blob, is_noise)]

    def _explain(self) -> None:
        """Give the reason of every number and verdict that this layer cannot have."""
        filters, channels, height, width = self.shape
        absent = self.absent
        broken = int((~self.is_finite).sum())
        if broken:
            absent[f"numbers of {broken} filters"] = "they hold NaN or infinity"
        if channels != 3:
            absent["colour"] = f"it needs 3 input channels; there are {channels}"
        if (height, width) == (1, 1):
            absent["smoothness, frequency"] = "a 1x1 kernel has no neighbours"
        if not self.null.knows_noise:
            absent["noise-like verdict, spectrum shares"] = (
                f"kernels of {channels}x{height}x{width} are too small: "
                f"{self.null.noise_power:.0%} of smooth filters would be told from noise, "
                f"{LEAST_POWER:.0%} are wanted"
            )
        if isnan(self.null.largest_cosine):
            absent["duplicate verdict"] = "there are no two filters to compare"
            if filters > 1 and channels * height * width == 1:
                absent["duplicate verdict"] = "filters of one weight are all alike"
        elif self.null.largest_cosine >= LARGEST_TELLING_COSINE:
            absent["duplicate verdict"] = (
                f"chance alone makes cosines of {self.null.largest_cosine:.4f} in this shape"
            )
        if filters == 1:
            absent["orthogonality"] = "there is one filter"


_INDICES = ("nearest", "antiphase")


def _host(weights: Tensor) -> Tensor:
    return weights.detach().to("cpu", torch.float32)

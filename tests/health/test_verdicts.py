"""Verdicts find the faults of a layer, and nothing else, for strong and for weak filters."""

import json
import math

import pytest
import torch
from faulty_layer import drawn, faulty_layer
from torch import Tensor

from kernelviz_callback import kernel_health, measure_probe


def test_each_fault_is_found_and_no_other() -> None:
    weights, previous = faulty_layer()
    health = kernel_health(weights, previous=previous, steps_since_previous=1)
    assert health.flagged("near-zero") == [3]
    assert health.flagged("duplicate") == [5, 9]
    assert health.flagged("dominating") == [7]
    assert health.flagged("non-finite") == [11]
    assert health.flagged("frozen") == [20]
    assert not set(health.flagged("noise-like")) & {3, 11, 15}
    assert health.filters.antiphase[13] == 14
    assert health.gravest()[3] == "near-zero"
    assert health.gravest()[15] is None
    reasons = {(v.filter, v.name): v.reason for v in health.verdicts}
    assert reasons[5, "duplicate"].startswith("cosine 0.99")
    assert "to filter 9" in reasons[5, "duplicate"]
    assert "medians (limit 4)" in reasons[7, "dominating"]
    assert math.isfinite(health.totals.update_ratio)


def test_a_layer_that_does_not_change_has_no_frozen_filters() -> None:
    weights = drawn(8, 3, 5, 5)
    assert not kernel_health(weights, previous=weights).flagged("frozen")


def test_half_of_the_filters_can_be_near_zero() -> None:
    weights = drawn(64, 3, 7, 7)
    weights[32:] *= 0.05
    health = kernel_health(weights)
    assert health.flagged("near-zero") == list(range(32, 64))
    assert not health.flagged("dominating")


def test_a_filter_without_response_to_the_probe_is_silent() -> None:
    probe = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    probe[2] = 0
    weights = drawn(16, 3, 5, 5)
    weights[4, :2] = 0
    energy = measure_probe(probe, (5, 5), channels=3)
    assert kernel_health(weights, energy=energy).flagged("silent") == [4]
    blank = measure_probe(probe * 0, (5, 5), channels=3)
    assert kernel_health(weights, energy=blank).flagged("silent") == list(range(16))


def test_an_exploding_filter_dominates() -> None:
    weights = drawn(16, 3, 7, 7)
    weights[3] *= 1e20
    health = kernel_health(weights, previous=0.9 * weights)
    assert health.flagged("dominating") == [3]
    assert not health.flagged("near-zero", "non-finite", "frozen")
    assert health.filters.relative_norm[3] > 1e19
    assert health.filters.relative_norm[:3] == pytest.approx(1, abs=0.3)
    assert health.totals.drift != health.totals.drift
    assert health.totals.effective_rank == pytest.approx(1)


@pytest.mark.parametrize("shape", [(600, 1, 3, 3), (130, 912, 3, 3)])
def test_an_exploding_filter_dominates_a_large_layer(shape: tuple[int, ...]) -> None:
    weights = drawn(*shape)
    weights[3] *= 1e20
    health = kernel_health(weights)
    assert health.flagged("dominating") == [3]
    assert health.totals.effective_rank == pytest.approx(1)
    assert math.isfinite(health.totals.variance_entropy)


def test_the_smallest_float32_weights_are_not_zero() -> None:
    weights = drawn(8, 3, 7, 7)
    weights[1] *= 1e-25
    health = kernel_health(weights)
    assert health.flagged("near-zero") == [1]
    assert health.filters.norm[1] > 0
    torch.testing.assert_close(
        health.filters.roughness, kernel_health(drawn(8, 3, 7, 7)).filters.roughness
    )


def test_a_duplicate_is_found_beside_a_weak_copy() -> None:
    weights = drawn(16, 3, 7, 7)
    weights[5] = weights[2] + 0.05 * drawn(3, 7, 7, seed=1)
    weights[9] = 0.001 * weights[2]
    health = kernel_health(weights)
    assert health.flagged("duplicate") == [2, 5]
    assert health.flagged("near-zero") == [9]
    assert health.filters.nearest[[2, 5, 9]].tolist() == [5, 2, 2]


@pytest.mark.parametrize(
    "weights",
    [torch.zeros(4, 3, 5, 5), torch.full((4, 3, 5, 5), torch.nan), torch.ones(4, 3, 5, 5)],
)
def test_layers_of_zeros_ones_or_nan(weights: Tensor) -> None:
    health = kernel_health(weights, first=weights, previous=weights, steps_since_previous=1)
    assert repr(health)
    json.dumps(health.to_dict(), allow_nan=False)
    expected = {0.0: "near-zero", 1.0: "duplicate"}.get(weights[0, 0, 0, 0].item(), "non-finite")
    assert health.flagged(expected) == [0, 1, 2, 3]

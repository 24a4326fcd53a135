"""The examination of a layer: its numbers, its references, and the layers that it accepts."""

import math
from dataclasses import astuple

import numpy as np
import pytest
import torch
from faulty_layer import drawn, faulty_layer
from torch import nn

from kernelviz_callback import kernel_health
from kernelviz_callback.health.examine import remeasure_drift


@pytest.mark.parametrize("kernel", [(7, 7), (9,), (3, 3, 3)])
@pytest.mark.parametrize("is_nan", [False, True])
def test_the_drift_can_be_measured_from_an_earlier_snapshot(
    kernel: tuple[int, ...], is_nan: bool
) -> None:
    earlier, first, weights = (drawn(12, 3, *kernel, seed=seed) for seed in range(3))
    weights[4] = earlier[5] = 0
    weights[7].view(-1)[2] = torch.inf
    if is_nan:
        weights[:] = torch.nan
    expected = kernel_health(weights, first=earlier)
    for reference in (first, None):
        moved = remeasure_drift(earlier, weights, kernel_health(weights, first=reference))
        assert moved.absent == expected.absent
        assert moved.verdicts == expected.verdicts
        for name, values in vars(expected.filters).items():
            torch.testing.assert_close(
                getattr(moved.filters, name), values, rtol=0, atol=0, equal_nan=True
            )
        totals = torch.tensor([astuple(h.totals) for h in (moved, expected)])
        torch.testing.assert_close(*totals, rtol=0, atol=0, equal_nan=True)


def test_the_norm_and_the_rms_of_filters() -> None:
    weights = drawn(6, 3, 5, 5)
    filters = kernel_health(weights).filters
    expected = [math.sqrt(sum(w * w for w in f.flatten().tolist()) / 75) for f in weights]
    assert filters.rms.tolist() == pytest.approx(expected, rel=1e-6)
    assert filters.norm.tolist() == pytest.approx([75**0.5 * rms for rms in expected], rel=1e-6)


def test_the_update_ratio_exists_if_snapshots_are_one_step_apart() -> None:
    before = drawn(6, 3, 5, 5)
    now = before + 1e-3 * drawn(6, 3, 5, 5, seed=1)
    health = kernel_health(now, previous=before, steps_since_previous=1)
    expected = np.linalg.norm((now - before).numpy()) / np.linalg.norm(before.numpy())
    assert health.totals.update_ratio == pytest.approx(expected, rel=1e-5)
    assert health.to_scalars()["update_ratio"] == health.totals.update_ratio
    for steps in (2, None):
        health = kernel_health(now, previous=before, steps_since_previous=steps)
        assert math.isnan(health.totals.update_ratio)
        assert "not one optimizer step" in health.absent["update_ratio"]
        assert "update_ratio" not in health.to_scalars()


def test_the_shares_of_edges_colours_blobs_and_noise() -> None:
    y, x = torch.meshgrid(torch.arange(7.0) - 3, torch.arange(7.0) - 3, indexing="ij")
    window = torch.exp(-(x.square() + y.square()) / 8)
    grey, colour = torch.ones(3, 1, 1), torch.tensor([1.0, -1.0, 0.2])[:, None, None]
    layer = torch.stack(
        [
            *(grey * window * torch.cos(1.8 * x + phase) for phase in (0, 1, 2, 3)),
            *(colour * window * torch.cos(1.8 * y + phase) for phase in (0, 1)),
            colour * window,
            *(grey * window.roll(shift, 0) for shift in (-1, 0)),
            *drawn(5, 3, 7, 7),
            1e-6 * grey * window,
        ]
    )
    layer /= layer.flatten(1).norm(dim=1)[:, None, None, None]
    layer[14] *= 1e-6
    totals = kernel_health(layer).totals
    shares = totals.edge_share, totals.colour_share, totals.blob_share, totals.noise_share
    assert shares == pytest.approx((4 / 15, 3 / 15, 2 / 15, 5 / 15))


def test_a_constant_filter_has_no_autocorrelation_but_the_others_have_one() -> None:
    filters = kernel_health(faulty_layer()[0]).filters
    assert filters.autocorrelation[15].isnan()
    assert filters.opponent_axis[15].isnan()
    assert filters.orientation[15].isnan()
    assert filters.roughness[15] == filters.frequency[15] == filters.colour[15] == 0
    assert filters.autocorrelation[[0, 1, 2, 14, 16]].isfinite().all()


def test_half_precision_weights_are_measured_in_single_precision() -> None:
    weights = drawn(8, 3, 5, 5).bfloat16()
    half, single = kernel_health(weights), kernel_health(weights.float())
    assert half.to_dict() == single.to_dict()
    assert weights.dtype == torch.bfloat16


def test_one_layer_of_a_model_is_examined() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 5), nn.Conv2d(8, 8, 5, groups=8))
    assert kernel_health(net).layer == "0"
    depthwise = kernel_health(net, "1")
    assert depthwise.filters.nearest.tolist() == [-1] * 8
    with pytest.raises(ValueError, match="names 2 layers"):
        kernel_health(net, "*")
    with pytest.raises(ValueError, match=r"\(N, C, kH, kW\).*found \(3, 3\)"):
        kernel_health(torch.rand(3, 3))
    with pytest.raises(ValueError, match="first must be the same layer"):
        kernel_health(drawn(4, 3, 5, 5), first=drawn(4, 3, 3, 3))

"""Verdicts on layers with known faults, what is absent and why, and the forms health comes in."""

import json
import math
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kernelviz_callback import (
    Geometry,
    KernelHealth,
    Snapshot,
    kernel_grid,
    kernel_health,
    load_probe,
    load_snapshot,
    measure_probe,
    save_snapshot,
    summed_responses,
)
from kernelviz_callback.drawing.verdict_frames import flag_filters
from kernelviz_callback.health.examine import measured_from
from kernelviz_callback.health.verdict_names import VERDICT_COLOURS


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sick_layer() -> tuple[Tensor, Tensor]:
    """One fault of each kind, and the snapshot before."""
    weights = drawn(32, 3, 7, 7)
    weights[3] = 0
    weights[5] = weights[9] + 0.05 * drawn(3, 7, 7, seed=1)
    weights[7] *= 10
    weights[11, 1, 2, 3] = torch.nan
    weights[13] = -weights[14]
    weights[15] = 1.0
    previous = weights + 0.01 * drawn(32, 3, 7, 7, seed=2)
    previous[20] = weights[20]
    return weights, previous


@pytest.mark.parametrize("kernel", [(7, 7), (9,), (3, 3, 3)])
@pytest.mark.parametrize("is_nan", [False, True])
def test_the_way_may_be_counted_from_an_earlier_snapshot(
    kernel: tuple[int, ...], is_nan: bool
) -> None:
    earlier, first, weights = (drawn(12, 3, *kernel, seed=seed) for seed in range(3))
    weights[4] = earlier[5] = 0
    weights[7].view(-1)[2] = torch.inf
    if is_nan:
        weights[:] = torch.nan
    expected = kernel_health(weights, first=earlier)
    for reference in (first, None):
        moved = measured_from(earlier, weights, kernel_health(weights, first=reference))
        assert moved.absent == expected.absent
        assert moved.verdicts == expected.verdicts
        for name, values in vars(expected.filters).items():
            torch.testing.assert_close(
                getattr(moved.filters, name), values, rtol=0, atol=0, equal_nan=True
            )
        totals = torch.tensor([astuple(h.totals) for h in (moved, expected)])
        torch.testing.assert_close(*totals, rtol=0, atol=0, equal_nan=True)


def test_each_fault_is_found_and_nothing_else() -> None:
    weights, previous = sick_layer()
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


def test_a_layer_that_stands_still_has_no_frozen_filters() -> None:
    weights = drawn(8, 3, 5, 5)
    assert not kernel_health(weights, previous=weights).flagged("frozen")


def test_half_of_a_layer_may_die() -> None:
    weights = drawn(64, 3, 7, 7)
    weights[32:] *= 0.05
    health = kernel_health(weights)
    assert health.flagged("near-zero") == list(range(32, 64))
    assert not health.flagged("dominating")


def test_the_response_is_measured_without_convolving() -> None:
    probe, weights = load_probe(size=64).image, drawn(6, 3, 5, 5)
    energy = measure_probe(probe, (5, 5), channels=3, dilation=(2, 1))
    expected = summed_responses(probe, weights, dilation=(2, 1)).square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(energy.response_rms(weights), expected, rtol=1e-4, atol=1e-6)

    grouped = drawn(6, 1, 3, 3)
    energy = measure_probe(probe, (3, 3), channels=1, groups=3)
    expected = summed_responses(probe, grouped, groups=3).square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(energy.response_rms(grouped), expected, rtol=1e-4, atol=1e-6)

    grey = probe[:1].expand(64, -1, -1)
    deep = drawn(4, 64, 3, 3)
    energy = measure_probe(grey, (3, 3), channels=64)
    assert energy.moments.shape == (1, 9, 9)
    expected = summed_responses(grey, deep).square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(energy.response_rms(deep), expected, rtol=1e-3, atol=1e-5)


def test_a_filter_that_sees_nothing_in_the_probe_is_silent() -> None:
    probe = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    probe[2] = 0
    weights = drawn(16, 3, 5, 5)
    weights[4, :2] = 0
    energy = measure_probe(probe, (5, 5), channels=3)
    assert kernel_health(weights, energy=energy).flagged("silent") == [4]
    blank = measure_probe(probe * 0, (5, 5), channels=3)
    assert kernel_health(weights, energy=blank).flagged("silent") == list(range(16))
    with pytest.raises(ValueError, match="more than 2048 weights"):
        measure_probe(torch.rand(300, 8, 8), (3, 3), channels=300)


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
def test_a_large_layer_with_a_filter_that_explodes(shape: tuple[int, ...]) -> None:
    weights = drawn(*shape)
    weights[3] *= 1e20
    health = kernel_health(weights)
    assert health.flagged("dominating") == [3]
    assert health.totals.effective_rank == pytest.approx(1)
    assert math.isfinite(health.totals.variance_entropy)


def test_weights_as_small_as_float32_has_them_are_no_zeros() -> None:
    weights = drawn(8, 3, 7, 7)
    weights[1] *= 1e-25
    health = kernel_health(weights)
    assert health.flagged("near-zero") == [1]
    assert health.filters.norm[1] > 0
    torch.testing.assert_close(
        health.filters.roughness, kernel_health(drawn(8, 3, 7, 7)).filters.roughness
    )


def test_a_faded_copy_does_not_hide_a_duplicate() -> None:
    weights = drawn(16, 3, 7, 7)
    weights[5] = weights[2] + 0.05 * drawn(3, 7, 7, seed=1)
    weights[9] = 0.001 * weights[2]
    health = kernel_health(weights)
    assert health.flagged("duplicate") == [2, 5]
    assert health.flagged("near-zero") == [9]
    assert health.filters.nearest[[2, 5, 9]].tolist() == [5, 2, 2]


def test_strength() -> None:
    weights = drawn(6, 3, 5, 5)
    filters = kernel_health(weights).filters
    expected = [math.sqrt(sum(w * w for w in f.flatten().tolist()) / 75) for f in weights]
    assert filters.rms.tolist() == pytest.approx(expected, rel=1e-6)
    assert filters.norm.tolist() == pytest.approx([75**0.5 * rms for rms in expected], rel=1e-6)


def test_an_update_has_a_ratio_where_snapshots_are_one_step_apart() -> None:
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


def test_the_shares_of_what_a_layer_looks_at() -> None:
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


ABSENT = {
    "one filter": drawn(1, 3, 5, 5),
    "two filters": drawn(2, 3, 5, 5),
    "one kernel": drawn(1, 1, 5, 5),
    "pixels": drawn(8, 3, 1, 1),
    "one weight": drawn(8, 1, 1, 1),
    "even": drawn(6, 2, 4, 6),
    "small": drawn(4, 1, 3, 3),
    "constant": drawn(6, 3, 1, 1).expand(-1, -1, 5, 5),
    "grey": drawn(6, 1, 5, 5).expand(-1, 3, -1, -1),
    "zeros": torch.zeros(4, 3, 5, 5),
    "one that lives": drawn(4, 3, 5, 5) * torch.eye(4)[0, :, None, None, None],
    "NaN": torch.full((4, 3, 5, 5), torch.nan),
}


@pytest.mark.parametrize("weights", ABSENT.values(), ids=ABSENT.keys())
@pytest.mark.parametrize("compared", ["with nothing", "with itself", "with zeros"])
@pytest.mark.parametrize("groups", ["one group", "depthwise"])
def test_what_is_absent_has_a_reason(weights: Tensor, compared: str, groups: str) -> None:
    other = {"with itself": weights, "with zeros": 0 * weights}.get(compared)
    health = kernel_health(
        weights, first=other, previous=other, groups=len(weights) if groups == "depthwise" else 1
    )
    described = health.to_dict()
    json.dumps(described, allow_nan=False)
    nothing = {"nearest": -1, "antiphase": -1}
    missing = {n for n, values in described["filters"].items() if set(values) == {nothing.get(n)}}
    missing |= {name for name, value in described["totals"].items() if value is None}
    given = {name for name in health.absent if not name.endswith(("verdict", "filters"))}
    assert given == missing
    assert all(3 < len(reason) < 120 for reason in health.absent.values())
    assert not missing & health.to_scalars().keys() - {"sparsity"}
    assert all(len(line) < 180 for line in repr(health).splitlines())
    for verdict in health.verdicts:
        assert f"{verdict.name} verdict" not in health.absent


def test_the_reasons_tell_what_is_missing() -> None:
    one, pixels, small = (kernel_health(ABSENT[n]) for n in ("one filter", "pixels", "small"))
    for name in ("orthogonality", "duplicate verdict", "dominating verdict", "frozen verdict"):
        assert one.absent[name] == "there is one filter"
    assert "chance alone" in pixels.absent["duplicate verdict"]
    for name in ("autocorrelation", "frequency", "variance_entropy", "noise-like verdict"):
        assert "1x1 kernel" in pixels.absent[name]
    assert "too small" in small.absent["noise-like verdict"]
    assert "too small" in small.absent["noise_share"]
    assert "3 input channels; there are 1" in small.absent["colour"]
    two = kernel_health(ABSENT["two filters"])
    assert "4 times their median" in two.absent["dominating verdict"]
    assert "constant" in kernel_health(ABSENT["constant"]).absent["autocorrelation"]
    assert "grey" in kernel_health(ABSENT["grey"]).absent["opponent_axis"]
    assert "zero" in kernel_health(ABSENT["zeros"]).absent["effective_rank"]
    for name in ("cosine_to_first", "change_from_first", "drift"):
        assert "no first snapshot" in small.absent[name]
    for name in ("cosine_to_previous", "change_from_previous", "update_ratio", "frozen verdict"):
        assert "no snapshot before" in small.absent[name]
    for name in ("response_rms", "silent verdict"):
        assert small.absent[name] == "there is no probe"


def test_a_count_without_its_verdict_is_no_zero() -> None:
    weights = drawn(8, 3, 1, 1)
    scalars = kernel_health(weights).to_scalars()
    assert "duplicates" not in scalars
    assert "frozen" not in scalars
    assert scalars["dominating"] == scalars["dead_filters"] == scalars["non_finite"] == 0
    weights = drawn(8, 3, 5, 5)
    scalars = kernel_health(weights, previous=weights + 0.1).to_scalars()
    assert scalars["duplicates"] == scalars["frozen"] == 0
    assert kernel_health(ABSENT["NaN"]).to_scalars() == {"non_finite": 4}


def test_a_constant_filter_has_no_correlation_and_the_others_have() -> None:
    filters = kernel_health(sick_layer()[0]).filters
    assert filters.autocorrelation[15].isnan()
    assert filters.opponent_axis[15].isnan()
    assert filters.orientation[15].isnan()
    assert filters.roughness[15] == filters.frequency[15] == filters.colour[15] == 0
    assert filters.autocorrelation[[0, 1, 2, 14, 16]].isfinite().all()


@pytest.mark.parametrize(
    "weights",
    [torch.zeros(4, 3, 5, 5), torch.full((4, 3, 5, 5), torch.nan), torch.ones(4, 3, 5, 5)],
)
def test_degenerate_layers(weights: Tensor) -> None:
    health = kernel_health(weights, first=weights, previous=weights, steps_since_previous=1)
    assert repr(health)
    json.dumps(health.to_dict(), allow_nan=False)
    expected = {0.0: "near-zero", 1.0: "duplicate"}.get(weights[0, 0, 0, 0].item(), "non-finite")
    assert health.flagged(expected) == [0, 1, 2, 3]


def test_half_precision_is_measured_in_single() -> None:
    weights = drawn(8, 3, 5, 5).bfloat16()
    half, single = kernel_health(weights), kernel_health(weights.float())
    assert half.to_dict() == single.to_dict()
    assert weights.dtype == torch.bfloat16


def test_a_model_is_asked_for_one_layer() -> None:
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


def test_health_travels_with_its_snapshot(tmp_path: Path) -> None:
    weights, previous = sick_layer()
    health = kernel_health(weights, "conv1", previous=previous)
    geometry = Geometry("Conv2d", (1, 1), (0, 0), (1, 1), 1)
    snapshot = Snapshot(
        7, 0, 1.0, {"conv1": weights}, {"conv1": geometry}, health={"conv1": health}
    )
    restored = load_snapshot(save_snapshot(snapshot, tmp_path)).health["conv1"]
    assert isinstance(restored, KernelHealth)
    assert restored.to_dict() == health.to_dict()
    assert restored.verdicts == health.verdicts


def test_flags_frame_the_tiles_and_cover_no_weight() -> None:
    weights, previous = sick_layer()
    health = kernel_health(weights, previous=previous)
    plain, framed = kernel_grid(weights), kernel_grid(weights, flags=flag_filters(health))
    for i, name in enumerate(health.gravest()):
        assert torch.equal(framed.tile(i), plain.tile(i))
        rows, columns = framed.layout.box(i, margin=1)
        ring = torch.cat([framed.pixels[rows, columns][0], framed.pixels[rows, columns][:, -1]])
        is_framed = (ring == torch.tensor(VERDICT_COLOURS[name or "silent"])).all()
        assert is_framed == (name is not None)
    healthy = kernel_grid(
        weights[:1].repeat(32, 1, 1, 1), flags=flag_filters(kernel_health(drawn(32, 3, 3, 3)))
    )
    assert healthy.layout.gap == framed.layout.gap


def test_a_chart() -> None:
    figure, axes = kernel_health(sick_layer()[0]).plot()
    assert axes.shape == (2, 2)
    heights = [bar.get_height() for bar in axes[0, 0].patches]
    assert np.argmax(np.nan_to_num(heights)) == 7
    figure.canvas.draw()
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown[:3] == ["healthy", "non-finite", "near-zero"]

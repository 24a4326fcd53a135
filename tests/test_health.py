"""Verdicts on layers with known faults, what is absent and why, and the forms health comes in."""

import json
import math
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
from kernelviz_callback.flags import flag_filters
from kernelviz_callback.verdicts import VERDICT_COLOURS


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


@pytest.mark.parametrize("shape", [(1, 3, 5, 5), (8, 3, 1, 1), (6, 2, 4, 6), (4, 1, 3, 3)])
def test_what_does_not_exist_is_absent_with_a_reason(shape: tuple[int, ...]) -> None:
    health = kernel_health(drawn(*shape))
    described = health.to_dict()
    json.dumps(described, allow_nan=False)
    is_pixel = shape[2:] == (1, 1)
    assert (described["filters"]["autocorrelation"][0] is None) == is_pixel
    assert (described["filters"]["frequency"][0] is None) == is_pixel
    assert ("smoothness, frequency" in health.absent) == is_pixel
    assert (described["totals"]["orthogonality"] is None) == (shape[0] == 1)
    assert ("colour" in health.absent) == (shape[1] != 3)
    if shape[0] == 1:
        assert "no two filters" in health.absent["duplicate verdict"]
    if is_pixel:
        assert "chance alone" in health.absent["duplicate verdict"]
    if shape[2:] == (3, 3):
        assert "too small" in health.absent["noise-like verdict, spectrum shares"]
        assert described["totals"]["noise_share"] is None
        assert "noise_share" not in health.to_scalars()


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
    with pytest.raises(ValueError, match=r"\(N, C, kH, kW\); found \(3, 3\)"):
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

"""The health of the layers of a training, snapshot by snapshot and after a resume."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kernelviz_callback import Geometry, Snapshot, load_probe, load_snapshot, save_snapshot
from kernelviz_callback.training import health_monitor
from kernelviz_callback.training.failures import Failures
from kernelviz_callback.training.health_monitor import HealthMonitor

PLAIN = Geometry("Conv2d", (1, 1), (0, 0), (1, 1), 1)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def snapshot(step: int, **layers: Tensor) -> Snapshot:
    return Snapshot(step, 0, 0.0, layers, dict.fromkeys(layers, PLAIN))


@pytest.fixture
def monitor() -> HealthMonitor:
    return HealthMonitor(load_probe(size=32))


def test_a_layer_that_cannot_be_examined_does_not_affect_the_others(
    monitor: HealthMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    examine = health_monitor.kernel_health

    def fail_for_bad(weights: Tensor, name: str, **options: object) -> object:
        if name == "bad":
            raise ArithmeticError("no")
        return examine(weights, name, **options)

    failures = Failures()
    first = snapshot(0, bad=drawn(8, 3, 5, 5), good=drawn(8, 3, 5, 5))
    with monkeypatch.context() as patched:
        patched.setattr(health_monitor, "kernel_health", fail_for_bad)
        assert list(monitor.observe(first, failures)) == ["good"]
    assert list(failures.found) == ["examine the filters of bad"]
    later = snapshot(1, bad=1.5 * first.weights["bad"], good=first.weights["good"])
    found = monitor.observe(later, Failures())
    assert found["bad"].totals.drift == pytest.approx(0.5)
    assert found["bad"].totals.update_ratio == pytest.approx(0.5)
    assert found["good"].totals.drift == 0


def numbers(monitor: HealthMonitor, step: int, weights: Tensor) -> dict[str, float]:
    return monitor.numbers(monitor.observe(snapshot(step, conv=weights), Failures()))


def test_a_number_that_is_missing_later_is_nan(monitor: HealthMonitor) -> None:
    weights = drawn(8, 3, 5, 5)
    at_start = numbers(monitor, 0, weights)
    assert (at_start["conv/drift"], at_start["conv/frozen"]) == (0, 0)
    assert "conv/update_ratio" not in at_start
    after_one = numbers(monitor, 1, weights + 0.01)
    assert after_one["conv/drift"] > 0
    assert after_one["conv/frozen"] == 0
    apart = numbers(monitor, 5, weights + 0.02)
    assert "conv/update_ratio" in after_one
    assert "conv/update_ratio" not in apart
    assert apart.keys() == after_one.keys() - {"conv/update_ratio"}
    broken = numbers(monitor, 6, weights * torch.nan)
    assert broken.pop("conv/non_finite") == 8
    assert broken.keys() == after_one.keys() - {"conv/non_finite"}
    assert all(map(math.isnan, broken.values()))


def test_the_drift_starts_again_after_a_change_of_the_shape(monitor: HealthMonitor) -> None:
    weights = drawn(8, 3, 5, 5)
    numbers(monitor, 0, weights)
    assert numbers(monitor, 1, 1.5 * weights)["conv/drift"] == pytest.approx(0.5)
    pruned = weights[:6]
    at_change = numbers(monitor, 2, pruned)
    assert (at_change["conv/drift"], at_change["conv/frozen"]) == (0, 0)
    assert numbers(monitor, 3, 1.25 * pruned)["conv/drift"] == pytest.approx(0.25)


def test_a_first_snapshot_without_finite_weights_has_no_drift(monitor: HealthMonitor) -> None:
    assert "conv/drift" not in numbers(monitor, 0, torch.full((8, 3, 5, 5), torch.nan))


def test_a_layer_of_one_filter_has_no_count_of_frozen_filters(monitor: HealthMonitor) -> None:
    for step in range(2):
        found = numbers(monitor, step, drawn(1, 3, 5, 5))
        assert "conv/drift" in found
        assert "conv/frozen" not in found


def test_a_number_that_never_existed_is_not_logged(monitor: HealthMonitor) -> None:
    small = drawn(8, 1, 3, 3)
    for step in range(3):
        assert "conv/noise_share" not in numbers(monitor, step, small)


@pytest.mark.parametrize("is_examined", [True, False])
def test_after_a_resume_no_warning_is_repeated(tmp_path: Path, is_examined: bool) -> None:
    before, weights = HealthMonitor(load_probe(size=32)), drawn(8, 3, 5, 5)
    weights[2] = 0
    for step in range(3):
        taken = snapshot(step, conv=weights + 0.01 * step * (weights != 0))
        health = before.observe(taken, Failures()) if is_examined else {}
        save_snapshot(Snapshot(**{**vars(taken), "health": health}), tmp_path)
    assert not is_examined or any("is near-zero" in said for said in before.news)
    after = HealthMonitor(load_probe(size=32))
    after.recall(map(load_snapshot, sorted(tmp_path.iterdir())), Failures())
    assert not after.news
    assert "1 near-zero" in after.summary()
    found = after.observe(snapshot(3, conv=weights + 0.03 * (weights != 0)), Failures())
    assert not after.news, "the verdict has held since before the resume"
    assert found["conv"].totals.drift > 0
    assert found["conv"].totals.update_ratio < found["conv"].totals.drift
    weights[3] = torch.nan
    after.observe(snapshot(4, conv=weights), Failures())
    [said] = after.news
    assert "1 of 8 filters is non-finite since step 4" in said


def test_the_summary_describes_the_last_snapshot(monitor: HealthMonitor) -> None:
    weights = drawn(8, 3, 5, 5)
    assert monitor.summary() == ""
    numbers(monitor, 0, weights)
    assert monitor.summary().startswith("conv: 8 filters, ")
    weights = 1.5 * weights
    weights[1:3] = 0
    numbers(monitor, 1, weights)
    assert monitor.summary().startswith("conv: 8 filters, 2 near-zero")
    drift = monitor.observe(snapshot(2, conv=weights), Failures())["conv"].totals.drift
    assert monitor.summary().endswith(f", drift {drift:.2g}")


def test_the_summary_has_the_verdicts_that_are_not_possible(monitor: HealthMonitor) -> None:
    weights = drawn(8, 3, 3, 3)
    numbers(monitor, 0, weights)
    assert monitor.summary() == "conv: 8 filters, none with a verdict (noise-like not judged)"
    weights[2] = 0
    numbers(monitor, 1, weights)
    assert "8 filters, 1 near-zero (noise-like not judged), drift " in monitor.summary()

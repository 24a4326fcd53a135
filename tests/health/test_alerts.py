"""There is one warning when a verdict begins, and another when its number of filters doubles."""

import pytest
import torch

from kernelviz_callback import kernel_health
from kernelviz_callback.health import alerts as alerts_module
from kernelviz_callback.health.alerts import LayerAlerts


def layer(dead: int, *, has_nan: bool = False) -> torch.Tensor:
    weights = torch.randn(16, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    weights[:dead] = 0
    if has_nan:
        weights[15, 0, 0, 0] = torch.nan
    return weights


def warnings_for(*dead: int) -> list[list[str]]:
    """Return the warnings at steps 0, 10, 20, ... for these numbers of dead filters."""
    alerts = LayerAlerts()
    return [alerts.update(kernel_health(layer(n), "conv1"), 10 * i) for i, n in enumerate(dead)]


def test_there_is_one_warning_when_a_verdict_begins() -> None:
    found = warnings_for(0, 3, 3, 3, 3)
    assert [len(s) for s in found] == [0, 0, 1, 0, 0]
    assert found[2][0].startswith("conv1: 3 of 16 filters are near-zero since step 10: 0, 1, 2. ")
    assert "Common causes: " in found[2][0]


@pytest.mark.parametrize("needed", [1, 2, 3])
def test_a_verdict_begins_and_ends_after_as_many_snapshots(
    needed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts_module, "SNAPSHOTS_TO_CHANGE", needed)
    found = warnings_for(0, *[3] * needed, *[0] * needed, *[3] * needed)
    assert [len(s) for s in found] == [0, *[0] * (needed - 1), 1, *[0] * (2 * needed - 1), 1]
    short = warnings_for(0, *[3] * needed, *[0] * (needed - 1), *[3] * needed)
    assert sum(len(s) for s in short) == 1
    assert not any(warnings_for(0, *[3] * (needed - 1), 0, *[3] * (needed - 1)))


def test_a_snapshot_that_is_examined_again_counts_once() -> None:
    alerts = LayerAlerts()
    health = kernel_health(layer(3), "conv1")
    assert not alerts.update(health, 10)
    assert not alerts.update(health, 10)
    assert alerts.update(health, 20)


def test_a_verdict_at_one_snapshot_causes_no_warning() -> None:
    assert not any(warnings_for(0, 3, 0, 3, 0, 3, 0))


def test_one_snapshot_without_the_verdict_does_not_end_it() -> None:
    assert [len(s) for s in warnings_for(3, 3, 0, 3, 3, 0, 3, 3)] == [0, 1, 0, 0, 0, 0, 0, 0]


def test_there_is_another_warning_when_the_number_doubles_or_the_verdict_returns() -> None:
    found = warnings_for(2, 2, 3, 3, 4, 4)
    assert [len(s) for s in found] == [0, 1, 0, 0, 0, 1]
    assert "4 of 16 filters are near-zero since step 40 (was 2)" in found[5][0]
    assert [len(s) for s in warnings_for(2, 2, 0, 0, 2, 2)] == [0, 1, 0, 0, 0, 1]


def test_a_filter_that_is_not_finite_causes_a_warning_at_once() -> None:
    alerts = LayerAlerts()
    [warning] = alerts.update(kernel_health(layer(0, has_nan=True), "conv1"), 5)
    assert warning.startswith("conv1: 1 of 16 filters is non-finite since step 5: 15")


def test_noise_at_the_first_snapshot_causes_no_warning() -> None:
    noise = kernel_health(layer(0), "conv1")
    smooth = kernel_health(layer(0) * 0.1 + 1, "conv1")
    assert len(noise.flagged("noise-like")) >= 14
    assert not smooth.flagged("noise-like")
    alerts = LayerAlerts()
    for step in range(3):
        assert not any("noise" in s for s in alerts.update(noise, step))
    for step in range(3, 6):
        alerts.update(smooth, step)
    alerts.update(noise, 6)
    assert any("noise-like" in s for s in alerts.update(noise, 7))

"""There is one warning when a verdict begins, and another when its number of filters doubles."""

import pytest
import torch

from kernelviz_callback import kernel_health
from kernelviz_callback.health import alerts as alerts_module
from kernelviz_callback.health.alerts import LayerAlerts
from kernelviz_callback.health.kernel_health import KernelHealth

NOISE = torch.randn(64, 3, 5, 5, generator=torch.Generator().manual_seed(0))
NOISE = NOISE[[*kernel_health(NOISE).flagged("noise-like")]]


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
    assert "4 of 16 filters are near-zero since steps 0 to 40 (was 2): 0, 1, 2, 3. " in found[5][0]
    assert [len(s) for s in warnings_for(2, 2, 0, 0, 2, 2)] == [0, 1, 0, 0, 0, 1]


def test_a_number_that_falls_and_rises_again_causes_no_other_warning() -> None:
    found = warnings_for(0, 4, 4, 2, 2, 4, 4, 1, 1, 2, 2, 4, 4)
    assert [i for i, said in enumerate(found) if said] == [2]
    found = warnings_for(0, 4, 4, 1, 1, 8, 8)
    assert [i for i, said in enumerate(found) if said] == [2, 6]
    assert "8 of 16 filters are near-zero since steps 10 to 50 (was 4): " in found[6][0]


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


def noise(filters: range) -> KernelHealth:
    """Return the health of a layer in which these filters are noise, and the others smooth."""
    weights = 0.1 * layer(0) + 1
    weights[filters.start : filters.stop] = NOISE[: len(filters)]
    return kernel_health(weights, "conv1")


def noise_warnings(*filters: range) -> list[list[str]]:
    """Return the warnings on noise at steps 0, 10, 20, ... for these filters."""
    alerts = LayerAlerts()
    found = [alerts.update(noise(each), 10 * i) for i, each in enumerate(filters)]
    return [[said for said in each if "noise-like" in said] for each in found]


def test_noise_that_returns_is_compared_with_the_smallest_number() -> None:
    many, few, none = range(12), range(2), range(0)
    assert not any(noise_warnings(many, many, many, few, few, few))
    found = noise_warnings(many, few, few, range(4), range(4), few, few, range(4), range(4))
    assert [i for i, said in enumerate(found) if said] == [4]
    assert found[4][0].startswith(
        "conv1: 4 of 16 filters are noise-like since steps 0 to 30 (was 2): 0, 1, 2, 3. "
    )
    found = noise_warnings(few, none, none, few, few)
    assert [i for i, said in enumerate(found) if said] == [4], "filters of the start lost it"
    assert found[4][0].startswith("conv1: 2 of 16 filters are noise-like since step 30: 0, 1. ")


def test_noise_that_comes_while_much_is_noise_from_the_start_causes_no_warning() -> None:
    early, later = range(6), range(11)
    assert not any(noise_warnings(early, later, later, later))
    assert any(noise_warnings(early, range(12), range(12)))

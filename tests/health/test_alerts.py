"""A verdict is told when it begins and stays, once, and again only when it has doubled."""

import torch

from kernelviz_callback import kernel_health
from kernelviz_callback.health.alerts import Alarm


def layer(dead: int, *, broken: bool = False) -> torch.Tensor:
    weights = torch.randn(16, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    weights[:dead] = 0
    if broken:
        weights[15, 0, 0, 0] = torch.nan
    return weights


def told(*dead: int) -> list[list[str]]:
    """What is said at step 0, 10, 20, ... with so many dead filters."""
    alarm = Alarm()
    return [alarm.observe(kernel_health(layer(n), "conv1"), 10 * i) for i, n in enumerate(dead)]


def test_what_begins_is_told_once() -> None:
    said = told(0, 3, 3, 3, 3)
    assert [len(s) for s in said] == [0, 0, 1, 0, 0]
    assert said[2][0].startswith("conv1: 3 of 16 filters are near-zero since step 10: 0, 1, 2. ")
    assert "Common causes: " in said[2][0]


def test_a_passing_verdict_is_not_told() -> None:
    assert not any(told(0, 3, 0, 3, 0, 3, 0))


def test_flicker_is_no_second_beginning() -> None:
    assert [len(s) for s in told(3, 3, 0, 3, 3, 0, 3, 3)] == [0, 1, 0, 0, 0, 0, 0, 0]


def test_it_is_told_again_when_it_doubles_or_comes_back() -> None:
    said = told(2, 2, 3, 3, 4, 4)
    assert [len(s) for s in said] == [0, 1, 0, 0, 0, 1]
    assert "4 of 16 filters are near-zero since step 40 (was 2)" in said[5][0]
    assert [len(s) for s in told(2, 2, 0, 0, 2, 2)] == [0, 1, 0, 0, 0, 1]


def test_what_is_not_finite_is_told_at_once() -> None:
    alarm = Alarm()
    [said] = alarm.observe(kernel_health(layer(0, broken=True), "conv1"), 5)
    assert said.startswith("conv1: 1 of 16 filters is non-finite since step 5: 15")


def test_noise_at_the_start_is_where_training_starts() -> None:
    noise = kernel_health(layer(0), "conv1")
    formed = kernel_health(layer(0) * 0.1 + 1, "conv1")
    assert len(noise.flagged("noise-like")) >= 14
    assert not formed.flagged("noise-like")
    alarm = Alarm()
    for step in range(3):
        assert not any("noise" in s for s in alarm.observe(noise, step))
    for step in range(3, 6):
        alarm.observe(formed, step)
    alarm.observe(noise, 6)
    assert any("noise-like" in s for s in alarm.observe(noise, 7))

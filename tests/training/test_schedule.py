"""The steps and epochs at which a snapshot is due."""

import pytest

from kernelviz_callback.training.schedule import Schedule


def due(schedule: Schedule, steps: list[int], epoch: int = 0) -> list[int]:
    pairs = zip([0, *steps], steps, strict=False)
    return [after for before, after in pairs if schedule.due_after_steps(before, after, epoch)]


def test_early_steps_are_powers_of_two_of_the_first_epoch_only() -> None:
    assert due(Schedule(), list(range(1, 40))) == [1, 2, 4, 8, 16, 32]
    assert due(Schedule(), list(range(1, 40)), epoch=1) == []
    assert due(Schedule(early_steps=False), list(range(1, 40))) == []


def test_a_call_after_several_steps_is_due_if_one_of_them_is() -> None:
    assert due(Schedule(), [3, 6, 9, 12, 15, 18]) == [3, 6, 9, 18]
    every_five = Schedule(every_n_train_steps=5, early_steps=False)
    assert due(every_five, [2, 4, 6, 8, 10, 12]) == [6, 10]


def test_nothing_is_due_if_no_step_was_done() -> None:
    schedule = Schedule(every_n_train_steps=1)
    assert not schedule.due_after_steps(4, 4, 0)


def test_every_nth_epoch_is_due() -> None:
    assert [e for e in range(7) if Schedule(every_n_epochs=3).due_after_epoch(e)] == [2, 5]
    assert not any(Schedule(every_n_epochs=None).due_after_epoch(e) for e in range(7))


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
@pytest.mark.parametrize("name", ["every_n_epochs", "every_n_train_steps"])
def test_the_error_for_a_bad_interval_names_the_argument(name, value) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a whole number from 1 on"):
        Schedule(**{name: value})

"""One callback in two Trainers: one after the other is possible, at the same time it is refused."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import STEPS, TinyNet, steps_on_disk
from lightning.pytorch import Callback, Trainer

from kernelviz_callback import KernelVizCallback


class AtStep3(Callback):
    def __init__(self, do: Callable[[], None]) -> None:
        self.do = do

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 3:
            with torch.random.fork_rng():
                self.do()


@pytest.fixture
def alone(fit) -> torch.Tensor:
    return trained(fit)[0]


def trained(fit, *callbacks: Callback) -> tuple[torch.Tensor, Trainer]:
    torch.manual_seed(11)
    model = TinyNet()
    trainer = fit(*callbacks, model=model)
    return model.conv.weight.detach(), trainer


def test_a_second_fit_is_refused_and_the_first_goes_on(fit, trainer_for, alone) -> None:
    callback = KernelVizCallback(every_n_train_steps=1)

    def fit_another() -> None:
        with pytest.raises(RuntimeError, match="in use: another Trainer fits with it right now"):
            trainer_for(callback, logger=False).fit(TinyNet())

    weights, trainer = trained(fit, callback, AtStep3(fit_another))
    assert torch.equal(weights, alone)
    assert steps_on_disk(trainer.log_dir) == list(range(STEPS + 1))


def test_another_trainer_may_validate_meanwhile(fit, trainer_for, alone) -> None:
    callback = KernelVizCallback(every_n_train_steps=1)

    def validate() -> None:
        trainer_for(callback, logger=False).validate(TinyNet(), verbose=False)

    weights, trainer = trained(fit, callback, AtStep3(validate))
    assert torch.equal(weights, alone)
    assert steps_on_disk(trainer.log_dir) == list(range(STEPS + 1))


def test_a_fit_that_failed_does_not_refuse_the_next(fit, trainer_for) -> None:
    def fail() -> None:
        raise ValueError("no more data")

    class FailsToo(Callback):
        def on_exception(self, *_: Any) -> None:
            raise OSError("no place to report")  # then the callback behind is not called

    callback = KernelVizCallback(every_n_train_steps=1)
    failed = trainer_for(FailsToo(), callback, AtStep3(fail))
    with pytest.raises(OSError, match="no place"):
        failed.fit(TinyNet())
    trainer = fit(callback)
    assert steps_on_disk(trainer.log_dir) == list(range(STEPS + 1))
    assert steps_on_disk(failed.log_dir) == [0, 1, 2, 3]
    assert not [t for t in threading.enumerate() if t.name.startswith("kernelviz")]

"""The numbers of health where the user looks for numbers: every logger, and Lightning's metrics."""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent import futures
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import torch

from kernelviz_callback.training.failures import Failures
from kernelviz_callback.training.loggers.registry import takes_numbers

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

PREFIX = "kernelviz/"
# If the thread that examines the filters should have died, a training is not to wait for it.
_LONGEST_WAIT = 60.0  # seconds


class HealthLog:
    """Logs the numbers of each snapshot when they are there, from the training's thread.

    Destinations that may be used from any thread have them already. Other loggers get them at a
    later step, with the step that they are of. Lightning's metrics get the newest that there are
    at the end of an epoch, of a training on one process, and the last at its end; and at once on
    all processes, for which the training waits, if a callback or a scheduler monitors one of them.
    """

    def __init__(self) -> None:
        self._expected: deque[tuple[int, Future[dict[str, float]]]] = deque()
        self._newest: dict[str, float] = {}
        self._is_due = False

    def expect(self, step: int, scalars: "Future[dict[str, float]] | None") -> None:
        """Note that a snapshot was taken, on every process; only rank zero has its numbers."""
        self._is_due = True
        if scalars is not None:
            self._expected.append((step, scalars))

    def log(
        self,
        trainer: "Trainer",
        failures: Failures,
        *,
        log: Callable[..., None] | None,
        at_epoch_end: bool = False,
    ) -> None:
        """Log what is there by now.

        Args:
            trainer: All its loggers get the numbers.
            failures: Is told of a logger that fails.
            log: ``Callback.log``, None where Lightning does not allow it.
            at_epoch_end: Which of Lightning's hooks this is: the end of an epoch or of a batch.
        """
        is_awaited = log is not None and _is_monitored(trainer)
        # Whatever happens here on rank zero, the other processes wait for it below.
        with failures.survive("log numbers", "pictures and snapshots are kept"):
            while self._expected and (is_awaited or log is None or self._expected[0][1].done()):
                step, scalars = self._expected.popleft()
                self._newest |= log_numbers(trainer.loggers, scalars, step, failures)
        is_due, self._is_due = self._is_due, False
        if log is not None and is_awaited:
            self._log_for_monitors(trainer, log, is_due=is_due, at_epoch_end=at_epoch_end)
        elif at_epoch_end:
            self.leave(trainer)

    def leave(self, trainer: "Trainer") -> None:
        """Give the newest numbers to whoever looks at the metrics, of a training on one process.

        Lightning's own way to log takes half a millisecond a number.
        """
        if trainer.world_size == 1 and self._newest:
            newest, self._newest = self._newest, {}
            numbers = {n: torch.tensor(x, dtype=torch.float32) for n, x in newest.items()}
            trainer.callback_metrics.update(numbers)

    def _log_for_monitors(
        self, trainer: "Trainer", log: Callable[..., None], *, is_due: bool, at_epoch_end: bool
    ) -> None:
        newest, self._newest = self._newest, {}
        is_alone = trainer.world_size == 1
        if not is_alone:
            newest = trainer.strategy.broadcast(newest) if is_due else {}
        for name, value in newest.items():
            log(
                name,
                value,
                logger=False,
                on_step=not at_epoch_end,
                on_epoch=at_epoch_end,
                sync_dist=not is_alone,  # the mean of what is equal everywhere
            )


def log_numbers(
    loggers: Iterable[Any], scalars: "Future[dict[str, float]]", step: int, failures: Failures
) -> dict[str, float]:
    """Wait for the numbers of a step and give them to the loggers that do not have them already."""
    try:
        numbers = scalars.result(_LONGEST_WAIT)
    except futures.TimeoutError:  # not the builtin one before Python 3.11
        return {}
    if numbers:
        for logger in loggers:
            name = type(logger).__name__
            with failures.survive(f"log numbers to {name}", "pictures and snapshots are kept"):
                if not takes_numbers(logger):
                    logger.log_metrics(numbers, step=step)
    return numbers


def _is_monitored(trainer: "Trainer") -> bool:
    """Whether a callback or a scheduler is steered by one of the numbers."""
    watchers: list[Any] = [*trainer.callbacks, *trainer.lr_scheduler_configs]  # type: ignore[attr-defined]
    return any(str(getattr(w, "monitor", "")).startswith(PREFIX) for w in watchers)

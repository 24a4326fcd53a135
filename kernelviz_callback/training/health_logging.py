"""Log the health numbers to every logger and to Lightning's metrics."""

import locale
from collections import deque
from collections.abc import Callable, Iterable
from concurrent import futures
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import torch

from kernelviz_callback.training.failures import Failures
from kernelviz_callback.training.health_monitor import PREFIX
from kernelviz_callback.training.loggers.registry import takes_numbers

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

# Seconds to wait for the numbers of a snapshot. The limit keeps a training from waiting forever if
# a file or a logger does not answer. It waits again when a snapshot was examined in time.
_LONGEST_WAIT = 60.0


class HealthLog:
    """Logs the health numbers of snapshots from the thread of the training.

    - Loggers: a destination that may be called from any thread got the numbers together with the
      pictures. Every other logger gets them here when they are ready, with the step of their
      snapshot.
    - Lightning's metrics: in a training on one process they get the newest numbers at the end of
      each epoch, and the last ones at the end of the training. If a callback or a scheduler
      monitors one of the numbers, the metrics of all processes get them after each snapshot; the
      training waits for that.
    """

    def __init__(self) -> None:
        self._expected: deque[tuple[int, Future[dict[str, float]]]] = deque()
        self._newest: dict[str, float] = {}
        self._is_new = False
        self._patience = _LONGEST_WAIT

    @property
    def is_waiting(self) -> bool:
        """Whether numbers of a snapshot are still to be logged with `log`."""
        return self._is_new or bool(self._expected)

    def expect(self, step: int, scalars: "Future[dict[str, float]] | None") -> None:
        """Note that a snapshot was taken. Every process must call this method.

        Args:
            step: Step of the snapshot.
            scalars: Its numbers, when they are ready; None on all processes but rank zero.
        """
        self._is_new = True
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
        """Log the numbers that are ready.

        Args:
            trainer: The trainer, whose loggers get the numbers.
            failures: Gets the failures of loggers.
            log: ``LightningModule.log``; None at the end of the training, when the recording is
                closed and Lightning does not allow to call it.
            at_epoch_end: Whether the hook is that of the end of an epoch, not of a batch.
        """
        is_awaited = log is not None and _is_monitored(trainer)
        # An exception here on rank zero must not skip the broadcast below: the other processes wait
        # for it.
        with failures.survive("log numbers", "pictures and snapshots are kept"):
            while self._expected and (is_awaited or self._expected[0][1].done()):
                step, scalars = self._expected.popleft()
                self._newest |= log_numbers(
                    trainer.loggers, scalars, step, failures, patience=self._patience
                )
                self._patience = _LONGEST_WAIT if scalars.done() else 0.0
        is_new, self._is_new = self._is_new, False
        if log is not None and is_awaited:
            self._log_for_monitors(trainer, log, is_new=is_new, at_epoch_end=at_epoch_end)
        elif at_epoch_end:
            self.update_metrics(trainer)

    def update_metrics(self, trainer: "Trainer") -> None:
        """Put the newest numbers into ``trainer.callback_metrics``, in a training on one process.

        ``LightningModule.log`` is not used, because it takes half a millisecond for each number.
        """
        if trainer.world_size == 1 and self._newest:
            newest, self._newest = self._newest, {}
            numbers = {
                n: torch.tensor(x, dtype=torch.float32, device="cpu") for n, x in newest.items()
            }
            trainer.callback_metrics.update(numbers)

    def _log_for_monitors(
        self, trainer: "Trainer", log: Callable[..., None], *, is_new: bool, at_epoch_end: bool
    ) -> None:
        newest, self._newest = self._newest, {}
        is_alone = trainer.world_size == 1
        if not is_alone:
            newest = trainer.strategy.broadcast(newest) if is_new else {}
        for name, value in newest.items():
            log(
                name,
                value,
                logger=False,
                on_step=not at_epoch_end,
                on_epoch=at_epoch_end,
                sync_dist=not is_alone,  # the mean of equal values does not change them
            )


def log_numbers(
    loggers: Iterable[Any],
    scalars: "Future[dict[str, float]]",
    step: int,
    failures: Failures,
    *,
    patience: float = 0.0,
) -> dict[str, float]:
    """Wait for the numbers of a step, and log them to the loggers that do not have them yet.

    Args:
        loggers: Loggers with a ``log_metrics``.
        scalars: The numbers, when they are ready.
        step: Step of the snapshot.
        failures: Gets the failures of loggers.
        patience: Seconds to wait for the numbers.

    Returns:
        The numbers: tag to value. Empty if they were not ready in time.
    """
    try:
        numbers = scalars.result(patience)
    except futures.TimeoutError:  # before Python 3.11 this is not the builtin TimeoutError
        return {}
    if numbers:
        writable = {_writable(tag): number for tag, number in numbers.items()}
        for logger in loggers:
            name = type(logger).__name__
            with failures.survive(f"log numbers to {name}", "pictures and snapshots are kept"):
                if not takes_numbers(logger):
                    logger.log_metrics(writable, step=step)
    return numbers


def _writable(tag: str) -> str:
    """Return a tag with escapes for characters that a text file cannot have on this system.

    The CSV logger of Lightning would end the training.
    """
    encoding = locale.getpreferredencoding(False)
    return tag.encode(encoding, "backslashreplace").decode(encoding)


def _is_monitored(trainer: "Trainer") -> bool:
    """Whether a callback or a scheduler monitors one of the numbers."""
    monitors: list[Any] = [*trainer.callbacks, *trainer.lr_scheduler_configs]  # type: ignore[attr-defined]
    return any(str(getattr(m, "monitor", "")).startswith(PREFIX) for m in monitors)

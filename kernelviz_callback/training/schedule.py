"""Decide at which steps and epochs a snapshot is due."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """The steps and epochs at which snapshots are due.

    Attributes:
        every_n_epochs: Due at the end of every n-th epoch; None for never.
        every_n_train_steps: Due after every n-th optimizer step; None for never.
        early_steps: Also due after optimizer steps 1, 2, 4, 8, ... of the first epoch.
    """

    every_n_epochs: int | None = 1
    every_n_train_steps: int | None = None
    early_steps: bool = True

    def __post_init__(self) -> None:
        for name in ("every_n_epochs", "every_n_train_steps"):
            n = getattr(self, name)
            if n is not None and (not isinstance(n, int) or isinstance(n, bool) or n < 1):
                raise ValueError(f"{name} must be a whole number from 1 on, or None; found {n!r}")

        if not isinstance(self.early_steps, bool):
            raise ValueError(f"early_steps must be True or False; found {self.early_steps!r}")

    def due_after_steps(self, previous: int, step: int, epoch: int) -> bool:
        """Whether a snapshot is due after one of the steps ``previous + 1`` to ``step``.

        With several optimizers, one batch may do more than one step.

        Args:
            previous: Optimizer steps at the previous call.
            step: Optimizer steps so far.
            epoch: Number of the epoch, from 0.

        Example:
            >>> [s for s in range(1, 20) if Schedule().due_after_steps(s - 1, s, epoch=0)]
            [1, 2, 4, 8, 16]
        """
        n = self.every_n_train_steps
        if n is not None and step // n > previous // n:
            return True
        return self.early_steps and epoch == 0 and step.bit_length() > previous.bit_length()

    def due_after_epoch(self, epoch: int) -> bool:
        """Whether a snapshot is due at the end of ``epoch``, which is counted from 0."""
        return self.every_n_epochs is not None and (epoch + 1) % self.every_n_epochs == 0

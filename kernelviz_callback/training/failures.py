"""Failures that a training survives: each is said once, with what is lost and what is kept."""

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed

# What a launcher tells a process of its rank, before the processes are joined.
_RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK")

_log = logging.getLogger("kernelviz_callback")
_log.setLevel(logging.INFO)
if not logging.getLogger().hasHandlers():  # nobody else would show what is said
    _log.addHandler(logging.StreamHandler())
    _log.propagate = False

_reporting = threading.Lock()  # the training reports, and so do its observers


class Mishaps:
    """What went wrong with one snapshot."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[str, str]] = {}
        self.succeeded: set[str] = set()

    @contextmanager
    def survive(self, attempt: str, consequence: str) -> Iterator[None]:
        """Note whatever exception the body raises, and go on after it.

        Args:
            attempt: What the body does, as in "could not ...".
            consequence: What is lost by it, and what is kept.
        """
        try:
            yield
            self.succeeded.add(attempt)
        except Exception as error:
            self.note(attempt, f"{type(error).__name__}: {error}", consequence)

    def note(self, attempt: str, reason: str, consequence: str) -> None:
        """Note a failure that raised nothing."""
        self.found.setdefault(attempt, (reason, consequence))


class Reporter:
    """Tells the user of mishaps: one warning a cause, one line when it works again."""

    def __init__(self) -> None:
        self._said: set[str] = set()
        self._failing: set[str] = set()

    def report(self, mishaps: Mishaps, step: int) -> None:
        """Say what is new about the snapshot of ``step``."""
        with _reporting:
            new = {a: why for a, why in mishaps.found.items() if a not in self._said}
            over = self._failing & mishaps.succeeded - mishaps.found.keys()
            self._said |= new.keys()
            self._failing = (self._failing - over) | mishaps.found.keys()
        if new:
            causes = "; ".join(f"could not {attempt}: {why}" for attempt, (why, _) in new.items())
            lost = "; ".join(dict.fromkeys(consequence for _, consequence in new.values()))
            warn(f"at step {step} {causes}. Training goes on. {lost[0].upper()}{lost[1:]}.")
        if over:
            say(f"at step {step} it worked again to {', '.join(sorted(over))}")


def say(message: str) -> None:
    """Inform the user, on rank zero."""
    if is_rank_zero():
        _log.info(f"kernelviz: {message}")


def warn(message: str) -> None:
    """Warn on rank zero, and survive a process that turns warnings into errors."""
    if is_rank_zero():
        try:
            warnings.warn(f"kernelviz: {message}", stacklevel=3)
        except Warning as warning:
            _log.info(str(warning))


def is_rank_zero() -> bool:
    """Whether this process is the first, or the only one, of those that train together."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    ranks = (os.environ.get(name) for name in _RANKS)
    return next((rank for rank in ranks if rank is not None), "0") == "0"

"""Failures that a training survives: each is said once, with what is lost and what is kept."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from kernelviz_callback.console import _log, say, warn

_log.setLevel(logging.INFO)
if not logging.getLogger().hasHandlers():  # nobody else would show what is said
    _log.addHandler(logging.StreamHandler())
    _log.propagate = False

_reporting = threading.Lock()  # the training reports, and so do its observers


class Failures:
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


class FailureReporter:
    """Tells the user of failures: one warning a cause, one line when it works again."""

    def __init__(self) -> None:
        self._said: set[str] = set()
        self._failing: set[str] = set()

    def report(self, failures: Failures, step: int) -> None:
        """Say what is new about the snapshot of ``step``."""
        with _reporting:
            new = {a: why for a, why in failures.found.items() if a not in self._said}
            over = self._failing & failures.succeeded - failures.found.keys()
            self._said |= new.keys()
            self._failing = (self._failing - over) | failures.found.keys()
        if new:
            causes = "; ".join(f"could not {attempt}: {why}" for attempt, (why, _) in new.items())
            lost = "; ".join(dict.fromkeys(consequence for _, consequence in new.values()))
            warn(f"at step {step} {causes}. Training goes on. {lost[0].upper()}{lost[1:]}.")
        if over:
            say(f"at step {step} it worked again to {', '.join(sorted(over))}")

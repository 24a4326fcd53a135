"""Failures that a training survives. Each cause is reported once: what is lost, what is kept."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from kernelviz_callback.console import say, warn

# Seconds. An attempt that takes longer than this to fail starts a pause.
LONG_FAILURE = 1.0
# A pause lasts this many times as long as the failed attempt. Without it, a network that times out
# would slow the training at every snapshot.
_PAUSE_FACTOR = 10

_reporting = threading.Lock()  # the training's thread and the background threads report failures


class Failures:
    """The failures of one snapshot.

    Attributes:
        found: What was attempted, to the reason of the failure and its consequence.
        succeeded: What was attempted without a failure.
    """

    def __init__(self) -> None:
        self.found: dict[str, tuple[str, str]] = {}
        self.succeeded: set[str] = set()

    @contextmanager
    def survive(self, attempt: str, consequence: str) -> Iterator[None]:
        """Note an `Exception` that the body raises, and continue after the body.

        Args:
            attempt: What the body does. The warning says "could not <attempt>".
            consequence: What is lost if the body fails, and what is kept.
        """
        try:
            yield
            self.succeeded.add(attempt)
        except Exception as error:
            self.note(attempt, f"{type(error).__name__}: {error}", consequence)

    def note(self, attempt: str, reason: str, consequence: str) -> None:
        """Note a failure that raised no exception."""
        self.found.setdefault(attempt, (reason, consequence))


class FailureReporter:
    """Reports failures to the user: one warning for each cause, one message when it works again."""

    def __init__(self) -> None:
        self._reported: set[str] = set()
        self._failing: set[str] = set()

    def report(self, failures: Failures, step: int) -> None:
        """Report the new failures of the snapshot of ``step``, and what works again since it."""
        with _reporting:
            new = {a: why for a, why in failures.found.items() if a not in self._reported}
            over = self._failing & failures.succeeded - failures.found.keys()
            self._reported |= new.keys()
            self._failing = (self._failing - over) | failures.found.keys()
        if new:
            causes = "; ".join(f"could not {attempt}: {why}" for attempt, (why, _) in new.items())
            lost = "; ".join(dict.fromkeys(consequence for _, consequence in new.values()))
            warn(f"at step {step} {causes}. Training goes on. {lost[0].upper()}{lost[1:]}.")
        if over:
            say(f"at step {step} it worked again to {', '.join(sorted(over))}")


class BackOff:
    """Pauses the attempts to use a folder or a logger that took long to fail.

    Example:
        >>> folder = BackOff()
        >>> with folder.attempt():
        ...     pass  # write to the folder
    """

    def __init__(self) -> None:
        self._paused_until = 0.0

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Run the body, unless a pause has not ended yet.

        Raises:
            TimeoutError: If a pause has not ended yet. The body does not run.
        """
        start = time.monotonic()
        if start < self._paused_until:
            raise TimeoutError("the last attempt took long to fail; the next one comes later")
        try:
            yield
        except Exception:
            now = time.monotonic()
            if now - start > LONG_FAILURE:
                self._paused_until = now + _PAUSE_FACTOR * (now - start)
            raise

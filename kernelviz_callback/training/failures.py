"""Failures that do not stop a training. Each is reported once: what is lost, what is kept."""

import errno
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kernelviz_callback.console import say, warn

# Seconds. An attempt that takes longer than this to fail starts a pause.
LONG_FAILURE = 1.0
# A pause lasts this many times as long as the failed attempt. Without pauses, a network that times
# out would slow the training at every snapshot.
_PAUSE_FACTOR = 10


# A disk in one of these states fails files, pictures and films alike. That is one cause.
_DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_LOST_BY_DISK = (
    "snapshots and pictures that cannot be written to that disk are lost; what was written is kept"
)


@dataclass(frozen=True)
class Failure:
    """An attempt that failed.

    Attributes:
        reason: The reason, in words.
        consequence: What is lost, and what is kept.
        disk_fault: Name of the error if the disk is the cause, else None. All attempts that fail
            because of it are reported together, and once.
    """

    reason: str
    consequence: str
    disk_fault: str | None = None


class Failures:
    """The failures of one snapshot.

    Attributes:
        found: The attempts that failed.
        succeeded: The attempts that did not fail.
    """

    def __init__(self) -> None:
        self.found: dict[str, Failure] = {}
        self.succeeded: set[str] = set()

    @contextmanager
    def survive(self, attempt: str, consequence: str) -> Iterator[None]:
        """Note an `Exception` that the ``with`` body raises, and continue after the body.

        Args:
            attempt: What the body does, as in the warning "could not <attempt>".
            consequence: What is lost if the body fails, and what is kept. A full or read-only disk
                has the same consequence for all attempts.
        """
        try:
            yield
            self.succeeded.add(attempt)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            if isinstance(error, OSError) and error.errno in _DISK_FAULTS:
                failure = Failure(reason, _LOST_BY_DISK, errno.errorcode[error.errno])
                self.found.setdefault(attempt, failure)
            else:
                self.note(attempt, reason, consequence)

    def note(self, attempt: str, reason: str, consequence: str) -> None:
        """Note a failure that raised no exception."""
        self.found.setdefault(attempt, Failure(reason, consequence))

    def include(self, others: "Failures") -> None:
        """Add the failures of a part of the work on the snapshot."""
        self.found = others.found | self.found
        self.succeeded |= others.succeeded


class FailureReporter:
    """Reports failures to the user.

    The first failure of an attempt gives a warning; if the disk is the cause, the first failure of
    all attempts. When an attempt succeeds again, a message says so.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # the training's thread and background threads report
        self._reported: set[str] = set()  # attempts, and faults of the disk
        self._failing: set[str] = set()  # attempts

    def report(self, failures: Failures, step: int) -> None:
        """Report the new failures of the snapshot at ``step``, and the attempts that work again."""
        new: dict[str, list[str]] = {}  # of each reason, the attempts
        lost: list[str] = []
        with self._lock:
            for attempt, failure in failures.found.items():
                if (failure.disk_fault or attempt) not in self._reported:
                    new.setdefault(failure.disk_fault or failure.reason, []).append(attempt)
                    lost.append(failure.consequence)
            recovered = self._failing & failures.succeeded - failures.found.keys()
            self._reported |= {each.disk_fault or name for name, each in failures.found.items()}
            self._failing = (self._failing - recovered) | failures.found.keys()
        if new:
            causes = "; ".join(
                f"could not {' and '.join(attempts)}: {failures.found[attempts[0]].reason}"
                for attempts in new.values()
            )
            all_lost = "; ".join(dict.fromkeys(lost))
            warn(f"at step {step} {causes}. Training goes on. {all_lost[0].upper()}{all_lost[1:]}.")
        if recovered:
            say(f"at step {step} could again {', '.join(sorted(recovered))}")


class BackOff:
    """Pauses the use of a folder or a logger after an attempt that took long to fail.

    Example:
        >>> folder = BackOff()
        >>> with folder.attempt():
        ...     pass  # write to the folder
    """

    def __init__(self) -> None:
        self._paused_until = 0.0

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Run the ``with`` body, but not during a pause.

        Raises:
            TimeoutError: During a pause. The body does not run.
        """
        start = time.monotonic()
        if start < self._paused_until:
            raise TimeoutError(
                "the last attempt took long to fail; there is a pause before the next one"
            )
        try:
            yield
        except Exception:
            now = time.monotonic()
            if now - start > LONG_FAILURE:
                self._paused_until = now + _PAUSE_FACTOR * (now - start)
            raise

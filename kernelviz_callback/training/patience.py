"""Leaves alone for a while what takes long to fail: a network that times out."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

_LONG = 1.0  # seconds: what fails only after so many ...
_REST = 10  # ... is left alone for so many times as long


class Patience:
    """With one thing that may fail, a folder or a logger, for as long as it is used.

    Example:
        >>> folder = Patience()
        >>> with folder.attempt():
        ...     pass  # write to it
    """

    def __init__(self) -> None:
        self._rests_until = 0.0

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Let the body try, unless it took long to fail before.

        Raises:
            TimeoutError: If it is not to be tried again yet; the body has not run.
        """
        start = time.monotonic()
        if start < self._rests_until:
            raise TimeoutError("it took long to fail, and is not tried again yet")
        try:
            yield
        except Exception:
            now = time.monotonic()
            if now - start > _LONG:
                self._rests_until = now + _REST * (now - start)
            raise

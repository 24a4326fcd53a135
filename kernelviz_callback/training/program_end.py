"""Finish the recordings of a program that ends without closing them.

The interpreter stops its background threads wherever they are. If one of them is inside torch, the
process aborts. So the recordings are closed, and the threads end, before the interpreter does.
"""

import atexit
import os
import threading
from contextlib import suppress
from functools import cache
from typing import Protocol
from weakref import WeakSet


class Closable(Protocol):
    """Something that waits for its threads when it is closed."""

    def close(self) -> None:
        """Finish the work, end the threads, and call `is_closed`."""


_watchers: "WeakSet[Closable]" = WeakSet()
_open: set[Closable] = set()


def close_at_end(recording: Closable) -> None:
    """Close a recording when the program ends, unless `is_closed` is called before."""
    _open.add(recording)
    _arrange()


def close_first_at_end(watcher: Closable) -> None:
    """Close a watcher before its recording, if it still exists when the program ends."""
    _watchers.add(watcher)


def is_closed(recording: Closable) -> None:
    """Note that a recording is closed. A second call does nothing."""
    _open.discard(recording)


@cache
def _arrange() -> None:
    # `atexit` comes too late: executors accept no work then, and threads cannot be started.
    # `concurrent.futures` is registered in the same way. What is registered last is called first.
    register = getattr(threading, "_register_atexit", atexit.register)
    with suppress(RuntimeError):  # the program is ending already
        register(_close_all)


def _close_all() -> None:
    for closables in (_watchers, _open):
        for each in list(closables):
            with suppress(Exception):
                each.close()


def _leave_to_parent() -> None:
    """Close nothing in a forked child: the threads of the recordings are in its parent."""
    _open.clear()
    _watchers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)

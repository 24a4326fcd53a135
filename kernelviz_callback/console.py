"""Messages to the user, from the process that records.

The logger ``kernelviz_callback`` decides which messages are shown. With the level ``WARNING`` only
warnings are shown, and with the level ``ERROR`` nothing.
"""

import logging
import sys
import threading
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple

from torch import distributed

# A warning points at no line of these packages.
_NOT_OF_THE_USER = (
    "kernelviz_callback",
    "lightning",
    "pytorch_lightning",
    "torch",
    "concurrent",
    "contextlib",
    "threading",
)

_local = threading.local()  # has the place of the user for the threads of `thread_of_user`

_log = logging.getLogger("kernelviz_callback")
if _log.level == logging.NOTSET:
    _log.setLevel(logging.INFO)
if not _log.hasHandlers():  # without a handler no message would be shown
    _log.addHandler(logging.StreamHandler())
    _log.propagate = False

_given: dict[Any, Any] = {}  # the warnings so far: Python gives equal ones of a line once


def say(message: str) -> None:
    """Log a message for the user, on rank zero."""
    if is_rank_zero():
        say_everywhere(message)


def warn(message: str) -> None:
    """Warn the user, on rank zero. If warnings are turned into errors, log the message instead.

    The warning points at the line of the user's program that led to it, see `thread_of_user`. If
    there is no such line, the message is logged.
    """
    if not is_rank_zero() or not _log.isEnabledFor(logging.WARNING):
        return
    text, place = f"kernelviz: {message}", _place_of_user()
    if place is None:
        _log.warning(text)
        return
    try:
        warnings.warn_explicit(
            text, UserWarning, place.file, place.line, place.module, registry=_given
        )
    except UserWarning as warning:
        _log.warning(str(warning))


def thread_of_user(target: Callable[[], None], name: str) -> threading.Thread:
    """Make a daemon thread whose warnings point at the line of the user that leads to this call.

    Args:
        target: The function that the thread runs.
        name: Name of the thread.
    """
    place = _place_of_user()

    def run() -> None:
        _local.place = place
        target()

    return threading.Thread(target=run, name=name, daemon=True)


def is_rank_zero() -> bool:
    """Return whether this process is the first, or the only one, of a training.

    Variables such as ``RANK`` or ``SLURM_PROCID`` are not read: a launcher sets them also for
    processes that train independently. Only a process group makes them one training.
    """
    return process_rank()[0] == 0


def process_rank() -> tuple[int, int]:
    """Return the rank of this process and the number of processes in its process group."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def say_everywhere(message: str) -> None:
    """Log a message for the user, on every rank."""
    _log.info(f"kernelviz: {message}")


class _Place(NamedTuple):
    file: str
    line: int
    module: str


def _place_of_user() -> _Place | None:
    """Find the line of the user's program that leads to this call, or that made this thread."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module.partition(".")[0] not in _NOT_OF_THE_USER:
            return _Place(frame.f_code.co_filename, frame.f_lineno, module)
        frame = frame.f_back
    place: _Place | None = getattr(_local, "place", None)
    return place

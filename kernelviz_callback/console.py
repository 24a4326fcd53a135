"""Messages to the user, from the process that records.

The logger ``kernelviz_callback`` decides which messages are shown. With the level ``WARNING`` only
warnings are shown, and with the level ``ERROR`` nothing.
"""

import logging
import sys
import warnings

from torch import distributed

# A warning points at no line of these packages. They call this package.
_NOT_OF_THE_USER = (
    "kernelviz_callback",
    "lightning",
    "pytorch_lightning",
    "torch",
    "concurrent",
    "contextlib",
    "threading",
)

_log = logging.getLogger("kernelviz_callback")
if _log.level == logging.NOTSET:
    _log.setLevel(logging.INFO)
if not _log.hasHandlers():  # without a handler no message would be shown
    _log.addHandler(logging.StreamHandler())
    _log.propagate = False


def say(message: str) -> None:
    """Log a message for the user, on rank zero."""
    if is_rank_zero():
        say_everywhere(message)


def warn(message: str) -> None:
    """Warn the user, on rank zero. If warnings are turned into errors, log the message instead.

    The warning points at the line of the user's program that led to it. A warning of a background
    thread points at no line.
    """
    if is_rank_zero() and _log.isEnabledFor(logging.WARNING):
        try:
            warnings.warn(f"kernelviz: {message}", stacklevel=_level_of_the_user())
        except Warning as warning:
            _log.warning(str(warning))


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


def _level_of_the_user() -> int:
    """Count the frames from `warn` to the program of the user, as `warnings.warn` counts them."""
    level, frame = 1, sys._getframe(1)
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in _NOT_OF_THE_USER:
            return level
        level, frame = level + 1, frame.f_back  # type: ignore[assignment]
    return level  # higher than the stack: the warning names no file

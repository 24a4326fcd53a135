"""Messages to the user, from the process that records."""

import logging
import warnings

from torch import distributed

_log = logging.getLogger("kernelviz_callback")
_log.setLevel(logging.INFO)
if not logging.getLogger().hasHandlers():  # without a handler no message would be shown
    _log.addHandler(logging.StreamHandler())
    _log.propagate = False


def say(message: str) -> None:
    """Log a message for the user, on rank zero."""
    if is_rank_zero():
        say_everywhere(message)


def warn(message: str) -> None:
    """Warn the user, on rank zero. If warnings are turned into errors, log the message instead."""
    if is_rank_zero():
        try:
            warnings.warn(f"kernelviz: {message}", stacklevel=3)
        except Warning as warning:
            _log.info(str(warning))


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

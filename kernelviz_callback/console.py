"""What the user is told: on rank zero, once."""

import logging
import os
import warnings

from torch import distributed

# What a launcher tells a process of its rank, before the processes are joined.
_RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
_log = logging.getLogger("kernelviz_callback")


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

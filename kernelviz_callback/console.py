"""Messages to the user, on rank zero only."""

import logging
import os
import warnings

from torch import distributed

# Environment variables in which launchers set the rank, before torch.distributed is initialized.
_RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK")

_log = logging.getLogger("kernelviz_callback")
_log.setLevel(logging.INFO)
if not logging.getLogger().hasHandlers():  # without a handler no message would be shown
    _log.addHandler(logging.StreamHandler())
    _log.propagate = False


def say(message: str) -> None:
    """Log a message for the user, on rank zero."""
    if is_rank_zero():
        _log.info(f"kernelviz: {message}")


def warn(message: str) -> None:
    """Warn the user, on rank zero. If warnings are turned into errors, log the message instead."""
    if is_rank_zero():
        try:
            warnings.warn(f"kernelviz: {message}", stacklevel=3)
        except Warning as warning:
            _log.info(str(warning))


def is_rank_zero() -> bool:
    """Return whether this process is the first, or the only one, of a training."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    ranks = (os.environ.get(name) for name in _RANKS)
    return next((rank for rank in ranks if rank is not None), "0") == "0"

"""Leave a training free to capture CUDA graphs while other threads use the device.

``torch.cuda.graph`` captures in the global mode unless it is told otherwise. As long as such a
capture lasts, many CUDA calls of every other thread fail, and the capture fails with them. A thread
in the relaxed mode is exempt: its calls succeed, and they do not disturb the capture of another
thread. See the documentation of ``cudaThreadExchangeStreamCaptureMode`` in the CUDA runtime.
"""

import ctypes
import os
import threading
from functools import cache

import torch

from kernelviz_callback.console import warn

_RELAXED = 2  # cudaStreamCaptureModeRelaxed

_exempt = threading.local()


def exempt_this_thread() -> None:
    """Set the capture mode of the calling thread to relaxed. A second call does nothing.

    The calling thread must not capture a graph itself. If the mode cannot be set, one warning says
    that captures are at risk.
    """
    if getattr(_exempt, "is_set", False):
        return
    _exempt.is_set = True
    try:
        _set_mode(_RELAXED)
    except (OSError, AttributeError, RuntimeError) as error:
        _warn_once(str(error))


def is_capturing() -> bool:
    """Whether the calling thread captures a CUDA graph on its current stream."""
    is_in_use: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return is_in_use and torch.cuda.is_current_stream_capturing()


def _set_mode(mode: int) -> int:
    """Set the capture mode of the calling thread, and return the mode before.

    Raises:
        OSError: If torch has not loaded a CUDA runtime library.
        RuntimeError: If the runtime refuses.
    """
    exchanged = ctypes.c_int(mode)
    code = _runtime().cudaThreadExchangeStreamCaptureMode(ctypes.byref(exchanged))
    if code:
        raise RuntimeError(f"cudaThreadExchangeStreamCaptureMode returned {code}")
    return exchanged.value


@cache
def _runtime() -> ctypes.CDLL:
    """Return the CUDA runtime library that torch has loaded. Another copy has its own modes."""
    if not hasattr(os, "RTLD_NOLOAD"):
        raise OSError("the CUDA runtime library of torch can be found only on Linux and macOS")
    major = str(torch.version.cuda).partition(".")[0]
    return ctypes.CDLL(f"libcudart.so.{major}", mode=os.RTLD_NOLOAD | os.RTLD_NOW)


@cache
def _warn_once(reason: str) -> None:
    warn(
        f"snapshots are drawn on the device of the training, and a CUDA graph that is captured at "
        f"the same time may fail ({reason}). If the training captures graphs by hand, use "
        'torch.cuda.graph(..., capture_error_mode="thread_local")'
    )

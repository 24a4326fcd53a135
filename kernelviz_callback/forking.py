"""Let a process fork after this package has computed something.

torch computes in the threads of GNU OpenMP. A forked process does not have these threads, but GNU
OpenMP still waits for them there, without end (pytorch/pytorch#17199). So they are ended before a
fork. OpenMP starts them again when they are needed.
"""

import os
import sys
from functools import cache
from typing import Any

_SOFT = 1  # omp_pause_soft


def make_forks_safe() -> None:
    """End the OpenMP threads of the calling thread before each fork of this process from now on."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_end_openmp_threads)


def _end_openmp_threads() -> None:
    if "torch" in sys.modules:
        for library in _gnu_openmp():
            library.omp_pause_resource_all(_SOFT)


@cache
def _gnu_openmp() -> list[Any]:
    """Find the GNU OpenMP libraries of this process. Others can be forked as they are."""
    from threadpoolctl import ThreadpoolController

    found = ThreadpoolController().select(prefix="libgomp").lib_controllers
    libraries = [controller.dynlib for controller in found]
    return [library for library in libraries if hasattr(library, "omp_pause_resource_all")]

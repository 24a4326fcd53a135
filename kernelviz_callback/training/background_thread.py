"""One background thread that does its jobs in order. Nothing is dropped; a full queue waits."""

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import cache

import torch
from threadpoolctl import ThreadpoolController

Job = Callable[[], None]

_LOOK = 1.0  # seconds between looks whether the thread is still there
NICENESS = 10  # of 19: a tenth of a processor that others want, all of one that nobody wants


class Worker:
    """Does jobs in the order they came, beside whoever gives them.

    It uses one processor, and others go first: the training keeps its pace.

    Args:
        name: Of the thread.
        most_jobs: Unfinished jobs beyond which `submit` waits.
        most_bytes: Bytes held by unfinished jobs beyond which `submit` waits; a single job may hold
            more.
        on_error: Receives what a job raises, in the thread. The next job is done all the same.

    Example:
        >>> done = []
        >>> worker = Worker("example", most_jobs=2, most_bytes=2**20, on_error=print)
        >>> for i in range(5):
        ...     _ = worker.submit(lambda i=i: done.append(i))
        >>> worker.close()
        >>> done
        [0, 1, 2, 3, 4]
    """

    def __init__(
        self,
        name: str,
        *,
        most_jobs: int,
        most_bytes: int,
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._most_jobs = most_jobs
        self._most_bytes = most_bytes
        self._on_error = on_error
        self._jobs: deque[tuple[Job, int]] = deque()  # the first is the one being done
        self._bytes = 0
        self._closing = False
        self._ended = False
        self._changed = threading.Condition()
        # A daemon: a program that ends without `close` does not hang on its last pictures.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wait_for_room(self, size: int = 0) -> float:
        """Wait while the queue is too full for a job of ``size`` bytes.

        Returns:
            Seconds waited; 0 if there was room.
        """
        with self._changed:
            return self._wait_while(lambda: self._is_full(size))

    def submit(self, job: Job, size: int = 0) -> float:
        """Queue a job that holds ``size`` bytes; wait while the queue is too full for it.

        Returns:
            Seconds waited; 0 if there was room.

        Raises:
            RuntimeError: If the worker is closed.
        """
        with self._changed:
            waited = self._wait_while(lambda: self._is_full(size))
            if self._closing:
                raise RuntimeError(f"{self._thread.name} is closed")
            self._jobs.append((job, size))
            self._bytes += size
            self._changed.notify_all()
            return waited

    def drain(self) -> float:
        """Wait until every job is done.

        Returns:
            Seconds waited; 0 if there was none.
        """
        with self._changed:
            return self._wait_while(lambda: bool(self._jobs))

    @property
    def is_closed(self) -> bool:
        """Whether `close` has been called: nothing can be submitted any more."""
        return self._closing

    def close(self) -> None:
        """Do what is queued, then end the thread. Closing twice is once.

        If it is interrupted, the work goes on, and it may be called again.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            # Not `join`: interrupted, it takes a thread that lives for one that has ended
            # (python/cpython#90882). A forked child has no thread to wait for.
            while not self._ended and self._thread.is_alive():
                self._changed.wait(_LOOK)
        self._thread.join()

    def _wait_while(self, holds: Callable[[], bool]) -> float:
        if not holds():
            return 0.0
        start = time.perf_counter()
        self._changed.wait_for(lambda: not holds())
        return time.perf_counter() - start

    def _is_full(self, size: int) -> bool:
        too_large = self._bytes + size > self._most_bytes
        return len(self._jobs) >= self._most_jobs or (too_large and bool(self._jobs))

    def _run(self) -> None:
        # Where a sandbox forbids either, the work is done all the same.
        with contextlib.suppress(Exception):
            _use_one_processor()
        with contextlib.suppress(Exception):
            _let_others_first()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closing)
                if not self._jobs:
                    self._ended = True
                    self._changed.notify_all()
                    return
                job, size = self._jobs[0]
            self._do(job)
            del job  # it may hold tensors
            with self._changed:
                self._jobs.popleft()
                self._bytes -= size
                self._changed.notify_all()

    def _do(self, job: Job) -> None:
        """Nothing ends the thread: a training that waits for it would wait forever."""
        try:
            job()
        except BaseException as error:
            with contextlib.suppress(BaseException):
                self._on_error(error)


def _use_one_processor() -> None:
    """Limit this thread's OpenMP team to itself; no other thread's number of threads changes.

    ``torch.set_num_threads`` would change the training's, and with it the order of its sums.
    """
    torch.get_num_threads()  # torch sets a thread's number at its first use; that must come first
    _openmp().limit(limits=1)


@cache
def _openmp() -> ThreadpoolController:
    """The OpenMP libraries of this process; finding them takes milliseconds."""
    return ThreadpoolController().select(user_api="openmp")


def _let_others_first() -> None:
    """Lower this thread's priority: the training's threads wait for each other, and for the last.

    Only Linux has priorities of threads; elsewhere this would be the whole process's.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)

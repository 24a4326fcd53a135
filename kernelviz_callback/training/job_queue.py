"""A background thread that runs jobs in order. Every wait for a job has a time limit."""

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from threadpoolctl import ThreadpoolController

from kernelviz_callback.console import thread_of_user

Job = Callable[[], None]

# Seconds. Waiting is counted in slices: if the process is suspended for an hour, one slice passes.
_SLICE = 0.5
_MOST_CHECKS = 1000  # whether an ended thread is gone, one in a millisecond
# The "nice" value of the thread, from 0 to 19. With 10 the thread gets about a tenth of a busy
# processor, and all of an idle one.
NICENESS = 10


class JobQueue:
    """Runs jobs in a thread, in the order in which they were submitted.

    The thread uses one processor at a low priority, so that it does not slow the training.

    Args:
        name: Name of the thread.
        most_jobs: Number of unfinished jobs at which the queue is full.
        most_bytes: Bytes that the unfinished jobs of a queue that is not full may hold together. A
            single job may hold more.
        on_error: Called in the thread with the exception that a job raised. The next job runs
            afterwards.

    Example:
        >>> done = []
        >>> queue = JobQueue("example", most_jobs=2, most_bytes=2**20, on_error=print)
        >>> for i in range(5):
        ...     _ = queue.wait_for_room(patience=60)
        ...     queue.submit(lambda i=i: done.append(i))
        >>> queue.close(patience=60)
        True
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
        self._jobs: deque[tuple[Job, int]] = deque()  # the first job is running
        self._bytes = 0
        self._waited = 0.0  # seconds that were waited for the running job, in full slices
        self._closing = False
        self._ended = False
        self._changed = threading.Condition()
        # A daemon thread does not keep a program alive that ends without calling `close`.
        self._thread = thread_of_user(self._run, name)
        self._thread.start()

    def has_room(self, size: int = 0) -> bool:
        """Whether the queue is not too full for a job of ``size`` bytes."""
        with self._changed:
            too_large = self._bytes + size > self._most_bytes
            return len(self._jobs) < self._most_jobs and not (too_large and self._jobs)

    def wait_for_room(self, size: int = 0, *, patience: float) -> float:
        """Wait while the queue is too full for a job of ``size`` bytes.

        Args:
            size: Number of bytes.
            patience: Seconds. Ends when one job alone has been waited for as long as this, here
                and in earlier calls.

        Returns:
            Seconds waited; 0 if there was room.
        """
        return self._wait_while(lambda: not self.has_room(size), patience)

    def submit(self, job: Job, size: int = 0) -> None:
        """Queue a job that holds ``size`` bytes, also if the queue is full.

        Raises:
            RuntimeError: If `close` was called before.
        """
        with self._changed:
            if self._closing:
                raise RuntimeError(f"{self._thread.name} is closed")
            self._jobs.append((job, size))
            self._bytes += size
            self._changed.notify_all()

    def count_from_zero(self) -> None:
        """Count the waits for the running job from zero, because a part of the job is done."""
        with self._changed:
            self._waited = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether every job is done."""
        return not self._jobs

    def drain(self, *, patience: float) -> float:
        """Wait until every job is done.

        Args:
            patience: See `wait_for_room`.

        Returns:
            Seconds waited; 0 if the queue was empty.
        """
        return self._wait_while(lambda: bool(self._jobs), patience)

    def close(self, *, patience: float) -> bool:
        """Run the queued jobs, then end the thread. A second call waits for the same.

        If ``KeyboardInterrupt`` ends this method early, the thread continues with the queued jobs,
        and this method may be called again.

        Args:
            patience: See `wait_for_room`.

        Returns:
            Whether the thread has ended. If not, it continues with the queued jobs.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        # `join` is not used here: after an interrupt it reports a running thread as ended
        # (python/cpython#90882).
        self._wait_while(lambda: not self._ended, patience)
        if self._ended:
            self._thread.join()
            _wait_until_gone(self._thread)
        return self._ended

    def _wait_while(self, condition: Callable[[], bool], patience: float) -> float:
        with self._changed:
            if not condition() or self._waited >= patience:
                return 0.0
            start = time.perf_counter()
            # In a forked child process the thread is not alive.
            while condition() and self._waited < patience and self._thread.is_alive():
                slice_ = min(_SLICE, patience - self._waited)
                if not self._changed.wait(slice_):
                    self._waited += slice_
            return time.perf_counter() - start

    def _run(self) -> None:
        # A sandbox may forbid either call. The jobs must run even then.
        with contextlib.suppress(Exception):
            _use_one_processor()
        with contextlib.suppress(Exception):
            _lower_priority()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closing)
                if not self._jobs:
                    self._ended = True
                    self._changed.notify_all()
                    return
                job, size = self._jobs[0]
            self._run_job(job)
            del job  # free the tensors that the job may hold
            with self._changed:
                self._jobs.popleft()
                self._bytes -= size
                self._waited = 0.0
                self._changed.notify_all()

    def _run_job(self, job: Job) -> None:
        """Run a job and catch every exception.

        An exception must not end the thread: the jobs after it would never run.
        """
        try:
            job()
        except BaseException as error:
            with contextlib.suppress(BaseException):
                self._on_error(error)


def _wait_until_gone(thread: threading.Thread) -> None:
    """Wait until the system has ended a thread that Python has ended, for a second at most.

    In between, libraries such as MKL free the memory of the thread under a lock. If the process
    forked then, the child could never take that lock. A thread of low priority may take long.
    """
    place = Path(f"/proc/self/task/{thread.native_id}")  # Linux
    for _ in range(_MOST_CHECKS):
        if not place.exists():
            return
        time.sleep(0.001)


def _use_one_processor() -> None:
    """Limit OpenMP to one thread for work that is started from this thread.

    ``torch.set_num_threads`` would also change the number of threads of the training, and with it
    the order in which the training adds numbers.
    """
    # torch sets the number of OpenMP threads when a thread first uses it. That must happen before
    # the limit is set.
    torch.get_num_threads()
    openmp_libraries().limit(limits=1)


@cache
def openmp_libraries() -> ThreadpoolController:
    """Find the OpenMP libraries of this process, once: the search takes milliseconds."""
    return ThreadpoolController().select(user_api="openmp")


def _lower_priority() -> None:
    """Lower the priority of this thread, so that the threads of the training run first.

    Only Linux sets a priority for a single thread. Other systems would change the whole process.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        niceness = max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread))
        os.setpriority(os.PRIO_PROCESS, thread, niceness)

"""The background thread: order of jobs, bounds of the queue, errors, processors and priority."""

import ctypes
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from kernelviz_callback.training import job_queue
from kernelviz_callback.training.job_queue import NICENESS, JobQueue


@pytest.fixture
def errors() -> list[Exception]:
    return []


@pytest.fixture
def worker(errors):
    worker = JobQueue("test", most_jobs=3, most_bytes=100, on_error=errors.append)
    yield worker
    worker.close(patience=60)
    assert not any(t.name == "test" for t in threading.enumerate())


def test_all_jobs_run_in_order(worker) -> None:
    done: list[int] = []
    for i in range(200):
        worker.submit(lambda i=i: done.append(i))
    worker.drain(patience=60)
    assert done == list(range(200))


@pytest.mark.parametrize(("sizes", "fitting"), [([0] * 5, 3), ([40] * 5, 2), ([500] * 2, 1)])
def test_the_queue_has_room_again_when_jobs_are_done(
    worker, sizes: list[int], fitting: int
) -> None:
    gate, submitted = threading.Event(), []

    def submit_all() -> None:
        for size in sizes:
            submitted.append(worker.wait_for_room(size, patience=60))
            worker.submit(gate.wait, size)

    thread = threading.Thread(target=submit_all)
    thread.start()
    deadline = time.monotonic() + 10
    while len(submitted) < fitting and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(submitted) == fitting
    assert not worker.has_room(sizes[0])
    gate.set()
    thread.join()
    worker.drain(patience=60)
    assert len(submitted) == len(sizes)
    assert submitted[:fitting] == [0] * fitting
    assert submitted[fitting] > 0.05


def test_drain_returns_the_seconds_it_waited(worker) -> None:
    assert worker.drain(patience=60) == 0
    worker.submit(lambda: time.sleep(0.05))
    assert worker.drain(patience=60) > 0.02
    assert worker.wait_for_room(patience=60) == 0


def test_nobody_waits_long_for_a_job_that_does_not_end(worker) -> None:
    gate, done = threading.Event(), []
    for _ in range(3):
        worker.submit(gate.wait)
    worker.submit(lambda: done.append("last"))  # a queue that is full takes jobs, too
    assert worker.drain(patience=0.2) >= 0.2
    assert worker.drain(patience=0.2) < 0.2, "the same job is not waited for again"
    assert worker.wait_for_room(patience=0.5) >= 0.2
    assert not worker.close(patience=0.6)
    gate.set()
    assert worker.close(patience=60)
    assert done == ["last"]


def test_an_exception_goes_to_on_error_and_the_next_job_runs(worker, errors) -> None:
    done: list[str] = []
    worker.submit(lambda: 1 / 0)
    worker.submit(lambda: done.append("next"))
    worker.drain(patience=60)
    assert done == ["next"]
    assert [type(e) for e in errors] == [ZeroDivisionError]


def test_no_exception_ends_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that waits for the thread would otherwise wait forever."""

    def forbidden(*_: object) -> None:
        raise PermissionError("not in this sandbox")

    monkeypatch.setattr(job_queue, "openmp_libraries", forbidden)
    monkeypatch.setattr(os, "setpriority", forbidden)
    done: list[int] = []
    worker = JobQueue("test", most_jobs=1, most_bytes=100, on_error=forbidden)
    for error in (SystemExit, ValueError):
        worker.submit(partial(sys.exit) if error is SystemExit else partial(int, "no number"))
    worker.submit(lambda: done.append(1))
    worker.close(patience=60)
    assert done == [1]


def test_close_runs_the_queued_jobs_first(worker) -> None:
    done: list[int] = []
    for i in range(3):
        worker.submit(lambda i=i: (time.sleep(0.02), done.append(i)))
    assert worker.close(patience=60)
    assert worker.close(patience=60)
    assert done == [0, 1, 2]
    with pytest.raises(RuntimeError, match="test is closed"):
        worker.submit(lambda: None)


@pytest.mark.usefixtures("two_threads")
def test_only_the_background_thread_is_limited_to_one_processor(worker) -> None:
    before = torch.get_num_threads()
    assert before == 2
    found: list[int] = []
    worker.submit(lambda: found.append(torch.get_num_threads()))
    worker.drain(patience=60)
    assert found == [1]
    assert torch.get_num_threads() == before
    other: list[int] = []
    thread = threading.Thread(target=lambda: other.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert other == [before]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
def test_the_thread_has_a_low_priority(worker) -> None:
    found: list[int] = []
    worker.submit(lambda: found.append(os.getpriority(os.PRIO_PROCESS, 0)))
    worker.drain(patience=60)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert found == [max(own, NICENESS)]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt, also in a process that was started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_during_close_loses_no_job() -> None:
    done: list[int] = []
    worker = JobQueue("slow", most_jobs=4, most_bytes=100, on_error=print)
    for i in range(3):
        worker.submit(lambda i=i: (time.sleep(0.3), done.append(i)))
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        worker.close(patience=60)
    assert len(done) < 3
    assert worker.close(patience=60)
    assert done == [0, 1, 2]


def test_a_job_that_is_partly_done_is_waited_for_again() -> None:
    may_go_on, is_partly_done, may_end = (threading.Event() for _ in range(3))

    def job() -> None:
        may_go_on.wait()
        queue.count_from_zero()
        is_partly_done.set()
        may_end.wait()

    queue = JobQueue("test", most_jobs=1, most_bytes=1, on_error=print)
    queue.submit(job)
    assert queue.wait_for_room(patience=0.1) > 0
    assert queue.wait_for_room(patience=0.1) == 0, "it was waited for as long as allowed"
    may_go_on.set()
    is_partly_done.wait()
    assert queue.wait_for_room(patience=0.1) > 0
    may_end.set()
    assert queue.close(patience=math.inf)


@pytest.mark.skipif(sys.platform != "linux", reason="lists the threads of the process")
def test_close_waits_until_the_system_has_ended_the_thread(worker) -> None:
    """A fork right after it copies no lock that a library holds while the thread ends."""
    system = ctypes.CDLL(None)
    key = ctypes.c_uint()
    microseconds = 300_000
    # The system calls usleep(microseconds) in the thread when Python has ended it.
    assert system.pthread_key_create(ctypes.byref(key), system.usleep) == 0
    numbers: list[int] = []

    def take_long_to_end() -> None:
        numbers.append(threading.get_native_id())
        system.pthread_setspecific(key, ctypes.c_void_p(microseconds))

    worker.submit(take_long_to_end)
    assert worker.close(patience=60)
    assert not Path(f"/proc/self/task/{numbers[0]}").exists()

"""Examine and draw snapshots in another process, so that the training keeps the interpreter.

Only one thread of a process runs Python at a time. The work on a snapshot consists of about a
thousand short calls, and at each of them a thread beside the training takes the interpreter from
it. Another process has an interpreter of its own.

The processes talk through a socket. A message is a pickle, and the numbers of its tensors follow
it. So nothing is left behind if one of them is killed.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from kernelviz_callback.console import say
from kernelviz_callback.drawing.encode import EncodedImage
from kernelviz_callback.snapshots.names import list_snapshots
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.storage import Folder
from kernelviz_callback.training.channel import Channel
from kernelviz_callback.training.failures import Failures
from kernelviz_callback.training.job_queue import NICENESS, openmp_libraries
from kernelviz_callback.training.snapshot_files import Recording
from kernelviz_callback.training.snapshot_work import Drawn, Examined, SnapshotWork

Result = TypeVar("Result")

# The process starts when the thread has worked on snapshots for as long as the start of a process
# takes, in seconds of processor time. So a training never pays more than twice of what would have
# been best. With processors to spare, the start is hardly noticed.
START_COST = 2.0
START_COST_ON_MANY = 0.25
_MANY = 4  # processors

# A process that does not answer is ended. Seconds: this, or some times what the thread once needed.
_PATIENCE = 20.0
_PATIENCE_FACTOR = 20
_SECONDS_TO_END = 2.0

_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from kernelviz_callback.training.drawing_process import serve; serve(int(sys.argv[1]))"
)


class DrawingProcess:
    """Does the work on snapshots: in the calling thread at first, in another process later.

    If the other process cannot be started, ends or does not answer, the calling thread does the
    work, and a message says so. Nothing is lost then: the unfinished work is done again.

    Args:
        work: The work. This object must not be used by others.
    """

    def __init__(self, work: SnapshotWork) -> None:
        self._work = work
        self._child: _Child | None = None
        self._is_possible = _can_start()
        self._spent = 0.0  # seconds of processor time
        self._longest = 0.0  # seconds
        self._last: tuple[Snapshot, Folder] | None = None

    def examine(self, snapshot: Snapshot, folder: Folder) -> Examined:
        """See `SnapshotWork.examine`."""
        self._last = snapshot, folder
        if self._is_worth_it(folder):
            self._start()
        if self._child is not None and not self._child.has_work and self._child.is_ready():
            self._attempt(lambda child: child.take_over(self._work, self._patience))
        return self._do(SnapshotWork.examine, snapshot, folder)

    def draw(self, recording: Recording) -> Drawn:
        """See `SnapshotWork.draw`."""
        failures, painted = Failures(), None
        if self._last is not None and self.is_apart:
            snapshot, _ = self._last
            # The convolution stays on the device of the training.
            if any(weights.is_cuda for weights in snapshot.weights.values()):
                painted = self._work.renderer.paint(snapshot, failures)
        drawn = self._do(SnapshotWork.draw, recording, painted)
        drawn.failures.include(failures)
        scales = self._work.renderer.run_scales
        scales |= {kind: max(end, scales.get(kind, 0)) for kind, end in drawn.run_scales.items()}
        self._last = None
        return drawn

    def draw_films(self, folder: Folder) -> dict[str, EncodedImage]:
        """See `SnapshotWork.draw_films`."""
        return self._do(SnapshotWork.draw_films, folder)

    def summary(self) -> str:
        """See `SnapshotWork.summary`."""
        return self._do(SnapshotWork.summary)

    def close(self) -> None:
        """End the process. Later work is done by the calling thread."""
        child, self._child = self._child, None
        self._is_possible = False
        if child is not None:
            child.end()

    @property
    def is_apart(self) -> bool:
        """Whether the work is done in another process now."""
        return self._child is not None and self._child.has_work

    @property
    def _patience(self) -> float:
        return max(_PATIENCE, _PATIENCE_FACTOR * self._longest)

    def _do(self, method: Callable[..., Result], *args: Any) -> Result:
        if self.is_apart:
            done, result = self._attempt(
                lambda child: child.call(method.__name__, args, self._patience)
            )
            if done:
                return cast("Result", result)
            self._continue_here(method)
        wall, spent = time.perf_counter(), time.thread_time()
        found = method(self._work, *args)
        self._spent += time.thread_time() - spent
        self._longest = max(self._longest, time.perf_counter() - wall)
        return found

    def _attempt(self, use: "Callable[[_Child], Any]") -> tuple[bool, Any]:
        """Use the process. If it fails, end it and do not start another one."""
        assert self._child is not None
        try:
            return True, use(self._child)
        except _WorkFailedError:
            raise
        except Exception as error:
            code = self._child.kill()
            self._child, self._is_possible = None, False
            say(
                f"the process that draws snapshots was lost ({type(error).__name__}: {error}; exit "
                f"code {code}); a thread of the training draws them from now on"
            )
            return False, None

    def _continue_here(self, method: Callable[..., Any]) -> None:
        """Bring the work of this process to the state of the one that was lost."""
        if self._last is None:
            return
        snapshot, folder = self._last
        paths = [path for step, path in list_snapshots(folder).items() if step < snapshot.step]
        self._work.recall(paths)
        if method is SnapshotWork.draw:
            self._work.examine(snapshot, folder)

    def _is_worth_it(self, folder: Folder) -> bool:
        cost = START_COST if _processors() < _MANY else START_COST_ON_MANY
        is_local = isinstance(folder, Path)
        return self._is_possible and self._child is None and is_local and self._spent >= cost

    def _start(self) -> None:
        self._is_possible = False
        try:
            self._child = _Child()
        except OSError as error:
            say(f"no process for drawing could be started ({error}); a thread draws the snapshots")


class _WorkFailedError(RuntimeError):
    """An exception that the work itself raised in the other process."""


class _Child:
    """The other process, as the training sees it.

    Attributes:
        has_work: Whether it has taken over the work.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours)
        self.has_work = False
        with theirs:
            try:
                self._process = _start(theirs.fileno())
            except BaseException:
                ours.close()
                raise

    def is_ready(self) -> bool:
        """Whether it has imported what it needs. Does not wait."""
        return self._channel.has_message()

    def take_over(self, work: SnapshotWork, patience: float) -> None:
        """Give it the work in its present state.

        Raises:
            OSError: If it does not answer in so many seconds.
            EOFError: If it has ended.
        """
        self._channel.receive(patience)
        self._channel.send(work, patience)
        self.has_work = True

    def call(self, method: str, args: tuple[Any, ...], patience: float) -> Any:
        """Call a method of the work.

        Raises:
            OSError: If it does not answer in so many seconds.
            EOFError: If it has ended.
            _WorkFailedError: If the method raised an exception.
        """
        self._channel.send((method, args), patience)
        result, error = self._channel.receive(patience)
        if error is not None:
            raise _WorkFailedError(error)
        return result

    def end(self) -> int:
        """End it, and return its exit code. It ends by itself only if it waits for work."""
        self._channel.close()
        try:
            return self._process.wait(_SECONDS_TO_END if self.has_work else 0)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """Kill it, and return its exit code."""
        self._channel.close()
        self._process.kill()
        return self._process.wait()


def _start(descriptor: int) -> "subprocess.Popen[bytes]":
    paths = json.dumps([path for path in sys.path if isinstance(path, str)])
    return subprocess.Popen(
        [sys.executable, "-c", _CODE, str(descriptor), paths],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[descriptor],
        start_new_session=True,  # Ctrl-C is for the training, which then lets this process finish
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )


def serve(descriptor: int) -> None:
    """Work for the process that holds the other end of a socket, until it closes it or ends."""
    _end_with_parent()
    os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    openmp_libraries().limit(limits=1)
    channel = Channel(socket.socket(fileno=descriptor))
    try:
        channel.send("ready", None)
        work = channel.receive(None)
        while True:
            method, args = channel.receive(None)
            reply: tuple[Any, str | None]
            try:
                reply = getattr(work, method)(*args), None
            except Exception as error:
                reply = None, f"{type(error).__name__}: {error}"
            channel.send(reply, None)
    except (OSError, EOFError):
        os._exit(0)  # an interpreter that ends frees its modules, which takes a second


def _end_with_parent() -> None:
    """Let Linux kill this process when the thread that started it ends."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _can_start() -> bool:
    is_frozen = getattr(sys, "frozen", False)  # then sys.executable is the program of the user
    return os.name == "posix" and bool(sys.executable) and not is_frozen


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

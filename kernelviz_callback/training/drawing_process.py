"""Examine and draw snapshots in another process, so that the training keeps the interpreter.

Only one thread of a process runs Python at a time. The work on a snapshot consists of about a
thousand short calls, and at each of them a thread beside the training takes the interpreter from
it. Another process has an interpreter of its own.
"""

import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

from kernelviz_callback.console import say
from kernelviz_callback.drawing.encode import EncodedImage
from kernelviz_callback.model.feature_maps import FeatureMaps
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
# takes, in seconds of processor time. So a training pays at most twice what would have been best.
START_COST = 2.0
# With processors to spare, the start hardly delays the training, so it may come earlier.
START_COST_ON_MANY = 0.25
_MANY = 4  # processors

# A process that does not answer within so many seconds is killed. On a busy machine its low
# priority makes it ten times slower, and many layers may be watched.
_PATIENCE = 30.0
_PATIENCE_WITH_DRAWING = 300.0
_SECONDS_TO_END = 2.0

# For glibc. Each snapshot needs the same large blocks of memory. By default they are returned to
# the system, and it clears them again for the next snapshot: two milliseconds.
_KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**26)}

# Nothing is imported before the path is that of the training: a module in the working directory
# could have the same name.
_CODE = (
    "import sys; sys.path[:] = sys.argv[3:]; "
    "from kernelviz_callback.training.drawing_process import serve; "
    "serve(int(sys.argv[1]), int(sys.argv[2]))"
)


class DrawingProcess:
    """Does the work on snapshots: in the calling thread at first, in another process later.

    If the other process cannot be started, ends, fails or does not answer, the calling thread does
    the work, and a message says so. The unfinished work is done again.

    Args:
        work: The work. Others must not use this object.
    """

    def __init__(self, work: SnapshotWork) -> None:
        self._work = work
        self._child: _Child | None = None
        self._is_possible = _can_start()
        self._spent = 0.0  # seconds of processor time
        self._undrawn: tuple[Snapshot, Folder] | None = None  # the snapshot that was examined last
        self._drawn: tuple[int, Folder] | None = None  # step of the snapshot that was drawn last
        self._failures = Failures()  # that belong to no result yet

    @property
    def is_apart(self) -> bool:
        """Whether the work is done in another process now."""
        return self._child is not None and self._child.has_work

    def recall(self, earlier: Sequence[Folder]) -> Failures:
        """See `SnapshotWork.recall`. Call it before the first snapshot."""
        return self._work.recall(earlier)

    def examine(self, snapshot: Snapshot, folder: Folder) -> Examined:
        """See `SnapshotWork.examine`."""
        self._undrawn = snapshot, folder
        if self._is_worth_it(folder):
            self._start()
        if self._child is not None and not self._child.has_work and self._child.is_ready():
            self._hand_over()
        sent = snapshot
        if self.is_apart and _is_on_cuda(snapshot):
            sent = replace(snapshot, feature_maps=FeatureMaps())  # `draw` paints them here
        examined = self._do(SnapshotWork.examine, sent, folder)
        self._report_with(examined.failures)
        return examined

    def draw(self, recording: Recording) -> Drawn:
        """See `SnapshotWork.draw`."""
        painted = None
        if self._undrawn is not None and self.is_apart and _is_on_cuda(self._undrawn[0]):
            # The convolution stays on the device of the training.
            painted = self._work.renderer.paint(self._undrawn[0], self._failures)
        drawn = self._do(SnapshotWork.draw, recording, painted)
        self._report_with(drawn.failures)
        scales = self._work.renderer.run_scales
        scales |= {kind: max(end, scales.get(kind, 0)) for kind, end in drawn.run_scales.items()}
        if self._undrawn is not None:
            self._drawn = self._undrawn[0].step, self._undrawn[1]
            self._undrawn = None
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

    def _do(self, method: Callable[..., Result], *args: Any) -> Result:
        if self.is_apart:
            done, result = self._attempt(lambda child: child.call(method.__name__, args))
            if done:
                return cast("Result", result)
            self._continue_here(method)
        before = time.thread_time()
        found = method(self._work, *args)
        self._spent += time.thread_time() - before
        return found

    def _attempt(self, use: "Callable[[_Child], Any]") -> tuple[bool, Any]:
        """Use the process. If that fails, end it and do not start another one."""
        assert self._child is not None
        try:
            return True, use(self._child)
        except Exception as error:
            code, said = self._child.kill()
            self._child, self._is_possible = None, False
            reason = said or f"{type(error).__name__}: {error}"
            say(
                f"the process that draws snapshots was lost ({reason}; exit code {code}); a thread "
                "of the training draws them from now on"
            )
            return False, None

    def _hand_over(self) -> None:
        done, _ = self._attempt(lambda child: child.take_over(self._work))
        if done:
            self._work.free_memory()

    def _continue_here(self, method: Callable[..., Any]) -> None:
        """Bring the work of this process to the state of the process that was lost."""
        if self._undrawn is not None:
            last, folder = self._undrawn[0].step - 1, self._undrawn[1]
        elif self._drawn is not None:
            last, folder = self._drawn
        else:
            return
        consequence = "filters are compared with later snapshots only"
        with self._failures.survive(f"read {folder}", consequence):
            paths = [path for step, path in list_snapshots(folder).items() if step <= last]
            self._failures.include(self._work.recall(paths))
        if self._undrawn is not None and method is not SnapshotWork.examine:
            self._work.examine(*self._undrawn)

    def _report_with(self, failures: Failures) -> None:
        failures.include(self._failures)
        self._failures = Failures()

    def _is_worth_it(self, folder: Folder) -> bool:
        cost = START_COST if _processors() < _MANY else START_COST_ON_MANY
        is_local = isinstance(folder, Path)
        return self._is_possible and self._child is None and is_local and self._spent >= cost

    def _start(self) -> None:
        self._is_possible = False
        try:
            self._child = _Child()
        except Exception as error:  # a sandbox may forbid it
            say(f"no process for drawing could be started ({error}); a thread draws the snapshots")


class _Child:
    """The other process, as the training sees it.

    Attributes:
        has_work: Whether it has taken over the work.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - `end` and `kill` close it
        self.has_work = False
        with theirs:
            try:
                self._process = self._start(theirs.fileno())
            except BaseException:
                self._channel.close()
                self._errors.close()
                raise

    def _start(self, descriptor: int) -> "subprocess.Popen[bytes]":
        # A relative path no longer leads to this package if the working directory has changed.
        package = str(Path(__file__).absolute().parents[2])
        paths = [*(path for path in sys.path if isinstance(path, str)), package]
        return subprocess.Popen(
            [sys.executable, "-c", _CODE, str(descriptor), str(os.getpid()), *paths],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            pass_fds=[descriptor],
            start_new_session=True,  # Ctrl-C is for the training, which lets this process finish
            env={**_KEPT_MEMORY, **os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )

    def is_ready(self) -> bool:
        """Whether it has imported what it needs. Does not wait."""
        return self._channel.has_message()

    def take_over(self, work: SnapshotWork) -> None:
        """Give it the work in its present state.

        Raises:
            OSError: If it does not answer.
            EOFError: If it has ended.
        """
        self._channel.receive(_PATIENCE)
        self._channel.send(work, _PATIENCE)
        self.has_work = True

    def call(self, method: str, args: tuple[Any, ...]) -> Any:
        """Call a method of the work.

        Raises:
            OSError: If it does not answer.
            EOFError: If it has ended.
            RuntimeError: If the method raised an exception.
        """
        draws = method in ("draw", "draw_films")
        self._channel.send((method, args), _PATIENCE)
        result, error = self._channel.receive(_PATIENCE_WITH_DRAWING if draws else _PATIENCE)
        if error is not None:
            raise RuntimeError(error)
        return result

    def end(self) -> None:
        """End it. If it has not taken over the work, it is killed at once."""
        self._channel.close()
        if self.has_work:
            _wait_for(self._process, _SECONDS_TO_END)
        try:
            self._process.wait(0)
        except subprocess.TimeoutExpired:
            self.kill()
        self._errors.close()

    def kill(self) -> tuple[int | None, str]:
        """Kill it, and return its exit code and the last line that it wrote to stderr.

        The code is None if a file system that does not answer keeps it alive.
        """
        self._channel.close()
        self._process.kill()
        _wait_for(self._process, _SECONDS_TO_END)
        code = self._process.poll()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        self._errors.close()
        return code, next((line for line in reversed(lines) if line.strip()), "")


def serve(descriptor: int, parent: int) -> None:
    """Work for the process that holds the other end of a socket, until it closes it or ends.

    Args:
        descriptor: Descriptor of the socket.
        parent: Number of the other process.
    """
    _end_with(parent)
    # A sandbox may forbid each of these. The work must be done even then.
    with suppress(Exception):
        niceness = max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0))
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
    with suppress(Exception):
        openmp_libraries().limit(limits=1)
    with suppress(OSError):
        # If memory runs out, Linux ends this process and not the training.
        Path("/proc/self/oom_score_adj").write_text("1000")
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


def _wait_for(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Wait until a process has ended, or for a number of seconds.

    `subprocess.Popen.wait` looks at intervals, which adds up to 50 ms.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # another system, or a sandbox that forbids it
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        return
    try:
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        ended.poll(1000 * seconds)
    finally:
        os.close(descriptor)


def _end_with(parent: int) -> None:
    """Let Linux kill this process when the thread that started it ends."""
    if sys.platform == "linux":
        with suppress(Exception):
            pr_set_pdeathsig = 1
            ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _can_start() -> bool:
    is_frozen = getattr(sys, "frozen", False)  # then sys.executable is the program of the user
    return os.name == "posix" and bool(sys.executable) and not is_frozen


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _is_on_cuda(snapshot: Snapshot) -> bool:
    return any(weights.is_cuda for weights in snapshot.weights.values())

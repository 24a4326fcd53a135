"""Run scripts in processes that have imported torch and Lightning already.

An import of torch, Lightning and this package takes seconds of processor time. So one server
process imports them once, runs nothing, and forks itself for every script. A forked process runs
its script as ``python SCRIPT ARGUMENTS`` does: with its own working directory, environment,
``sys.argv`` and ``sys.path[0]``.

``FRESH_PROCESSES=1`` in the environment turns this off: each script gets a new interpreter then.
"""

import contextlib
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_IMPORTED = (
    "lightning.pytorch",
    "lightning.pytorch.cli",
    "torch.utils.tensorboard",
    "matplotlib.figure",
    "kernelviz_callback.training.callback",
    "kernelviz_callback.training.watcher",
    "kernelviz_callback.training.recorder",
    "kernelviz_callback.commands.demo",
    "conftest",
)
_servers: dict[str, "_Server"] = {}  # by the environment that they were started with


def run_python(
    *command: str,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    started_with: Mapping[str, str] | None = None,
    timeout: float = 500,
) -> subprocess.CompletedProcess[str]:
    """Run ``python *command``.

    Args:
        command: A script and its arguments, or ``-c``, code and its arguments.
        cwd: The working directory.
        environment: Variables besides those of this process.
        started_with: Variables that libraries read once, as a process starts.
        timeout: Seconds.
    """
    if os.environ.get("FRESH_PROCESSES") or not hasattr(os, "fork"):
        return subprocess.run(
            [sys.executable, *command],
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd,
            env={**os.environ, **(environment or {}), **(started_with or {})},
            timeout=timeout,
        )
    key = json.dumps(dict(started_with or {}), sort_keys=True)
    if key not in _servers:
        _servers[key] = _Server(started_with or {})
    return _servers[key].run(command, cwd or Path.cwd(), environment or {}, timeout)


def close_servers() -> None:
    """End the server processes, if there are any."""
    while _servers:
        _servers.popitem()[1].close()


class _Server:
    """The server process, as the tests see it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(other.fileno())],
                pass_fds=[other.fileno()],
                env={**os.environ, **environment},
            )

    def run(
        self, command: Sequence[str], cwd: Path, environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        request = {
            "command": command,
            "cwd": str(cwd),
            "environment": {**os.environ, **environment},
        }
        outputs, inputs = zip(os.pipe(), os.pipe(), strict=True)
        socket.send_fds(self._socket, [json.dumps(request).encode()], inputs)
        for descriptor in inputs:
            os.close(descriptor)
        with ThreadPoolExecutor(2) as readers:
            texts = [readers.submit(_read, descriptor) for descriptor in outputs]
            pid = self._answer(timeout)  # the first answer also waits for the imports
            try:
                code = self._answer(timeout)
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                self._answer(60)
                raise subprocess.TimeoutExpired(list(command), timeout) from None
            output, errors = (text.result() for text in texts)
        return subprocess.CompletedProcess(list(command), code, output, errors)

    def _answer(self, timeout: float) -> int:
        self._socket.settimeout(timeout)
        return int(self._socket.recv(100))

    def close(self) -> None:
        self._socket.close()  # the server ends then
        self._process.wait()


def _read(descriptor: int) -> str:
    with os.fdopen(descriptor) as file:
        return file.read()


def _serve(connection: socket.socket) -> None:
    """Answer each request with the number of its process, then with the process's exit status."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in _IMPORTED:
            importlib.import_module(name)
    while True:
        request, outputs, *_ = socket.recv_fds(connection, 2**20, 2)
        if not request:
            return
        pid = os.fork()
        if pid == 0:
            connection.close()
            _become(json.loads(request), outputs)
            return
        for descriptor in outputs:
            os.close(descriptor)
        connection.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(request: Mapping[str, Any], outputs: Sequence[int]) -> None:
    """Do in this forked process what ``python`` does with a command."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, standard in zip((nothing, *outputs), range(3), strict=True):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    script, *arguments = request["command"]
    with contextlib.suppress(ValueError):
        sys.path.remove(str(Path(__file__).parent))
    if script == "-c":
        sys.path.insert(0, "")
        sys.argv = ["-c", *arguments[1:]]
        exec(compile(arguments[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.path.insert(0, str(Path(script).parent))
        sys.argv = [script, *arguments]
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))

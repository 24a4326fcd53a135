"""Run scripts in processes that have imported torch and Lightning already.

An import of torch, Lightning and this package takes seconds of processor time. So one server
process imports them once, runs nothing, and forks itself for every script. A forked process runs
its script as ``python SCRIPT ARGUMENTS`` does: with its own working directory, environment,
``sys.argv`` and ``sys.path[0]``.

``FRESH_PROCESSES=1`` in the environment turns this off: each script gets a new interpreter then.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
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
_servers: list["_Server"] = []


def run_python(
    *command: str,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 500,
) -> subprocess.CompletedProcess[str]:
    """Run ``python *command``, where ``command`` is a script and its arguments, or ``-c CODE``."""
    if os.environ.get("FRESH_PROCESSES") or not hasattr(os, "fork"):
        return subprocess.run(
            [sys.executable, *command],
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            timeout=timeout,
        )
    if not _servers:
        _servers.append(_Server())
    return _servers[0].run(command, cwd or Path.cwd(), environment or {}, timeout)


def close_server() -> None:
    """End the server process, if there is one."""
    while _servers:
        _servers.pop().close()


class _Server:
    """The server process, as the tests see it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self, command: Sequence[str], cwd: Path, environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory() as folder:
            output, errors = Path(folder, "output"), Path(folder, "errors")
            request = {
                "command": command,
                "cwd": str(cwd),
                "environment": {**os.environ, **environment},
                "output": str(output),
                "errors": str(errors),
            }
            self._ask(request)
            pid = self._answer(timeout)  # the first answer also waits for the imports
            try:
                code = self._answer(timeout)
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                self._answer(60)
                raise subprocess.TimeoutExpired(list(command), timeout) from None
            return subprocess.CompletedProcess(
                list(command), code, output.read_text(), errors.read_text()
            )

    def _ask(self, request: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def _answer(self, timeout: float) -> int:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], timeout)[0]:
            raise TimeoutError
        return int(self._process.stdout.readline())

    def close(self) -> None:
        with self._process:  # closes the pipe to the server, which ends then
            pass


def _serve() -> None:
    """Answer each request with the number of its process, then with the process's exit status."""
    import importlib
    import warnings

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in _IMPORTED:
            importlib.import_module(name)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            answers.close()
            _become(json.loads(line))
            return
        print(pid, file=answers, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def _become(request: Mapping[str, Any]) -> None:
    """Do in this forked process what ``python`` does with a command."""
    import runpy

    for path, descriptor in ((request["output"], 1), (request["errors"], 2)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
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
    _serve()

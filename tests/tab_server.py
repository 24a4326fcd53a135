"""A TensorBoard of its own process that has the Kernels tab, installed or not."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SERVE = """
import sys
from tensorboard import default, program
from kernelviz_callback.tensorboard_plugin.loader import KernelsLoader

board = program.TensorBoard([*default.get_static_plugins(), KernelsLoader])
board.configure(argv=["", *sys.argv[1:]])
print("address", board.launch(), flush=True)
sys.stdin.read()
"""


@contextmanager
def tensorboard(logdir: Path, *flags: str) -> Iterator[str]:
    """Start TensorBoard on a free port; gives its address, which ends with a slash."""
    command = [sys.executable, "-c", _SERVE, f"--logdir={logdir}", "--port=0", *flags]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        try:
            yield next(line.split()[1] for line in lines if line.startswith("address"))
        finally:
            process.kill()

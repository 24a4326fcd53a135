"""Run one of the scripts in this folder in a new process."""

from pathlib import Path

from forked import run_python

HERE = Path(__file__).parent


def run(script: str, *arguments: str) -> str:
    done = run_python(str(HERE / script), *arguments, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr

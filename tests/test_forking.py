"""A process may be forked after any public call: the child computes and trains."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from forking_program import CALLS, TRAIN_AFTER

from kernelviz_callback import forking

PROGRAM = Path(__file__).with_name("forking_program.py")

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks"),
]


def test_a_process_that_is_forked_after_any_call_computes(tmp_path: Path) -> None:
    """In one new interpreter: torch itself does not survive two forks."""
    paths = os.pathsep.join([*sys.path, str(PROGRAM.parent)])
    # In a worker of pytest, conftest.py limits torch to one thread.
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_XDIST_WORKER"}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path)],
        env={**environment, "PYTHONPATH": paths, "OMP_NUM_THREADS": "4"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == [f"{call}: done" for call in CALLS], done.stderr[-3000:]
    for call in TRAIN_AFTER:
        assert list((tmp_path / call / "second").rglob("step-*.safetensors"))


def test_a_fork_does_not_change_what_torch_computes() -> None:
    x = torch.rand(8, 3, 200, 200)
    before = torch.nn.functional.conv2d(x, torch.ones(4, 3, 3, 3)).square().sum()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert torch.nn.functional.conv2d(x, torch.ones(4, 3, 3, 3)).square().sum() == before


def test_the_threads_of_openmp_end_before_a_fork(two_threads: None) -> None:
    if not forking._gnu_openmp():
        pytest.skip("torch uses another OpenMP here")
    torch.rand(10**7).square()
    before = _threads()
    forking._end_openmp_threads()
    assert _threads() < before


def _threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))

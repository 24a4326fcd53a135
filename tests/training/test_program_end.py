"""A program that ends without closing the recording: everything is written, and no process is left.

The programs run in new interpreters, because the end of an interpreter is tested.
"""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from conftest import logged_images

from kernelviz_callback import list_snapshots

LOOP = """
import sys, torch
from kernelviz_callback import KernelWatcher
net = torch.nn.Conv2d(3, 64, 7)
watcher = KernelWatcher(net, sys.argv[1])
for step in range(12):
    watcher.snapshot(step)
{end}
"""

FIT = """
import sys, torch
from conftest import TinyNet
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from kernelviz_callback import KernelVizCallback

class Ends(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 3:
            {fault}

    def on_exception(self, *_):
        {on_exception}

Trainer(
    accelerator="cpu",
    callbacks=[Ends(), KernelVizCallback(every_n_train_steps=1)],
    logger=TensorBoardLogger(sys.argv[1], name="", version=""),
    enable_checkpointing=False,
    enable_model_summary=False,
    enable_progress_bar=False,
).fit(TinyNet())
"""

pytestmark = pytest.mark.processes


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    paths = [*sys.path, str(Path(__file__).parents[1])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("print('trained')", 0),
        ("sys.exit(3)", 3),
        ("raise ValueError('of the user')", 1),
        ("del watcher", 0),
    ],
)
def test_a_loop_that_forgets_to_close_loses_nothing(end: str, status: int, tmp_path: Path) -> None:
    done = run(LOOP.format(end=end), tmp_path)
    assert done.returncode == status, done.stderr
    assert list(list_snapshots(tmp_path / "kernelviz")) == list(range(12))
    assert list(logged_images(tmp_path)["kernels/Conv2d"]) == list(range(12))
    assert "film/Conv2d" in logged_images(tmp_path)
    assert done.stderr.count("12 snapshots written") == 1
    assert "could not" not in done.stderr


@pytest.mark.parametrize(
    ("fault", "on_exception", "status"),
    [
        ("sys.exit(3)", "pass", 3),
        ("raise ValueError('of the user')", "raise OSError('no place to report')", 1),
    ],
)
def test_a_training_that_ends_at_once_loses_nothing(
    fault: str, on_exception: str, status: int, tmp_path: Path
) -> None:
    done = run(FIT.format(fault=fault, on_exception=on_exception), tmp_path)
    assert done.returncode == status, done.stderr
    steps = list(list_snapshots(tmp_path / "kernelviz"))
    assert steps[:3] == [0, 1, 2]
    assert list(logged_images(tmp_path)["kernels/conv"]) == steps
    assert "snapshots written" in done.stderr


def test_the_drawing_process_ends_with_the_program(tmp_path: Path) -> None:
    at_once = (
        "from kernelviz_callback.training import drawing_process\n"
        "drawing_process.START_COST = drawing_process.START_COST_ON_MANY = 0\n"
    )
    tell = "import psutil; print(*[child.pid for child in psutil.Process().children()])"
    done = run(at_once + LOOP.format(end=tell), tmp_path)
    assert done.returncode == 0, done.stderr
    [pid] = map(int, done.stdout.split())
    assert not psutil.pid_exists(pid)
    assert list(list_snapshots(tmp_path / "kernelviz")) == list(range(12))

"""Kill a training at random moments and resume it. The test runs this module as a script.

    python tests/killed.py FOLDER KILLS SEED LAST_STEP

After every kill all snapshot files must be complete, and at most the last snapshot may be missing.
The training processes are forked from this process, which imports everything and trains nothing.
"""

import logging
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from conftest import TinyNet
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from kernelviz_callback import KernelVizCallback, list_snapshots, load_snapshot

CHECKPOINT_EVERY = 5


class Progress(Callback):
    """Writes the finished step into a file, after the callback under test has run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        self.path.write_text(f"{trainer.global_step} {trainer.global_step}")
        self.first = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(f"{self.first} {trainer.global_step}")
        temporary.replace(self.path)
        time.sleep(0.004)  # so that a kill can hit any step


def train(folder: Path, last_step: int) -> None:
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "kernelviz_callback"):
        logging.getLogger(name).setLevel(logging.ERROR)
    seed_everything(3, verbose=False)
    checkpoints = ModelCheckpoint(
        folder / "checkpoints", every_n_train_steps=CHECKPOINT_EVERY, save_last=True, save_top_k=0
    )
    last = folder / "checkpoints" / "last.ckpt"
    trainer = Trainer(
        accelerator="cpu",
        max_steps=last_step,
        max_epochs=-1,
        logger=TensorBoardLogger(folder, name="run", version="0"),
        callbacks=[
            KernelVizCallback(every_n_train_steps=1, probe_size=32),
            Progress(folder / "progress"),
            checkpoints,
        ],
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(TinyNet(), ckpt_path=last if last.exists() else None)


def start(folder: Path, last_step: int) -> int:
    (folder / "progress").unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        try:
            sys.stdout = sys.stderr = Path("/dev/null").open("w")  # noqa: SIM115
            train(folder, last_step)
            os._exit(0)
        except BaseException:
            os._exit(1)
    return pid


def check(folder: Path) -> tuple[int, int] | None:
    """Check the snapshot files after a kill.

    Returns:
        First and last step of the attempt, None if it was killed before its first step.
    """
    snapshots = list_snapshots(folder / "run" / "0" / "kernelviz")
    for step, path in snapshots.items():
        assert load_snapshot(path).step == step
    if not (folder / "progress").exists():
        return None
    first, last = map(int, (folder / "progress").read_text().split())
    steps = list(snapshots)
    assert steps == list(range(len(steps))), f"a gap in {steps} after {first} to {last}"
    assert last - 1 <= steps[-1], f"at step {last} there were {steps}"
    # Snapshots that the attempt before took after the checkpoint are set aside before the first
    # new snapshot is written.
    assert steps[-1] <= last + 1 or last == first, f"at step {last} there were {steps}"
    return first, last


def main(folder: Path, kills: int, seed: int, last_step: int) -> None:
    moments = random.Random(seed)
    attempts = []
    done = 0
    while done < kills:
        pid = start(folder, last_step)
        # Without a checkpoint the next attempt would be a new training.
        awaited = folder / ("progress" if attempts else "checkpoints/last.ckpt")
        deadline = time.monotonic() + 60
        while not awaited.exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        # Some are killed while they log the pictures of the attempt before again, some later.
        time.sleep(moments.uniform(0, moments.choice([0.2, 1.5])))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        done += os.WIFSIGNALED(status)
        attempts.append(check(folder))
    _, status = os.waitpid(start(folder, last_step), 0)
    assert status == 0, f"the last attempt ended with {status}"
    assert check(folder)[1] == last_step
    assert list(list_snapshots(folder / "run" / "0" / "kernelviz")) == list(range(last_step + 1))
    print(done, "kills, attempts from and to:", *attempts)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))

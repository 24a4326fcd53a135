"""Measure how the cost grows with the number of filters, the probe, and the number of snapshots.

The time in the first two tables should be at most linear in filters x pixels. The memory in the
last table should be constant.

    python benchmarks/growth.py [--snapshots 10000]
"""

import argparse
import logging
import os
import statistics
import tempfile
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import psutil
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from kernelviz_callback import KernelVizCallback, effective_weight, geometry_of, load_probe
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.training.failures import Failures
from kernelviz_callback.training.health_monitor import HealthMonitor
from kernelviz_callback.training.job_queue import JobQueue
from kernelviz_callback.training.renderer import Renderer

LOOKS = (200, 1_000, 2_000, 5_000, 10_000)


def processor_time(filters: int, size: int, rounds: int) -> float:
    """Measure the median seconds to examine, draw and encode one snapshot of 3x7x7 filters."""
    conv = nn.Conv2d(3, filters, 7)
    probe = load_probe(size=size)
    snapshot = Snapshot(0, 0, 0.0, {"conv": effective_weight(conv)}, {"conv": geometry_of(conv)})
    monitor = HealthMonitor(probe)
    renderer = Renderer(probe, response="channels", scale="filter", run_scales={})
    taken: list[float] = []

    def draw() -> None:
        start = time.thread_time()
        failures = Failures()
        health = monitor.observe(snapshot, failures)
        renderer.draw(replace(snapshot, health=health), failures)
        taken.append(time.thread_time() - start)
        assert not failures.found, failures.found

    worker = JobQueue("benchmark", most_jobs=rounds + 1, most_bytes=1, on_error=print)
    for _ in range(rounds + 1):
        worker.submit(draw)
    worker.close(patience=300)
    return statistics.median(taken[1:])


class Small(LightningModule):
    """A network of one layer of 8 filters 3x5x5, so that the training itself needs little."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 5)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return any loss."""
        return F.relu(self.conv(batch[0])).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Use SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Inventory(Callback):
    """Count the memory, the threads and the open files of the process at some steps."""

    def __init__(self, at: Sequence[int]) -> None:
        self.at = at
        self.found: dict[int, tuple[float, int, int]] = {}

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Wait until all snapshots are written, then count."""
        if trainer.global_step in self.at:
            for callback in trainer.callbacks:
                if isinstance(callback, KernelVizCallback):
                    callback.state_dict()  # waits for the scale of all snapshots so far
            trainer.logger.experiment.flush()
            process = psutil.Process(os.getpid())
            self.found[trainer.global_step] = (
                process.memory_info().rss / 2**20,
                threading.active_count(),
                process.num_fds(),
            )


def many_snapshots(count: int, at: Sequence[int]) -> dict[int, tuple[float, int, int]]:
    """Train with a snapshot per step; return step to MiB of memory, threads, file descriptors."""
    data = DataLoader(TensorDataset(torch.rand(1000, 3, 16, 16)), batch_size=1)
    inventory = Inventory(at)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Trainer(
            accelerator="cpu",
            max_steps=count,
            logger=TensorBoardLogger(folder),
            callbacks=[
                KernelVizCallback(probe_size=64, every_n_train_steps=1, scale="run"),
                inventory,
            ],
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        ).fit(Small(), data)
    return inventory.found


def main() -> None:
    """Print the tables of the documentation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--snapshots", type=int, default=10_000)
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    print("| filters 3x7x7, probe of 224 pixels | CPU | for each filter |\n|---|---|---|")
    for filters in (16, 64, 256, 1024, 2048):
        taken = processor_time(filters, 224, options.rounds) * 1e3
        print(f"| {filters} | {taken:.0f} ms | {taken / filters:.2f} ms |")

    print("\n| probe, 64 filters 3x7x7 | CPU | for each 1,000 pixels |\n|---|---|---|")
    for size in (64, 128, 224, 512, 1024):
        taken = processor_time(64, size, options.rounds) * 1e3
        print(f"| {size} x {size} | {taken:.0f} ms | {taken / size**2 * 1e3:.2f} ms |")

    print("\n| snapshots taken | resident memory | threads | descriptors |\n|---|---|---|---|")
    for step, (memory, threads, descriptors) in many_snapshots(options.snapshots, LOOKS).items():
        print(f"| {step} | {memory:.1f} MiB | {threads} | {descriptors} |")


if __name__ == "__main__":
    main()

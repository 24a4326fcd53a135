"""Measure what the callback costs in a step without a snapshot.

A network of one small layer trains with steps of about a millisecond. Each hook that Lightning
calls in a step is measured; the figure is the sum over the hooks of a step. An empty callback shows
how much of it is the measurement itself.

    python benchmarks/idle_hooks.py [--steps 2000]
"""

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from growth import Small
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader, TensorDataset

from kernelviz_callback import KernelVizCallback

HOOKS = ("on_train_batch_start", "on_before_optimizer_step", "on_train_batch_end")


def microseconds(callback: Callback, steps: int) -> float:
    """Train with a callback, and return the median time of its hooks in a step."""
    times = [0.0] * steps

    def timed(hook: Callable[..., None]) -> Callable[..., None]:
        def call(trainer: Trainer, *args: Any) -> None:
            step = min(trainer.fit_loop.epoch_loop.batch_idx, steps - 1)
            start = time.perf_counter()
            hook(trainer, *args)
            times[step] += time.perf_counter() - start

        return call

    for name in HOOKS:
        setattr(callback, name, timed(getattr(callback, name)))
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            accelerator="cpu",
            max_steps=steps,
            logger=TensorBoardLogger(folder),
            callbacks=[callback],
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        ).fit(Small(), DataLoader(TensorDataset(torch.rand(steps, 3, 16, 16)), batch_size=1))
    return statistics.median(times[steps // 10 :]) * 1e6


def main() -> None:
    """Print the two figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    for name in ("lightning.pytorch", "kernelviz_callback"):
        logging.getLogger(name).setLevel(logging.ERROR)
    ours = microseconds(KernelVizCallback(early_steps=False), options.steps)
    empty = microseconds(Callback(), options.steps)
    print(f"KernelVizCallback in a step without a snapshot: {ours:.1f} microseconds")
    print(f"an empty callback: {empty:.1f} microseconds")


if __name__ == "__main__":
    main()

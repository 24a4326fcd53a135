"""Measure what watching costs a real training, in comparison with the two usual ways.

ResNet-18 learns to distinguish photographs by crops of them, on the CPU. Every round trains it four
times: without a callback, with ours, with two matplotlib grids as in a blog post, and with a pasted
snippet. Every figure is the median over the rounds, and ratios are computed within a round. The
first table has one snapshot per epoch, the second one per step.

    python benchmarks/overhead.py [--rounds 5] [--epochs 6] [--contenders ours]
"""

import argparse
import logging
import statistics
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from skimage import data
from snapshot import blog_post, bytes_below, pasted_snippet, photo_of
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18

from kernelviz_callback import KernelVizCallback
from kernelviz_callback.commands.demo import PhotoCrops

CONTENDERS = ("ours", "blog post", "pasted snippet")
BATCH = 16
CROP = 96  # pixels


class ResNet(LightningModule):
    """ResNet-18 for 16 photographs."""

    def __init__(self) -> None:
        super().__init__()
        self.net = resnet18(num_classes=16)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the cross-entropy."""
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Use SGD with momentum."""
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


class InTheHook(Callback):
    """Draw the pictures in the hook, in the training's thread."""

    def __init__(self, contender: Callable[..., Callable[[int], None]], each_step: bool) -> None:
        self.contender = contender
        self.each_step = each_step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare the contender and take the first snapshot."""
        conv = next(m for m in pl_module.modules() if isinstance(m, nn.Conv2d))
        photo = photo_of(data.astronaut())
        self.snapshot = self.contender(conv, photo, trainer.logger.experiment)
        self.snapshot(0)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Take a snapshot after each step."""
        if self.each_step:
            self.snapshot(trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        """Take a snapshot after each epoch."""
        if not self.each_step:
            self.snapshot(trainer.global_step)


class Meter(Callback):
    """Measure another callback: the duration of its hooks, and its processor time.

    The processor time is the sum of two parts: that of all threads during the hooks, and that of
    the background threads between the hooks (ours and TensorBoard's writer). This callback must be
    before the measured one in the list, so that it can wait for these threads at the end.
    """

    HOOKS = ("on_train_start", "on_train_batch_end", "on_train_epoch_end", "on_train_end")

    def __init__(self, measured: Callback) -> None:
        self.measured = measured
        self.times: dict[str, list[float]] = {hook: [] for hook in self.HOOKS}
        self.cpu = 0.0
        for hook in self.HOOKS:
            setattr(measured, hook, self._timed(getattr(measured, hook), self.times[hook]))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the processor times of the threads before the threads end."""
        if isinstance(self.measured, KernelVizCallback):
            self.measured.state_dict()  # waits for the scale of all snapshots so far
        trainer.logger.experiment.flush()
        self.cpu += self._beside()

    def _timed(self, hook: Callable[..., None], times: list[float]) -> Callable[..., None]:
        def timed(*args: Any, **kwargs: Any) -> None:
            cpu, beside, start = time.process_time(), self._beside(), time.perf_counter()
            hook(*args, **kwargs)
            times.append(time.perf_counter() - start)
            if hook.__name__ != "on_train_end":
                self.cpu += time.process_time() - cpu - (self._beside() - beside)

        return timed

    def _beside(self) -> float:
        threads = [
            t
            for t in threading.enumerate()
            if t.name.startswith("kernelviz") or type(t).__name__ == "_AsyncWriterThread"
        ]
        return sum(time.clock_gettime(time.pthread_getcpuclockid(t.ident)) for t in threads)


@dataclass
class Figures:
    """Measurements of one contender, one value per round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    stall: list[float] = field(default_factory=list)
    written: list[float] = field(default_factory=list)


def train(callback: Callback | None, epochs: int, batches: int, figures: Figures, hook: str) -> int:
    """Train once, add the measurements to ``figures``, and return the number of steps."""
    seed_everything(1, verbose=False)
    meter = Meter(callback) if callback else None
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            limit_val_batches=0,
            logger=TensorBoardLogger(folder),
            callbacks=[meter, callback] if callback else [],
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        crops = PhotoCrops(batch_size=BATCH, batches_per_epoch=batches, crop_size=CROP)
        start = time.perf_counter()
        trainer.fit(ResNet(), datamodule=crops)
        figures.wall.append(time.perf_counter() - start)
        figures.written.append(bytes_below(Path(folder)))
    if meter:
        figures.stall += meter.times[hook]
        figures.cpu.append(meter.cpu)
    return trainer.global_step


def compare(
    rounds: int, epochs: int, batches: int, names: Sequence[str], *, each_step: bool
) -> None:
    """Print one table of some contenders."""
    hook = "on_train_batch_end" if each_step else "on_train_epoch_end"
    ours = {"every_n_train_steps": 1} if each_step else {}
    photo = photo_of(data.astronaut())
    contenders: dict[str, Callable[[], Callback | None]] = {
        "without": lambda: None,
        "ours": lambda: KernelVizCallback(probe=photo, early_steps=False, scale="run", **ours),
        "blog post": lambda: InTheHook(blog_post, each_step),
        "pasted snippet": lambda: InTheHook(pasted_snippet, each_step),
    }
    figures = {name: Figures() for name in ("without", *names)}
    for number in range(rounds + 1):
        for name in figures:
            taken = figures[name] if number else Figures()  # the first round warms up
            steps = train(contenders[name](), epochs, batches, taken, hook)
    snapshots = 1 + (steps if each_step else epochs)
    base = figures["without"]
    epoch = statistics.median(base.wall) / epochs
    every = "step" if each_step else f"epoch of {epoch:.1f} s"
    print(f"\n| a snapshot every {every} | stall at the hook | CPU | bytes | whole fit |")
    print("|---|---|---|---|---|")
    cpu_of: dict[str, float] = {}
    for name, found in figures.items():
        fit = statistics.median(a / b for a, b in zip(found.wall, base.wall, strict=True))
        if name == "without":
            print(f"| {name} | | | | {fit:.3f}x |")
            continue
        cpu_of[name] = statistics.median(found.cpu) / snapshots
        written = statistics.median(found.written) - statistics.median(base.written)
        print(
            f"| {name} | {statistics.median(found.stall) * 1e3:.2f} ms "
            f"| {cpu_of[name] * 1e3:.0f} ms | {written / snapshots / 1e3:.0f} KB | {fit:.3f}x |"
        )
    if cpu_of.keys() >= {"blog post", "ours"}:
        ratio = cpu_of["blog post"] / cpu_of["ours"]
        print(f"\nCPU per snapshot: the blog post takes {ratio:.1f} times as much as ours.")


def main() -> None:
    """Print the tables of the documentation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batches", type=int, default=13, help="in an epoch: about 2 s")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    options = parser.parse_args()
    mpl.use("agg")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    print(f"{options.rounds} rounds, {torch.get_num_threads()} threads, batches of {BATCH}")
    names = options.contenders
    compare(options.rounds, options.epochs, options.batches, names, each_step=False)
    compare(options.rounds, 1, options.batches, names, each_step=True)


if __name__ == "__main__":
    main()

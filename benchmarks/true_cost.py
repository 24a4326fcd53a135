"""Measure the time that a training loses to a snapshot, wherever it loses it.

A snapshot costs more than its hook: the threads beside the training hold the interpreter, and the
training waits for it between two of its own calls. So every step of a training is measured. The
steps after a snapshot are compared with as many steps later on, when the snapshot is done. The two
are next to each other in time, so a slower phase of the machine affects both.

- "calls": a plain loop with steps of one millisecond. It makes many small calls of torch on the
  CPU, and holds the interpreter all the time, as a training on a fast GPU does.
- "resnet18-cpu": ResNet-18 on the CPU in a Lightning Trainer, batches of 16 crops of 96 pixels.
- "resnet18-cuda", "resnet50-cuda": batches of 16 crops of 64 pixels in float32, and batches of 64
  crops of 224 pixels in bfloat16. They need a CUDA device.

"ours, at first" draws in a thread of the training. "ours" draws in another process, as all longer
trainings do after a while. "lost" is the time that a training loses to one snapshot, "CPU" the
processor time of all processes for one snapshot. "closing" is the time between the last step and
the end of the training, less that of the training without snapshots. In each round every
contender trains once. Figures are medians over all snapshots, or over the rounds.

    python benchmarks/true_cost.py [--rounds 3] [--trainings calls resnet18-cpu]
"""

import argparse
import gc
import logging
import math
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from process_costs import memory_of_children, processor_time
from skimage import data
from snapshot import blog_post, pasted_snippet, photo_of
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from torchvision.models import resnet18, resnet50

from kernelviz_callback import KernelVizCallback, KernelWatcher
from kernelviz_callback.training import drawing_process

STEP_OF_CALLS = 1e-3  # seconds
CONTENDERS = (
    "none",
    "ours",
    "ours, at first",
    "ours, health=False",
    "pasted snippet",
    "blog post",
)
SLOW = {"pasted snippet": pasted_snippet, "blog post": blog_post}
SNAPSHOTS, SNAPSHOTS_OF_SLOW = 20, 3  # that are measured in one training


class Measured(NamedTuple):
    """What one training measured.

    Attributes:
        after: Seconds of each step after a snapshot, shape (snapshots, steps).
        later: Seconds of as many steps later on, the same shape.
        cpu: Seconds of processor time that the steps ``after`` took beyond the steps ``later``, for
            each snapshot.
        closing: Seconds from the end of the last step to the end of the training.
        memory: Bytes that only the other process has in memory (its unique set size) before the
            training ends. It is 0 if no other process draws.
    """

    after: np.ndarray
    later: np.ndarray
    cpu: np.ndarray
    closing: float
    memory: int


@dataclass(frozen=True)
class Plan:
    """When a training takes snapshots.

    Attributes:
        every: Number of steps that are compared. A snapshot is taken every ``2 * every`` steps.
        first: Number of snapshots at the beginning that are not measured.
        measured: Number of snapshots that are measured.
    """

    every: int
    first: int
    measured: int = SNAPSHOTS

    @property
    def steps(self) -> int:
        """Number of steps of the training."""
        return 2 * self.every * (self.first + self.measured + 1)

    def is_due(self, step: int) -> bool:
        """Whether a snapshot is due after so many steps. None is due after the last step."""
        return 0 < step < self.steps and step % (2 * self.every) == 0


class Watch:
    """Measures the steps of a training.

    A snapshot is taken at the end of a step, so a block of steps begins with this one.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.durations: list[float] = []
        self.cpu: list[float] = []
        self.memory = 0
        self.start()

    def start(self) -> None:
        """Begin a step."""
        if (len(self.durations) + 1) % self.plan.every == 0:
            self.cpu.append(processor_time())
        if len(self.durations) == self.plan.steps - 1:  # this step is not measured
            self.memory = memory_of_children()
        self.began = time.perf_counter()

    def stop(self) -> None:
        """End a step."""
        self.durations.append(time.perf_counter() - self.began)

    def result(self, closing: float) -> Measured:
        """Return what was measured."""
        every, skipped = self.plan.every, 2 * self.plan.first + 2
        blocks = np.array(self.durations[skipped * every - 1 : -1])
        blocks = blocks.reshape(-1, 2, every)
        cpu = np.diff(self.cpu)[skipped - 1 :][: 2 * len(blocks)].reshape(-1, 2)
        return Measured(blocks[:, 0], blocks[:, 1], cpu[:, 0] - cpu[:, 1], closing, self.memory)


class Clock(Callback):
    """Measures the steps of a Trainer. It must be the last callback."""

    def __init__(self, plan: Plan) -> None:
        self.watch = Watch(plan)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """End a step and begin the next one. At the end of a block, wait for the device."""
        is_end = trainer.global_step % self.watch.plan.every == 0
        if is_end and trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        self.watch.stop()
        self.ended = time.perf_counter()
        self.watch.start()


class InTheHook(Callback):
    """Draw the pictures in the hook, in the training's thread."""

    def __init__(self, contender: Callable[..., Callable[[int], None]], plan: Plan) -> None:
        self.contender = contender
        self.plan = plan

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Take a snapshot if it is due."""
        if self.plan.is_due(trainer.global_step):
            conv = next(m for m in pl_module.modules() if isinstance(m, nn.Conv2d))
            on_cpu = deepcopy(conv).cpu()
            photo = photo_of(data.astronaut())
            self.contender(on_cpu, photo, trainer.logger.experiment)(trainer.global_step)


class Network(LightningModule):
    """A network of torchvision for 16 classes, which sees the same batch in every step.

    The batch stays on the device, so that nothing but the network takes time.
    """

    def __init__(self, net: nn.Module, batch: int, crop: int) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("images", torch.rand(batch, 3, crop, crop), persistent=False)
        self.register_buffer("labels", torch.randint(16, (batch,)), persistent=False)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Return the cross-entropy."""
        return F.cross_entropy(self.net(self.images), self.labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Use SGD with momentum."""
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def loop_of_calls(contender: str, plan: Plan) -> Measured:
    """Train with small calls of torch that hold the interpreter, in a plain loop."""
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 64, 7)
    small = torch.rand(16)
    calls = _calls_of(STEP_OF_CALLS, small)
    with tempfile.TemporaryDirectory() as folder, SummaryWriter(folder) as writer:
        snapshot, close = _in_a_loop(contender, conv, folder, writer)
        watch = Watch(plan)
        for step in range(1, plan.steps + 1):
            watch.start()
            for _ in range(calls):
                small = small * 0.5 + 0.25
            with torch.no_grad():
                conv.weight.mul_(0.9999)
            if plan.is_due(step):
                snapshot(step)
            watch.stop()
        began = time.perf_counter()
        close()
        writer.flush()
        return watch.result(time.perf_counter() - began)


def lightning_training(
    net: Callable[..., nn.Module], crop: int, batch: int, **options: Any
) -> Callable[[str, Plan], Measured]:
    """Train a network of torchvision with a Trainer."""

    def run(contender: str, plan: Plan) -> Measured:
        seed_everything(1, verbose=False)
        clock, callback = Clock(plan), _callback_of(contender, plan)
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                max_steps=plan.steps,
                max_epochs=1,
                logger=TensorBoardLogger(folder),
                callbacks=[callback, clock] if callback else [clock],
                enable_checkpointing=False,
                enable_model_summary=False,
                enable_progress_bar=False,
                **options,
            )
            network = Network(net(num_classes=16), batch, crop)
            trainer.fit(network, DataLoader(range(plan.steps), batch_size=1))
            trainer.logger.experiment.flush()
            return clock.watch.result(time.perf_counter() - clock.ended)

    return run


TRAININGS: dict[str, tuple[Callable[[str, Plan], Measured], Plan]] = {
    "calls": (loop_of_calls, Plan(every=200, first=15)),
    "resnet18-cpu": (lightning_training(resnet18, 96, 16, accelerator="cpu"), Plan(10, 4, 10)),
    "resnet18-cuda": (
        lightning_training(resnet18, 64, 16, accelerator="cuda", devices=1),
        Plan(every=50, first=8, measured=15),
    ),
    "resnet50-cuda": (
        lightning_training(
            resnet50, 224, 64, accelerator="cuda", devices=1, precision="bf16-mixed"
        ),
        Plan(every=25, first=4, measured=6),
    ),
}


def compare(name: str, rounds: int, contenders: tuple[str, ...]) -> None:
    """Print the table of one training."""
    run, plan = TRAININGS[name]
    found: dict[str, list[Measured]] = {contender: [] for contender in contenders}
    for number in range(rounds):
        for contender in contenders:
            is_slow = contender in SLOW
            own = replace(plan, first=0, measured=SNAPSHOTS_OF_SLOW) if is_slow else plan
            with _quiet(), drawing_in(contender):
                measured = run(contender, own)
            found[contender].append(measured)
            # All figures at once: a run that is cut off has shown something.
            row = row_of([measured], found["none"])
            print(f"{name}, round {number + 1} of {rounds}, {contender}: {row}", file=sys.stderr)
    print(
        f"\n| {name}, {plan.every} steps after a snapshot | lost | CPU | median step "
        "| 99 % of the steps | the same without | worst step | closing |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for contender, rows in found.items():
        print(f"| {contender} | {row_of(rows, found['none'])} |", flush=True)
    memory = max(measured.memory for rows in found.values() for measured in rows)
    print(f"\nThe other process has {memory / 1e6:.0f} MB of memory of its own.", flush=True)


def row_of(trainings: list[Measured], without: list[Measured]) -> str:
    """Return the cells of a contender; the closing is less that of the trainings without one."""
    after, later, cpu = (np.concatenate(part) for part in list(zip(*trainings, strict=True))[:3])
    closing, usual = (statistics.median(m.closing for m in some) for some in (trainings, without))
    cells = [
        np.median(after.sum(1) - later.sum(1)),
        np.median(cpu),
        np.median(after),
        np.quantile(after, 0.99),
        np.quantile(later, 0.99),
        after.max(),
        closing - usual,
    ]
    return " | ".join(f"{x * 1e3:.1f} ms" for x in cells)


def _in_a_loop(
    contender: str, conv: nn.Conv2d, folder: str, writer: SummaryWriter
) -> tuple[Callable[[int], None], Callable[[], None]]:
    """Return what takes a snapshot and what closes the contender."""
    photo = photo_of(data.astronaut())
    if contender.startswith("ours"):
        watcher = KernelWatcher(
            nn.Sequential(conv),
            folder,
            probe=photo,
            loggers=[writer],
            health="health" not in contender,
        )
        return watcher.snapshot, watcher.close
    if contender == "none":
        return lambda _: None, lambda: None
    return SLOW[contender](conv, photo, writer), lambda: None


def _callback_of(contender: str, plan: Plan) -> Callback | None:
    if contender.startswith("ours"):
        return KernelVizCallback(
            probe=photo_of(data.astronaut()),
            every_n_train_steps=2 * plan.every,
            every_n_epochs=None,
            early_steps=False,
            health="health" not in contender,
        )
    return None if contender == "none" else InTheHook(SLOW[contender], plan)


@contextmanager
def drawing_in(contender: str) -> Iterator[None]:
    """Draw in another process from the first snapshot on, or never."""
    costs = drawing_process.START_COST, drawing_process.START_COST_ON_MANY
    cost = math.inf if contender == "ours, at first" else 0.0
    drawing_process.START_COST = drawing_process.START_COST_ON_MANY = cost
    yield
    drawing_process.START_COST, drawing_process.START_COST_ON_MANY = costs


def _calls_of(seconds: float, small: Tensor) -> int:
    """Return how many pairs of calls take that long."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(1000):
            small = small * 0.5 + 0.25
        times.append((time.perf_counter() - start) / 1000)
    return round(seconds / min(times))


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message="kernelviz: could not")
        gc.collect()
        yield


def main() -> None:
    """Print the tables of the documentation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trainings", nargs="+", choices=TRAININGS)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    options = parser.parse_args()
    mpl.use("agg")
    gc.collect()
    gc.freeze()  # or a collection would take milliseconds, because of all the imported modules
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("kernelviz_callback").setLevel(logging.ERROR)
    has_cuda = torch.cuda.is_available()
    chosen = options.trainings or [n for n in TRAININGS if has_cuda or not n.endswith("cuda")]
    device = torch.cuda.get_device_name() if has_cuda else "no CUDA device"
    print(f"{options.rounds} rounds, {torch.get_num_threads()} threads, {device}")
    contenders = tuple(c for c in CONTENDERS if c == "none" or c in options.contenders)
    for name in chosen:
        compare(name, options.rounds, contenders)


if __name__ == "__main__":
    main()

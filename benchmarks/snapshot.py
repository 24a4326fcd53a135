"""Measure what one snapshot costs, in comparison with the two usual ways to draw filters.

This runs on the CPU, in one process, with ResNet-50's first layer (64x3x7x7) and a 224x224 photo.
Each contender draws both pictures and writes them to TensorBoard. Its time ends when the bytes are
in the event file. The contenders take turns, so that a slower phase of the machine affects all of
them.

    python benchmarks/snapshot.py [--rounds 15]
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from PIL import Image
from skimage import data
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter
from torchvision.models import resnet50
from torchvision.utils import make_grid

from kernelviz_callback import load_probe
from kernelviz_callback.training.failures import FailureReporter, Failures
from kernelviz_callback.training.loggers.tensorboard import TensorBoard
from kernelviz_callback.training.recorder import Recorder
from kernelviz_callback.training.renderer import Renderer
from kernelviz_callback.training.watched_layers import WatchedLayers

Contender = Callable[[int], None]
OPENED: list[Recorder] = []  # the recorder of `ours`, once it has taken a snapshot


def blog_post(conv: nn.Conv2d, photo: Tensor, writer: SummaryWriter) -> Contender:
    """Draw two matplotlib grids: the raw weights, and the photo convolved channel by channel."""

    def snapshot(step: int) -> None:
        weights = conv.weight.detach()
        kernels, axes = plt.subplots(8, 8, figsize=(8, 8))
        for weight, axis in zip(weights, axes.flat, strict=True):
            axis.imshow(weight.permute(1, 2, 0).clamp(0, 1))
            axis.axis("off")
        writer.add_figure("kernels", kernels, step)
        responses, axes = plt.subplots(8, 8, figsize=(8, 8))
        for weight, axis in zip(weights, axes.flat, strict=True):
            planes = [
                F.conv2d(photo[None, c : c + 1], weight[None, c : c + 1])[0, 0] for c in range(3)
            ]
            axis.imshow(torch.stack(planes, dim=-1).clamp(0, 1))
            axis.axis("off")
        writer.add_figure("responses", responses, step)

    return snapshot


def pasted_snippet(conv: nn.Conv2d, photo: Tensor, writer: SummaryWriter) -> Contender:
    """Draw the same with `make_grid` and `add_image`, at full size."""

    def snapshot(step: int) -> None:
        weights = conv.weight.detach()
        writer.add_image("kernels", make_grid(weights, nrow=8, normalize=True), step)
        grouped = weights.transpose(0, 1).reshape(-1, 1, 7, 7)
        planes = F.conv2d(photo[None], grouped, groups=3)[0]
        responses = planes.reshape(3, 64, *planes.shape[1:]).transpose(0, 1)
        writer.add_image("responses", make_grid(responses, nrow=8, normalize=True), step)

    return snapshot


def ours(conv: nn.Conv2d, photo: Tensor, writer: SummaryWriter) -> Contender:
    """All that the callback does for a snapshot, the exact file included, until it is done."""
    watched = WatchedLayers(nn.Sequential(conv))
    probe = load_probe(photo)

    def snapshot(step: int) -> None:
        failures = Failures()
        taken = watched.take(step=step, epoch=0, probe=probe, keep=True, failures=failures)
        if not OPENED:
            renderer = Renderer(probe, response="channels", scale="filter", run_scales={})
            OPENED.append(
                Recorder(
                    writer.log_dir,
                    probe,
                    last=None,
                    device=conv.weight.device,
                    renderer=renderer,
                    reporter=FailureReporter(),
                    health=True,
                    about="conv1",
                )
            )
        OPENED[0].record(taken, [TensorBoard(writer)], failures)
        OPENED[0].drain()

    return snapshot


def main() -> None:
    """Print the table of the documentation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    mpl.use("agg")
    torch.manual_seed(0)
    conv = resnet50().conv1
    photo = photo_of(data.astronaut())

    contenders = {"blog post": blog_post, "pasted snippet": pasted_snippet, "ours": ours}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    sizes: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as warned:
        prepared = {}
        for name, contender in contenders.items():
            writer = SummaryWriter(Path(folder) / name)
            prepared[name] = writer, contender(conv, photo, writer)
        for step in range(rounds + 1):  # the first round warms up
            for name, (writer, snapshot) in prepared.items():
                before = bytes_below(Path(folder) / name)
                start, start_cpu = time.perf_counter(), time.process_time()
                snapshot(step)
                writer.flush()
                if step:
                    times[name].append(time.perf_counter() - start)
                    cpu[name].append(time.process_time() - start_cpu)
                    sizes[name] = bytes_below(Path(folder) / name) - before
        OPENED[0].close()
        for writer, _ in prepared.values():
            writer.close()
    if warned:  # a failed snapshot would seem to be fast
        raise RuntimeError(f"a snapshot failed, so the times are wrong: {warned[0].message}")

    base = times["blog post"]
    print(
        f"| {rounds} rounds, {torch.get_num_threads()} threads | wall | CPU | bytes | wall ratio |"
    )
    print("|---|---|---|---|---|")
    for name, taken in times.items():
        ratio = statistics.median(b / t for b, t in zip(base, taken, strict=True))
        print(
            f"| {name} | {statistics.median(taken) * 1e3:.0f} ms "
            f"| {statistics.median(cpu[name]) * 1e3:.0f} ms "
            f"| {sizes[name] / 1e3:.0f} KB | {ratio:.1f}x faster |"
        )


def photo_of(pixels: np.ndarray) -> Tensor:
    """Convert a photo to a probe of shape (3, 224, 224), in [0, 1]."""
    image = Image.fromarray(pixels).resize((224, 224))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def bytes_below(folder: Path) -> int:
    """Return the size of all files in a folder and its subfolders, in bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()

"""Measure the parts of the work on a snapshot: what is left to make faster.

One layer of 64 filters of 3x7x7, as in ResNet, changes a little from snapshot to snapshot. The
probe is a photograph of 224 pixels. Everything runs in one thread, on one processor. Each figure is
the median processor time of a part over all snapshots but the first ones.

    python benchmarks/parts.py [--snapshots 60]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from skimage import data
from snapshot import photo_of
from torch import nn

from kernelviz_callback import Snapshot, geometry_of, kernel_health, load_probe, save_snapshot
from kernelviz_callback.drawing.encode import to_jpeg, to_png
from kernelviz_callback.drawing.layer_pictures import kernel_picture, paint_responses
from kernelviz_callback.probe.probe_energy import energy_for_layer
from kernelviz_callback.snapshots.attempt import Attempt
from kernelviz_callback.snapshots.event import pack_layer
from kernelviz_callback.training.films import Reel, draw_films

WARM_UP = 5
FILMS = "films of 24 snapshots, at the end"
Result = TypeVar("Result")


class Parts:
    """Measures parts: name to the processor time of each call, in seconds."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}

    def measure(self, name: str, part: Callable[..., Result], *args: Any, **options: Any) -> Result:
        """Call a function and measure it."""
        start = time.thread_time()
        result = part(*args, **options)
        self.times.setdefault(name, []).append(time.thread_time() - start)
        return result


def measure(snapshots: int, folder: Path) -> Parts:
    """Do the work on so many snapshots, part by part, and then draw the films."""
    torch.manual_seed(0)
    conv, parts = nn.Conv2d(3, 64, 7, stride=2, padding=3), Parts()
    geometry, probe = geometry_of(conv), load_probe(photo_of(data.astronaut()))
    energy = energy_for_layer(probe, conv.weight.shape)
    reel = Reel()
    first = previous = conv.weight.detach().clone()
    for step in range(snapshots):
        weights = previous + 0.01 * torch.randn_like(previous)
        shown = {"layer": "conv1", "when": f"step {step}"}
        taken = Snapshot(step, 0, 0.0, {"conv1": weights}, {"conv1": geometry})
        parts.measure("write the file", save_snapshot, taken, folder)
        health = parts.measure(
            "examine the filters",
            kernel_health,
            weights,
            first=first,
            previous=previous,
            energy=energy,
        )
        examined = replace(taken, health={"conv1": health})
        parts.measure("write the file again, with the health", save_snapshot, examined, folder)
        kernels = parts.measure(
            "draw the kernels",
            kernel_picture,
            weights,
            **shown,
            groups=1,
            scale="filter",
            health=health,
        )
        parts.measure("encode them as PNG", to_png, kernels.pixels)
        painted = parts.measure(
            "convolve the probe and colour the responses",
            paint_responses,
            weights,
            geometry,
            probe,
            **shown,
        )
        responses = parts.measure("put the responses into a picture", painted.compose)
        parts.measure("encode it as JPEG", to_jpeg, responses.pixels)
        parts.measure(
            "pack the event for the Kernels tab",
            pack_layer,
            examined,
            "conv1",
            Attempt("a", 1),
            began_at=0,
        )
        reel.add(taken)
        previous = weights
    for _ in range(WARM_UP + 3):
        parts.measure(FILMS, draw_films, folder, reel)
    return parts


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--snapshots", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        parts = measure(options.snapshots + WARM_UP, Path(folder))
    print("| part | CPU |\n|---|---|")
    total = 0.0
    for name, times in parts.times.items():
        median = statistics.median(times[WARM_UP:])
        total += 0.0 if name == FILMS else median
        print(f"| {name} | {median * 1e3:.1f} ms |")
    print(f"\nA snapshot without the films: {total * 1e3:.1f} ms.")


if __name__ == "__main__":
    main()

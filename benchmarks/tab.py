"""Measure the Kernels tab in a real TensorBoard and headless Chromium, and print its targets.

The runs have 1,000 snapshots of 64x3x7x7, with a photo of 224 pixels as the probe. Another run has
what a user would log otherwise: 1,000 grids through ``add_image``, and a scalar with each. The page
itself measures when something is visible: at the frame after the one in which it was drawn.

    python benchmarks/tab.py [--rounds 3] [--quick]
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from playwright.sync_api import Browser, sync_playwright
from skimage import data
from snapshot import bytes_below
from timed_tab import Tab, tab
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import make_grid

from kernelviz_callback import load_probe

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from engine_page import CHROMIUM, QUIET
from tab_boards import Board, served
from tab_runs import RunWriter, random_weights

COUNT = 1000
MANY = 10_000
SIDE = 224  # pixels of the probe
ANSWERED = range(111, 666, 111)  # steps at which the slider stops
WRITTEN = 5  # snapshots that are written while the page is open
RELOADED = 5  # seconds between two times that TensorBoard reads new events
LOADERS = {"fast": "--load_fast=true", "Python": "--load_fast=false"}

# Print the milliseconds, and which of torch and Lightning the tab has imported.
_START = """
import json, sys, time
from importlib.metadata import entry_points
from tensorboard import default, program
from tensorboard.plugins.base_plugin import TBContext
default.get_static_plugins()
(point,) = entry_points(group="tensorboard_plugins", name="kernels")
start = time.perf_counter()
plugin = point.load()().load(TBContext())
plugin.get_plugin_apps(), plugin.frontend_metadata()
taken = time.perf_counter() - start
print(json.dumps([taken * 1e3, [name for name in ("torch", "lightning") if name in sys.modules]]))
"""

Row = tuple[str, str, str]


class Bench:
    """All measurements, with the same files and the same browser."""

    def __init__(self, root: Path, browser: Browser, rounds: int) -> None:
        self.root, self.browser, self.rounds = root, browser, rounds

    def write(self, many: int) -> RunWriter:
        """Write all runs. Return the writer of the run to which more snapshots will be added."""
        weights = [random_weights(range(COUNT), seed=seed) for seed in range(2)]
        write_otherwise(self.root / "plain" / "otherwise", weights[0])
        shutil.copytree(self.root / "plain", self.root / "one")
        with RunWriter(self.root / "two" / "b") as run:
            write_snapshots(run, weights[1], COUNT)
        with RunWriter(self.root / "many" / "a") as run:
            write_snapshots(run, weights[0], many)
        live = RunWriter(self.root / "one" / "a")
        write_snapshots(live, weights[0], COUNT)
        shutil.copytree(self.root / "one" / "a", self.root / "two" / "a")
        return live

    def serve(self, name: str, *flags: str) -> AbstractContextManager[Board]:
        """Start TensorBoard on one of the folders."""
        return served(f"--logdir={self.root / name}", *flags, log=self.root / "log")

    def beside(self) -> Iterator[Row]:
        """Compare what the tab and TensorBoard's own dashboard have of the same 1,000 steps."""
        with self.serve("one") as board:
            await_all(board)
            ours, theirs = [each["step"] for each in snapshots(board)], images(board)
        yield "snapshots kept", f"{len(ours):,}", f"{len(theirs):,}"
        yield "has the first snapshot", *("yes" if 0 in steps else "no" for steps in (ours, theirs))
        sizes = [bytes_below(self.root / run) / COUNT for run in ("two/a", "plain/otherwise")]
        yield "bytes per snapshot", *(f"{size / 1e3:.1f} KB" for size in sizes)

    def figures(self, live: RunWriter) -> Iterator[Row]:
        """Measure all that has a target."""
        yield from self.starting()
        yield from self.memory()
        with self.serve("one") as board:
            await_all(board)
            yield from self.opening(board)
            with tab(self.browser) as page:
                page.open(board.url)
                page.load(COUNT)
                yield "1,000 snapshots: memory of the page", "", f"{page.megabytes():.0f} MB"
                yield from self.moving(page, "one run")
            with tab(self.browser) as page:
                page.open(board.url)
                yield from self.living(page, live)
        with self.serve("two") as board, tab(self.browser) as page:
            board.until(lambda _: all(len(snapshots(board, run)) == COUNT for run in "ab"))
            page.open(board.url, "&p.kernels.runs=a%2Cb")
            page.load(2 * COUNT)
            yield from self.moving(page, "two runs")

    def starting(self) -> Iterator[Row]:
        """Measure the time that the plugin adds to TensorBoard's start, in new processes."""
        command = [sys.executable, "-c", _START]
        rounds = range(2 * self.rounds + 1)
        found = [json.loads(subprocess.check_output(command, text=True)) for _ in rounds]
        yield "added to TensorBoard's start", "50 ms", spread([taken for taken, _ in found], "ms")
        imported = sorted({name for _, names in found for name in names})
        yield "torch or lightning imported by it", "no", ", ".join(imported) or "no"

    def memory(self) -> Iterator[Row]:
        """Measure the memory that our events need in TensorBoard, with each loader."""
        for loader, flag in LOADERS.items():
            with self.serve("plain", flag) as board:
                without = megabytes(board, ours=0)
            with self.serve("one", flag) as board:
                all_in_all = megabytes(board, ours=COUNT)
            told = f"{all_in_all - without:.0f} MB ({all_in_all:.0f} MB less {without:.0f} MB)"
            yield f"the tab's share of TensorBoard's memory, {loader} loader", "100 MB", told

    def opening(self, board: Board) -> Iterator[Row]:
        """Measure the time until kernels are visible, and until all snapshots are loaded."""
        clicked, before, opened, loaded = [], [], [], []
        for _ in range(self.rounds):
            with tab(self.browser) as page:
                clicked.append(page.click(board.url))
            with tab(self.browser) as page:
                own, seen = page.open(board.url)
                before.append(own)
                opened.append(seen)
                loaded.append(page.load(COUNT))
        yield "from a click on the tab until kernels are visible", "1 s", spread(clicked, "s", 2)
        told = f"{spread(opened, 's', 2)}, after {spread(before, 's', 2)} of TensorBoard itself"
        yield "page reloaded, from opening the tab until kernels are visible", "1 s", told
        yield (
            "from opening the tab until all 1,000 snapshots are in the browser",
            "5 s",
            spread(loaded, "s", 2),
        )

    def moving(self, page: Tab, runs: str) -> Iterator[Row]:
        """Measure how fast the page draws while the slider moves."""
        yield self.pace(f"playing, {runs}", page.play)
        yield self.pace(f"dragging the slider, {runs}", page.drag)
        answered = [page.respond(step) for step in ANSWERED]
        yield (
            f"from a stop of the slider until all responses are visible, {runs}",
            "1.5 s",
            spread(answered, "s", 2),
        )
        page.enlarge()
        yield self.pace(f"dragging the slider, {runs}, a filter enlarged", page.drag)

    def pace(self, what: str, move: Callable[[], list[float]]) -> Row:
        """Measure how many new pictures are drawn per second."""
        gaps = [np.diff(move()) for _ in range(self.rounds)]
        rate = spread([1 / each.mean() for each in gaps], "per second")
        within = np.percentile(np.concatenate(gaps), 95) * 1e3
        return f"pictures, {what}", "30 per second", f"{rate}, 95 % within {within:.0f} ms"

    def living(self, page: Tab, live: RunWriter) -> Iterator[Row]:
        """Measure the time from writing a snapshot until it is visible."""
        chance, (weights,) = random.Random(0), random_weights(range(1)).values()
        taken = []
        for step in range(COUNT, COUNT + WRITTEN):
            time.sleep(chance.uniform(0, RELOADED))
            page.record()
            written = time.time()
            live.snapshot(weights, step)
            live.flush()
            page.until("data-step", step)
            taken.append(page.pictures()[-1] - written)
        yield "from writing a snapshot until it is visible", "6 s", spread(taken, "s", 1)

    def many(self, count: int) -> Iterator[Row]:
        """Measure the same with ten times as many snapshots."""
        name = f"{count:,} snapshots"
        with self.serve("many") as board, tab(self.browser) as page:
            board.until(lambda _: len(snapshots(board)) == count)
            _, seen = page.open(board.url)
            yield f"{name}: from opening the tab until kernels are visible", "", f"{seen:.2f} s"
            yield (
                f"{name}: from opening the tab until all are in the browser",
                "",
                f"{page.load(count):.1f} s",
            )
            yield f"{name}: memory of the page", "", f"{page.megabytes():.0f} MB"
            yield self.pace(f"dragging the slider, {name}", page.drag)


def write_otherwise(folder: Path, weights: dict[int, np.ndarray]) -> None:
    """Write scalars, and grids by ``add_image``, for TensorBoard's own dashboards."""
    with SummaryWriter(str(folder), max_queue=1000) as writer:
        for step, values in weights.items():
            writer.add_scalar("loss", 1 / (1 + step), step)
            grid = make_grid(torch.from_numpy(values), normalize=True, scale_each=True)
            writer.add_image("conv1", grid, step)


def write_snapshots(run: RunWriter, weights: dict[int, np.ndarray], count: int) -> None:
    """Write a run for the tab with its probe, and flush it."""
    photo = load_probe(Image.fromarray(data.astronaut()), size=SIDE)
    run.probe(photo.image.numpy(), digest=photo.digest)
    for step in range(count):
        run.snapshot(weights[step % len(weights)], step, probe=photo.digest)
    run.flush()


def images(board: Board) -> list[int]:
    """Return the steps that TensorBoard's Images dashboard has."""
    reply = board.get("/data/plugin/images/images?run=otherwise&tag=conv1&sample=0")
    return [each["step"] for each in reply.json()] if reply.status == 200 else []


def snapshots(board: Board, name: str = "a") -> list[dict[str, Any]]:
    """Return the snapshots that the tab has of a run."""
    run = board.run(name)
    return run["layers"][0]["snapshots"] if run else []


def await_all(board: Board, ours: int = COUNT) -> None:
    """Wait until TensorBoard has read both runs completely; ``ours`` is our number of snapshots."""
    board.until(lambda _: images(board)[-1:] == [COUNT - 1] and len(snapshots(board)) == ours)


def megabytes(board: Board, ours: int) -> float:
    """Request all snapshots, then return TensorBoard's resident memory, with its data server."""
    await_all(board, ours)
    assert all(board.payloads("a", "conv1", [each["id"] for each in snapshots(board)]))
    assert board.process is not None
    server = psutil.Process(board.process.pid)
    return sum(each.memory_info().rss for each in [server, *server.children(recursive=True)]) / 1e6


def spread(values: Sequence[float], unit: str, digits: int = 0) -> str:
    """Format the median, the least and the most."""
    low, middle, high = (f"{of(values):.{digits}f}" for of in (min, statistics.median, max))
    return f"{middle} {unit} ({low} to {high})"


def print_table(headline: str, rows: Iterable[Row]) -> None:
    """Print a table in Markdown. Each row is printed as soon as it is measured."""
    print(f"\n{headline}\n|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def main() -> None:
    """Print the tables of the documentation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round, no 10,000 snapshots")
    options = parser.parse_args()
    if CHROMIUM is None:
        parser.error("found no chromium on the PATH to open the tab with; install it")
    many, rounds = (0, 1) if options.quick else (MANY, options.rounds)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        bench = Bench(Path(folder), browser, rounds)
        with bench.write(many) as live:
            print(f"{rounds} rounds, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
            print_table("| the same 1,000 steps | Kernels tab | `add_image` |", bench.beside())
            print_table("| Kernels tab | target | measured |", bench.figures(live))
        for row in bench.many(many) if many else []:
            print(f"| {' | '.join(row)} |", flush=True)
        print(f"\nload {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()

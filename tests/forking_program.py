"""Fork after each public call, and compute in the child. `test_forking.py` runs this program.

    python tests/forking_program.py FOLDER [CALL ...]

It prints each call, and whether the child ended. ``OMP_NUM_THREADS`` must be more than 1.
"""

import faulthandler
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from conftest import TinyNet
from example_snapshot import example_snapshot
from PIL import Image
from torch import nn

import kernelviz_callback as kv

WEIGHTS = torch.randn(64, 3, 7, 7, generator=torch.Generator().manual_seed(0))
PATIENCE = 60  # seconds


def photo(folder: Path) -> Path:
    Image.effect_noise((900, 700), 60).convert("RGB").save(folder / "photo.png")
    return folder / "photo.png"


def saved(folder: Path, name: str = "a.pt", seed: int = 0) -> Path:
    torch.manual_seed(seed)
    torch.save({"conv1.weight": torch.randn(64, 3, 7, 7)}, folder / name)
    return folder / name


def watch(folder: Path) -> None:
    net = nn.Conv2d(3, 64, 7)
    with kv.KernelWatcher(net, folder) as watcher:
        for step in range(2):
            watcher.snapshot(step)


def watch_without_end(folder: Path) -> None:
    """The child is forked while the threads of a watcher work."""
    global kept
    kept = kv.KernelWatcher(nn.Conv2d(3, 64, 7), folder)
    for step in range(5):
        kept.snapshot(step)


def fit(folder: Path, *callbacks: Any) -> None:
    from lightning.pytorch import Trainer

    Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=list(callbacks),
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    ).fit(TinyNet())


def deep_maps() -> Any:
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3))
    return kv.feature_maps(net, {"2": net[2]}, torch.rand(3, 224, 224))


CALLS: dict[str, Callable[[Path], Any]] = {
    "nothing": lambda _: None,
    "KernelVizCallback": lambda _: kv.KernelVizCallback(),
    "KernelVizCallback of a photo": lambda f: kv.KernelVizCallback(probe=photo(f)),
    "KernelWatcher": lambda f: kv.KernelWatcher(nn.Conv2d(3, 64, 7), f),
    "KernelWatcher closed": watch,
    "KernelWatcher not closed": watch_without_end,
    "a whole training": lambda f: fit(f / "first", kv.KernelVizCallback()),
    "load_probe": lambda _: kv.load_probe(),
    "load_probe of a photo": lambda f: kv.load_probe(photo(f)),
    "load_probe of a tensor": lambda _: kv.load_probe(torch.rand(3, 500, 500)),
    "Probe.for_channels": lambda _: kv.load_probe().for_channels(1),
    "make_chart": lambda _: kv.make_chart(512),
    "measure_probe": lambda _: kv.measure_probe(torch.rand(3, 300, 300), (7, 7), channels=3),
    "kernel_grid": lambda _: kv.kernel_grid(WEIGHTS),
    "response_grid": lambda _: kv.response_grid(torch.randn(64, 3, 112, 112)),
    "gain_grid": lambda _: kv.gain_grid(torch.rand(64, 200)),
    "frequency_gain": lambda _: kv.frequency_gain(torch.randn(64, 1, 80)),
    "principal_planes": lambda _: kv.principal_planes(torch.randn(64, 64, 3, 3)),
    "channel_responses": lambda _: kv.channel_responses(torch.rand(3, 224, 224), WEIGHTS),
    "summed_responses": lambda _: kv.summed_responses(torch.rand(3, 224, 224), WEIGHTS),
    "kernel_health": lambda _: kv.kernel_health(WEIGHTS),
    "feature_maps": lambda _: deep_maps(),
    "effective_weight": lambda _: kv.effective_weight(nn.utils.weight_norm(nn.Conv2d(64, 64, 7))),
    "open_checkpoint": lambda f: kv.open_checkpoint(saved(f)).read("conv1"),
    "load_weights": lambda f: kv.load_weights(saved(f)),
    "checkpoint_pictures": lambda f: kv.checkpoint_pictures(
        kv.open_checkpoint(saved(f)), probe=kv.load_probe()
    ),
    "compare": lambda f: kv.compare(saved(f), saved(f, "b.pt", 1)),
    "save_snapshot": lambda f: kv.save_snapshot(example_snapshot(), f),
}


TRAIN_AFTER = ("KernelVizCallback", "a whole training")


def work(folder: Path) -> None:
    """What the child does: it trains a layer, and then a model with a callback."""
    nn.Conv2d(3, 64, 7)(torch.rand(4, 3, 100, 100)).square().mean().backward()
    kv.kernel_health(WEIGHTS)
    if folder.name in TRAIN_AFTER:
        fit(folder / "second", kv.KernelVizCallback())


def forked(folder: Path) -> str:
    """Work in a child, and return how it ended. A child that does not end is killed."""
    pid = os.fork()
    if pid == 0:
        faulthandler.dump_traceback_later(PATIENCE - 1)
        try:
            work(folder)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return "done" if status == 0 else f"ended with {status}"
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hung"


def main(folder: Path, *names: str) -> None:
    warnings.simplefilter("ignore")
    assert torch.get_num_threads() > 1
    for name in names or CALLS:
        (folder / name).mkdir()
        CALLS[name](folder / name)
        print(f"{name}: {forked(folder / name)}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])

"""Runs of the Kernels tab with 1-D, 2-D and 3-D layers, and their weights as the page has them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tab_page import Site, serving
from tab_runs import packed, write_run
from torch import Tensor, nn

from kernelviz_callback import KernelWatcher
from kernelviz_callback.tensorboard_plugin.codec import unpack_snapshot

STEPS = (0, 10, 20)
LAYERS = {
    "picture": lambda: nn.Conv2d(3, 8, 5),
    "audio": lambda: nn.Conv1d(1, 32, 31),
    "stereo": lambda: nn.Conv1d(3, 6, 9),
    "deep": lambda: nn.Conv1d(20, 4, 3),
    "long": lambda: nn.Conv1d(1, 4, 3000),
    "spoilt": lambda: nn.Conv1d(1, 4, 9),
    "spread": lambda: nn.Conv1d(2, 6, 9, dilation=3),
    "video": lambda: nn.Conv3d(3, 12, (3, 7, 7)),
    "volume": lambda: nn.Conv3d(2, 5, (4, 3, 5)),
    "clip": lambda: nn.Conv3d(1, 3, (16, 3, 3)),
}
BROAD = {
    "broad": lambda: nn.Conv1d(600, 64, 9)
}  # more channels than are stored, so in a run of its own


def _model() -> nn.ModuleDict:
    torch.manual_seed(3)
    model = nn.ModuleDict({name: make() for name, make in (LAYERS | BROAD).items()})
    with torch.no_grad():
        model["spoilt"].weight[2, 0, 4] = torch.nan
    return model


def weights_of(layer: str, step: int) -> Tensor:
    """Round weights as the page has them: to 16 or to 8 bits."""
    exact = _model()[layer].weight.detach() * (1 + step / 20)
    return torch.from_numpy(unpack_snapshot(*packed(exact.numpy())).weights())


@contextmanager
def serving_dimensions(browser: Any, folder: Path) -> Iterator[Site]:
    """Serve a run with layers of all dimensions, and one whose layers have the same names."""
    model = _model()
    broad = {step: (model["broad"].weight.detach() * (1 + step / 20)).numpy() for step in STEPS}
    sides = {key: [1] for key in ("stride", "padding", "dilation")}
    write_run(folder / "logs" / "broad", broad, layer="broad", geometry=sides)
    del model["broad"]
    first = {name: layer.weight.detach().clone() for name, layer in model.items()}
    with KernelWatcher(model, folder / "logs" / "all", layers="*", health=False) as watcher:
        for step in STEPS:
            with torch.no_grad():
                for name, layer in model.items():
                    layer.weight.copy_(first[name] * (1 + step / 20))
            watcher.snapshot(step)
    turned = {"video": first["video"].flip(0), "audio": first["audio"][:, :, None]}
    for name, weights in turned.items():
        sides = dict.fromkeys(("stride", "padding", "dilation"), [1] * (weights.ndim - 2))
        path = folder / "logs" / f"turned {name}"
        write_run(path, {0: weights.numpy()}, layer=name, geometry=sides)
    with serving(browser, folder, _has_all) as made:
        yield made


def _has_all(timeline: Any) -> bool:
    counts = {
        run["name"]: [len(of["snapshots"]) for of in run["layers"]] for run in timeline["runs"]
    }
    return len(counts) == 4 and counts.get("all") == [len(STEPS)] * len(LAYERS)

"""Models that `KernelWatcher` watches: lazy, in data parallel, of Fabric, with odd layers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import logged_images, steps_on_disk, warned
from plain_loop import network
from torch import nn

from kernelviz_callback import KernelWatcher, list_snapshots, load_snapshot
from kernelviz_callback.snapshots.probe_file import load_saved_probe


class WithSpareLayer(nn.Module):
    """A network with a lazy convolution that its forward method does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.spare = nn.LazyConv2d(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


@pytest.mark.parametrize("is_early", [True, False])
def test_a_lazy_layer_without_input_is_not_waited_for(tmp_path: Path, is_early: bool) -> None:
    model = WithSpareLayer()
    with KernelWatcher(model, tmp_path, loggers=[]) as watcher:
        for step in range(3):
            if is_early:
                watcher.snapshot(step)
            model(torch.rand(1, 3, 8, 8))
            if not is_early:
                watcher.snapshot(step)
    assert steps_on_disk(tmp_path) == [1, 2]
    assert list(load_snapshot(list_snapshots(tmp_path / "kernelviz")[1]).weights) == ["conv"]


@pytest.mark.loses_something
def test_a_loop_that_records_nothing_says_why(tmp_path: Path, recwarn: Any) -> None:
    with KernelWatcher(WithSpareLayer(), tmp_path, loggers=[]) as watcher:
        watcher.snapshot(0)
    [said] = warned(recwarn)
    assert "a lazy convolution got no input, so it has no weights" in said


def test_a_model_in_data_parallel_has_feature_maps(tmp_path: Path, recwarn: Any) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU(), nn.Conv2d(8, 8, 3))
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(net)
        with KernelWatcher(
            wrapped, tmp_path, layers="*", probe=torch.rand(3, 40, 40), loggers=[]
        ) as watcher:
            watcher.snapshot(0)
    finally:
        torch.distributed.destroy_process_group()
    assert warned(recwarn) == []
    assert (tmp_path / "kernelviz" / "responses-2-step-00000000.jpg").exists()


def test_a_model_of_fabric_is_watched(tmp_path: Path) -> None:
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapped, optimizer = fabric.setup(model, optimizer)
    with KernelWatcher(wrapped, tmp_path) as watcher:
        for step in range(3):
            watcher.snapshot(step)
            optimizer.zero_grad()
            fabric.backward(wrapped(torch.rand(2, 3, 9, 9)).square().mean())
            optimizer.step()
    assert list(logged_images(tmp_path)["kernels/0"]) == [0, 1, 2]


@pytest.mark.parametrize(
    ("layer", "side"),
    [
        (lambda: nn.Conv2d(1, 8, (1, 256)), 512),
        (lambda: nn.Conv2d(3, 4, 3, dilation=150), 602),
        (lambda: nn.Conv2d(3, 4, 7), 224),
    ],
)
def test_the_chart_fits_every_layer(layer: Any, side: int, tmp_path: Path) -> None:
    model = nn.Sequential(layer())
    with KernelWatcher(model, tmp_path) as watcher:
        watcher.snapshot(0)
        watcher.snapshot(1)
    images = logged_images(tmp_path)
    assert list(images["responses/0"]) == list(images["kernels/0"]) == [0, 1]
    saved = load_saved_probe(tmp_path / "kernelviz")
    assert saved is not None
    assert saved.size == (side, side)
    snapshot = load_snapshot(list_snapshots(tmp_path / "kernelviz")[1])
    assert snapshot.probe_digest == saved.digest
    header = next(iter(images["probe"].values()))
    assert header.shape[:2] == (side, side)

"""The watched layer stays the same when a training is resumed or a layer is replaced."""

from typing import Any

import pytest
import torch
from conftest import steps_on_disk, warned
from lightning.pytorch.loggers import TensorBoardLogger
from networks import Encoder, Lit, UNet, last_snapshot
from torch import Tensor, nn

from kernelviz_callback import (
    KernelVizCallback,
    KernelWatcher,
    list_snapshots,
    load_snapshot,
)
from kernelviz_callback.training.watched_layers import WatchedLayers


def test_a_resumed_training_watches_the_layer_that_it_watched(fit, tmp_path, recwarn) -> None:
    class Thawed(Lit):
        """The stem is frozen in the first part of the training."""

        is_frozen = True

        def add_parts(self) -> None:
            super().add_parts()
            self.net.stem.requires_grad_(not self.is_frozen)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = fit(KernelVizCallback(), model=Thawed(), max_epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert list(last_snapshot(trainer).weights) == ["net.deep"]
    Thawed.is_frozen = False
    logger = TensorBoardLogger(tmp_path, name="run", version=trainer.logger.version)
    resumed = fit(
        KernelVizCallback(), model=Thawed(), ckpt_path=tmp_path / "last.ckpt", logger=logger
    )
    assert steps_on_disk(resumed.log_dir) == [0, 1, 2, 4, 8]
    assert list(last_snapshot(resumed).weights) == ["net.deep"]
    assert not [w for w in warned(recwarn) if "changed since the checkpoint" in w]
    assert list(last_snapshot(fit(KernelVizCallback(), model=Thawed(), max_epochs=1)).weights) == [
        "net.stem"
    ]


def test_a_layer_that_got_another_name_is_watched_again_and_said() -> None:
    class Lora(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 4, 3)
            self.lora_A = nn.Parameter(torch.zeros(2, 72))

    net = nn.Sequential(nn.Conv2d(3, 8, 3), Lora())
    watched = WatchedLayers(net, before=["1.conv"])
    assert list(watched.shapes) == ["1"]
    assert "; 1 had the name 1.conv before" in str(watched)
    assert list(WatchedLayers(net, before=["gone"]).shapes) == ["0"]


def test_a_resumed_watcher_watches_the_layer_that_it_watched(tmp_path) -> None:
    net = Encoder()
    net.stem.requires_grad_(False)
    with KernelWatcher(net, tmp_path, loggers=[]) as watcher:
        watcher.snapshot(0)
        state = watcher.state_dict()
    assert list(state["layers"]) == ["deep"]
    net.stem.requires_grad_(True)
    with KernelWatcher(net, tmp_path, loggers=[]) as watcher:
        watcher.load_state_dict(state)
        watcher.snapshot(1)
    weights = [load_snapshot(p).weights for p in list_snapshots(tmp_path / "kernelviz").values()]
    assert list(map(list, weights)) == [["deep"], ["deep"]]


def test_lazy_layers_are_chosen_after_the_first_batch(fit) -> None:
    class Lazy(Lit):
        def add_parts(self) -> None:
            self.net = UNet()
            self.net.stem = nn.LazyConv2d(4, 3, padding=1)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = fit(KernelVizCallback(early_steps=False), model=Lazy(), max_epochs=1)
    assert steps_on_disk(trainer.log_dir) == [0, 4]
    assert list(last_snapshot(trainer).weights) == ["net.stem"]


def test_a_replaced_layer_keeps_its_name_and_its_new_shape_is_said(fit, caplog) -> None:
    class Grows(Lit):
        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 1:
                old, self.net.stem = self.net.stem, nn.Conv2d(3, 12, 5)
                self.net.stem.weight.data[:8] = old.weight.data
                self.net.deep = nn.Conv2d(12, 8, 3)
                self.trainer.optimizers = [torch.optim.SGD(self.parameters(), lr=0.1)]

    trainer = fit(KernelVizCallback(early_steps=False), model=Grows())
    assert last_snapshot(trainer).weights["net.stem"].shape == (12, 3, 5, 5)
    [line] = [m for m in caplog.messages if "it had" in m]
    assert "at step 8 net.stem has 12 filters 3x5x5; it had 8 filters 3x5x5." in line


def test_weights_that_are_replaced_in_place_decide_the_shape(fit) -> None:
    class Grey(Lit):
        def add_parts(self) -> None:
            super().add_parts()
            stem = self.net.stem
            stem.weight = nn.Parameter(stem.weight.detach().sum(1, keepdim=True))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x[:, :1])

    probe = torch.rand(1, 24, 24)
    trainer = fit(
        KernelVizCallback("*", probe=probe, early_steps=False), model=Grey(), max_epochs=1
    )
    assert last_snapshot(trainer).weights["net.stem"].shape == (8, 1, 5, 5)


def test_a_lazy_layer_that_gets_no_input_is_passed_over(fit) -> None:
    class Unused(Lit):
        def add_parts(self) -> None:
            self.unused = nn.LazyConv2d(4, 3)
            super().add_parts()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD([*self.net.parameters(), *self.head.parameters()], lr=0.1)

    trainer = fit(KernelVizCallback(early_steps=False), model=Unused(), max_epochs=1)
    assert steps_on_disk(trainer.log_dir) == [0, 4]
    assert list(last_snapshot(trainer).weights) == ["net.stem"]


@pytest.mark.loses_something
def test_a_named_layer_that_gets_no_input_is_said(tmp_path, recwarn) -> None:
    net = nn.Sequential(nn.LazyConv2d(4, 3))
    with KernelWatcher(net, tmp_path, loggers=[]) as watcher:
        watcher.snapshot(0)
    [warning] = warned(recwarn)
    assert "could not take a snapshot: a lazy convolution got no input" in warning

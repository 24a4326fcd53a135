"""What a model holds is restored after `feature_maps`, or the model is not run."""

import itertools
import logging
import queue
import random
import threading
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from probe_runs import run_on_probe
from torch import Tensor, nn
from torchmetrics import Accuracy


class Helper:
    """An object that is no module, as a schedule or a mask maker."""

    __slots__ = ("__dict__", "late", "number")

    def __init__(self) -> None:
        self.number = 0
        self.rng = np.random.default_rng(3)
        self.seeds = np.random.SeedSequence(3)
        self.old_rng = np.random.RandomState(3)
        self.python_rng = random.Random(3)
        self.noise = np.zeros(3)
        self.seen: list[int] = []


class HoldsObjects(nn.Module):
    """Changes objects of many kinds that it holds, in its forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.deep = nn.Conv2d(4, 4, 3)
        self.helper = Helper()
        self.hidden = [nn.BatchNorm2d(3)]
        self.plain = torch.zeros(2)
        count = 0

        def next_number() -> int:
            nonlocal count
            count += 1
            return count

        self.next_number = next_number

    def forward(self, x: Tensor) -> Tensor:
        helper = self.helper
        helper.number += 1
        helper.late = 1
        helper.rng.random(), helper.old_rng.normal(), helper.python_rng.random()
        helper.rng.spawn(2), helper.seeds.spawn(1)
        helper.noise += 1
        helper.seen.append(self.next_number())
        self.hidden[0].calls = 1
        self.hidden[0](x)
        self.plain.data = torch.ones(7)
        return self.deep(self.conv(x))


def test_objects_that_the_model_holds_are_restored() -> None:
    net = HoldsObjects()
    assert run_on_probe(net).absent == {}
    helper, fresh = net.helper, Helper()
    assert helper.number == 0
    assert not hasattr(helper, "late")
    assert helper.rng.random() == fresh.rng.random()
    assert helper.rng.spawn(1)[0].random() == fresh.rng.spawn(1)[0].random()
    assert helper.seeds.spawn(1)[0].spawn_key == (0,)
    assert helper.old_rng.normal() == fresh.old_rng.normal()
    assert helper.python_rng.random() == fresh.python_rng.random()
    assert helper.noise.tolist() == [0, 0, 0]
    assert helper.seen == []
    assert net.next_number() == 1
    assert not hasattr(net.hidden[0], "calls")
    assert net.hidden[0].num_batches_tracked == 0
    assert net.plain.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("held", "name"),
    [(itertools.count(), "count"), (iter([1, 2]), "list_iterator"), (queue.Queue(), "Queue")],
)
def test_a_model_that_holds_what_cannot_be_restored_is_not_run(held: Any, name: str) -> None:
    class Never(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError

    net = Never(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    net.held = held
    [reason] = set(run_on_probe(net).absent.values())
    assert f"Never.held holds a {name}, which cannot be restored" in reason


def test_trainers_loggers_and_hooks_do_not_prevent_a_run() -> None:
    class Holds(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.save_hyperparameters({"rate": 1})
            self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
            self.log_to = logging.getLogger("held")
            self.lock = threading.Lock()
            self.makes = partial(nn.Conv2d, kernel_size=3)
            self.accuracy = Accuracy("multiclass", num_classes=3)
            self.optimizer = torch.optim.Adam(self.parameters())

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    model = Holds()
    model.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    counter = itertools.count()
    model.net[0].register_forward_hook(lambda *_: next(counter) and None)
    assert run_on_probe(model).absent == {}
    assert next(counter) == 0

"""The watched layer is the first that the training runs and trains, in models of every kind."""

import copy
import random
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TinyNet, steps_on_disk
from lightning.pytorch import LightningModule
from networks import Encoder, Lit, Reversed
from torch import Tensor, nn
from torch.nn import functional as F

from kernelviz_callback import (
    KernelVizCallback,
    list_snapshots,
    load_probe,
    load_snapshot,
)
from kernelviz_callback.training.failures import Failures
from kernelviz_callback.training.watched_layers import WatchedLayers


class Perceptual(Lit):
    """A frozen network that is defined first, and that only the loss uses."""

    def add_parts(self) -> None:
        self.loss_net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).requires_grad_(False).eval()
        super().add_parts()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) + 0 * self.loss_net(batch[0]).sum()


class Bare(LightningModule):
    """Has no ``forward``; ``training_step`` calls the networks."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []
        self.loss_net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).requires_grad_(False).eval()
        self.net = Encoder()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.net(batch[0]).square().mean() + 0 * self.loss_net(batch[0]).sum()

    configure_optimizers = Lit.configure_optimizers
    train_dataloader = TinyNet.train_dataloader
    _loader = TinyNet._loader


class Teacher(Lit):
    """A frozen teacher is defined first and is called first."""

    def add_parts(self) -> None:
        self.teacher = Encoder().requires_grad_(False)
        super().add_parts()

    def forward(self, x: Tensor) -> Tensor:
        target = self.teacher(x)
        return self.head((self.net(x) + 0 * target).mean((2, 3)))


class Average(Lit):
    """An average that no optimizer has; evaluation uses it."""

    def add_parts(self) -> None:
        net = Encoder()
        self.ema = copy.deepcopy(net)
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.net if self.training else self.ema)(x).mean((2, 3)))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([*self.net.parameters(), *self.head.parameters()], lr=0.1)


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(5, 8 * 4 * 4)
        self.middle = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = F.interpolate(self.start(z).view(-1, 8, 4, 4), scale_factor=4)
        return self.last(self.middle(x).relu())


class Adversarial(Lit):
    """A generator of images and a discriminator, with two optimizers, optimized by hand."""

    def add_parts(self) -> None:
        self.automatic_optimization = False
        self.generator = Generator()
        self.discriminator = Encoder()

    def forward(self, z: Tensor) -> Tensor:
        return self.generator(z)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        images = self(torch.randn(len(batch[0]), 5))
        for sign, optimizer in zip((1, -1), self.optimizers(), strict=True):
            optimizer.zero_grad()
            scores = self.discriminator(images).mean() - self.discriminator(batch[0]).mean()
            self.manual_backward(sign * scores, retain_graph=True)
        for optimizer in self.optimizers():
            optimizer.step()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> Any:
        parts = self.generator, self.discriminator
        return [torch.optim.SGD(part.parameters(), lr=0.01) for part in parts]


class Scores(Encoder):
    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return super().forward(x + label)


class Conditional(Adversarial):
    """No network reads an image alone, and the generator reads maps of many channels."""

    def add_parts(self) -> None:
        super().add_parts()
        self.generator = nn.Sequential(nn.Conv2d(32, 8, 3), nn.Conv2d(8, 3, 3))
        self.discriminator = Scores()

    def training_step(self, batch: Any, batch_idx: int) -> None:
        images = self(torch.randn(len(batch[0]), 32, 12, 12))
        for sign, optimizer in zip((1, -1), self.optimizers(), strict=True):
            optimizer.zero_grad()
            scores = self.discriminator(images, torch.ones(1)).mean()
            self.manual_backward(sign * scores, retain_graph=True)
        for optimizer in self.optimizers():
            optimizer.step()


class GreyReversed(Reversed):
    """Reads one channel."""

    def add_parts(self) -> None:
        super().add_parts()
        self.net.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.net.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, :1])


class Dictionary(Lit):
    """The model itself reads no image; its parts do."""

    def add_parts(self) -> None:
        self.decoder = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU())
        self.encoder = Encoder()

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.head(self.decoder(self.encoder(batch["image"])).mean((2, 3)))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self({"image": batch[0]}), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass


class Masking(Lit):
    """Draws numbers and counts its calls in objects that are no modules."""

    def add_parts(self) -> None:
        super().add_parts()
        self.rng, self.python_rng = np.random.default_rng(0), random.Random(0)
        self.helper = SimpleNamespace(calls=0)

    def forward(self, x: Tensor) -> Tensor:
        self.helper.calls += 1
        scale = self.rng.random() + self.python_rng.random() + self.helper.calls
        return super().forward(x * scale)


MODELS: dict[str, tuple[type[LightningModule], str, list[str]]] = {
    "perceptual": (Perceptual, "net.stem", ["also there: loss_net.0 (not trained);"]),
    "no forward": (Bare, "net.stem", ["also there: loss_net.0 (not trained);"]),
    "teacher": (Teacher, "net.stem", ["also there: teacher.stem (not trained);"]),
    "average": (Average, "net.stem", ["also there: ema.stem (not trained);"]),
    "adversarial": (Adversarial, "discriminator.stem", ["also there: generator.middle;"]),
    "conditional": (Conditional, "discriminator.stem", ["also there: generator.0 (the model"]),
    "decoder first": (Reversed, "net.stem", ["also there: net.out, net.decoder, net.down;"]),
    "grey": (GreyReversed, "net.stem", ["1x3x3"]),
    "dictionary": (Dictionary, "encoder.stem", ["also there: decoder.0;"]),
}


@pytest.mark.parametrize(("kind", "watched", "said"), MODELS.values(), ids=MODELS)
def test_the_first_layer_that_is_run_and_trained(
    fit, caplog, kind: type[LightningModule], watched: str, said: list[str]
) -> None:
    trainer = fit(KernelVizCallback(early_steps=False), model=kind(), max_epochs=1)
    snapshots = list_snapshots(Path(trainer.log_dir) / "kernelviz").values()
    assert [list(load_snapshot(path).weights) for path in snapshots] == [[watched]] * 2
    [line] = [m for m in caplog.messages if m.startswith("kernelviz: watching")]
    assert line.startswith(f"kernelviz: watching {watched} (")
    for part in said:
        assert part in line
    assert "transposed" not in line, "the transposed layer runs later"


@pytest.mark.parametrize(
    "kind", [Teacher, Adversarial, Conditional, Reversed, GreyReversed, Dictionary, Masking]
)
def test_the_search_for_the_first_layer_leaves_no_trace(fit, kind: type[Lit]) -> None:
    ends = []
    for callbacks in ([], [KernelVizCallback()]):
        model = kind()
        torch.manual_seed(0)
        for parameter in model.parameters():
            parameter.data.normal_(0, 0.1)
        fit(*callbacks, model=model, max_epochs=1)
        ends.append((copy.deepcopy(model.state_dict()), torch.get_rng_state(), model.losses))
    (first, first_random, losses), (second, second_random, other_losses) = ends
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert torch.equal(first_random, second_random)
    assert losses == other_losses


def test_a_layer_that_is_not_trained_is_said(fit, caplog) -> None:
    model = Lit()
    model.net.requires_grad_(False)
    fit(KernelVizCallback(early_steps=False), model=model, max_epochs=1)
    model = Average()
    fit(KernelVizCallback("ema.*", early_steps=False), model=model, max_epochs=1)
    lines = [m for m in caplog.messages if m.startswith("kernelviz: watching")]
    assert "; net.stem is not trained: requires_grad is False;" in lines[0]
    assert "; ema.stem, ema.deep are not trained: no optimizer has its parameters;" in lines[1]


def scripted(backbone: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has deprecated TorchScript
        return torch.jit.script(backbone)


def exported(backbone: nn.Module) -> nn.Module:
    return torch.export.export(backbone, (torch.rand(8, 3, 16, 16),)).module()


UNWATCHABLE = {
    "scripted": (scripted, "net.0.0 cannot be watched: Conv2d is TorchScript"),
    "exported": (exported, "net.0.0 cannot be watched: torch.export has replaced"),
}


@pytest.mark.parametrize(("make", "said"), UNWATCHABLE.values(), ids=UNWATCHABLE)
def test_a_backbone_that_cannot_be_watched_is_said(fit, caplog, make: Any, said: str) -> None:
    class Own(Lit):
        def add_parts(self) -> None:
            backbone = make(nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU()))
            self.net = nn.Sequential(backbone, nn.Conv2d(8, 8, 3))

    for layers in (None, "*"):
        caplog.clear()
        callback = KernelVizCallback(layers, early_steps=False, health=False)
        fit(callback, model=Own(), max_epochs=1, limit_val_batches=0)
        [line] = [m for m in caplog.messages if m.startswith("kernelviz: watching")]
        assert line.startswith("kernelviz: watching net.1 (8 filters 8x3x3); ")
        assert said in line


def test_with_all_layers_the_first_one_that_runs_reads_the_probe(fit) -> None:
    trainer = fit(KernelVizCallback("*", early_steps=False), model=Reversed(), max_epochs=1)
    assert steps_on_disk(trainer.log_dir) == [0, 4]
    watched = WatchedLayers(Reversed(), "*")
    probe = load_probe(torch.rand(3, 16, 16))
    watched.check_fit(probe)
    snapshot = watched.take(step=0, epoch=0, probe=probe, keep=True, failures=Failures())
    assert set(snapshot.feature_maps.maps) == {"net.out", "net.decoder", "net.down"}
    assert not snapshot.feature_maps.absent
    grey = WatchedLayers(GreyReversed(), ["net.out", "net.stem"])
    maps = grey.take(step=0, epoch=0, probe=probe, keep=True, failures=Failures()).feature_maps
    assert set(maps.maps) == {"net.out"}

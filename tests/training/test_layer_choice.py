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
from conftest import TinyNet, steps_on_disk, warned
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional as F

from kernelviz_callback import (
    KernelVizCallback,
    KernelWatcher,
    list_snapshots,
    load_probe,
    load_snapshot,
)
from kernelviz_callback.training.failures import Failures
from kernelviz_callback.training.watched_layers import WatchedLayers


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 5)
        self.deep = nn.Conv2d(8, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.deep(self.stem(x).relu()).relu()


class Lit(TinyNet):
    """Trains ``net`` and a head. Subclasses have more parts."""

    def __init__(self) -> None:
        super().__init__()
        del self.conv, self.rest
        self.add_parts()
        self.head = nn.Linear(8, 4)

    def add_parts(self) -> None:
        self.net = Encoder()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x).mean((2, 3)))

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.SGD(trained, lr=0.1)


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


class UNet(nn.Module):
    """The decoder is defined before the encoder, and the output before both."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Conv2d(4, 8, 1)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.decoder = nn.Conv2d(4, 4, 3, padding=1)
        self.down = nn.Conv2d(4, 8, 2, stride=2)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.stem(x).relu()
        return self.out(self.decoder(self.up(self.down(skip).relu()) + skip))


class Reversed(Lit):
    def add_parts(self) -> None:
        self.net = UNet()


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
    "kind", [Teacher, Adversarial, Reversed, GreyReversed, Dictionary, Masking]
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


class Refines(nn.Module):
    """Two networks read images, and the one that is defined first runs last."""

    def __init__(self) -> None:
        super().__init__()
        self.refine, self.base, self.out = Encoder(), Encoder(), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.refine(self.out(self.base(x) * mask))


class Layers(nn.Module):
    """Two layers read images."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.last(self.first(x) * mask)


class LateStem(nn.Module):
    """The network that reads the image comes after many others."""

    def __init__(self, count: int, channels: int = 3) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU()) for _ in range(count)
        )
        self.stem = nn.Conv2d(channels, 8, 3)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        x = self.stem(x) + time
        for block in self.blocks:
            x = block(x)
        return x


DEFINED = " (the model did not run on an image, so the first one defined)"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Refines(), f"refine.stem (8 filters 3x5x5); also there: base.stem, out{DEFINED}"),
        (Layers(), f"last (3 filters 3x3x3); also there: first{DEFINED}"),
        (LateStem(7), "stem (8 filters 3x3x3); also there: blocks.0.0"),
        (LateStem(12), "stem (8 filters 3x3x3); also there: blocks.0.0"),
        (LateStem(12, 5), f"blocks.0.0 (8 filters 8x3x3); also there: stem{DEFINED}"),
    ],
    ids=["networks", "layers", "few blocks", "many blocks", "many blocks, five channels"],
)
def test_an_order_that_is_not_known_is_said(model: nn.Module, said: str) -> None:
    assert str(WatchedLayers(model)) == said


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
    assert list(_last(trainer).weights) == ["net.deep"]
    Thawed.is_frozen = False
    logger = TensorBoardLogger(tmp_path, name="run", version=trainer.logger.version)
    resumed = fit(
        KernelVizCallback(), model=Thawed(), ckpt_path=tmp_path / "last.ckpt", logger=logger
    )
    assert steps_on_disk(resumed.log_dir) == [0, 1, 2, 4, 8]
    assert list(_last(resumed).weights) == ["net.deep"]
    assert not [w for w in warned(recwarn) if "changed since the checkpoint" in w]
    assert list(_last(fit(KernelVizCallback(), model=Thawed(), max_epochs=1)).weights) == [
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


def _last(trainer: Any) -> Any:
    return load_snapshot(list(list_snapshots(Path(trainer.log_dir) / "kernelviz").values())[-1])


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
    assert list(_last(trainer).weights) == ["net.stem"]


def test_a_replaced_layer_keeps_its_name_and_its_new_shape_is_said(fit, caplog) -> None:
    class Grows(Lit):
        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 1:
                old, self.net.stem = self.net.stem, nn.Conv2d(3, 12, 5)
                self.net.stem.weight.data[:8] = old.weight.data
                self.net.deep = nn.Conv2d(12, 8, 3)
                self.trainer.optimizers = [torch.optim.SGD(self.parameters(), lr=0.1)]

    trainer = fit(KernelVizCallback(early_steps=False), model=Grows())
    assert _last(trainer).weights["net.stem"].shape == (12, 3, 5, 5)
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
    assert _last(trainer).weights["net.stem"].shape == (8, 1, 5, 5)


class Rectified(nn.Conv2d):
    """Is not linear, so its weights cannot be measured."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


@pytest.mark.loses_something
def test_weights_that_cannot_be_measured_are_said_once(fit, recwarn) -> None:
    class Own(Lit):
        def add_parts(self) -> None:
            super().add_parts()
            self.net.stem = Rectified(3, 8, 5)

    trainer = fit(KernelVizCallback(), model=Own())
    [warning] = warned(recwarn)
    assert warning == (
        "kernelviz: at step 0 could not measure the weights that net.stem multiplies with: its "
        "output is not its input, convolved with one kernel. Training goes on. The weights that "
        "the layer stores are shown."
    )
    snapshot = _last(trainer)
    assert torch.equal(snapshot.weights["net.stem"], trainer.model.net.stem.weight)
    assert list(snapshot.stored_only) == ["net.stem"]


class Generated(nn.Conv2d):
    """Makes its weights of a vector. Its output is not linear in half of the calls."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.code = nn.Parameter(torch.randn(self.weight.shape))
        self.is_rectified = True
        del self.weight

    def forward(self, x: Tensor) -> Tensor:
        output = self._conv_forward(x, self.code, self.bias)
        return output.relu() if self.is_rectified else output


@pytest.mark.loses_something
def test_a_layer_that_cannot_be_read_does_not_cost_the_others(fit, caplog, recwarn) -> None:
    class Own(Lit):
        def add_parts(self) -> None:
            super().add_parts()
            self.net.stem = Generated(3, 8, 5)

        def on_train_epoch_start(self) -> None:
            self.net.stem.is_rectified = self.current_epoch == 0

    trainer = fit(KernelVizCallback("*", early_steps=False, health=False), model=Own())
    [warning] = warned(recwarn)
    assert warning.startswith(
        "kernelviz: at step 0 could not read the weights of net.stem: ValueError: Generated stores "
        "no weights, and those that it multiplies with cannot be measured (its output is not its "
        "input, convolved with one kernel)"
    )
    assert warning.endswith(
        "Training goes on. Snapshots are without this layer until its weights can be read."
    )
    snapshots = [load_snapshot(p) for p in list_snapshots(f"{trainer.log_dir}/kernelviz").values()]
    names = {snapshot.step: list(snapshot.weights) for snapshot in snapshots}
    assert names == {0: ["net.deep"], 4: ["net.deep"], 8: ["net.stem", "net.deep"]}
    assert torch.equal(snapshots[-1].weights["net.stem"], trainer.model.net.stem.code)
    assert "kernelviz: at step 8 could again read the weights of net.stem" in caplog.text


def test_an_adapter_is_watched_as_one_layer(fit) -> None:
    class LoRA(nn.Module):
        def __init__(self, base_layer: nn.Conv2d) -> None:
            super().__init__()
            self.base_layer = base_layer.requires_grad_(False)
            self.lora_A = nn.Conv2d(3, 2, 5, bias=False)
            self.lora_B = nn.Conv2d(2, 8, 1, bias=False)
            nn.init.zeros_(self.lora_B.weight)

        def forward(self, x: Tensor) -> Tensor:
            return self.base_layer(x) + self.lora_B(self.lora_A(x))

    class Adapted(Lit):
        def add_parts(self) -> None:
            super().add_parts()
            self.net.stem = LoRA(self.net.stem)

    trainer = fit(KernelVizCallback(), model=Adapted())
    stem = trainer.model.net.stem
    snapshot = _last(trainer)
    product = torch.einsum("or,rcij->ocij", stem.lora_B.weight[..., 0, 0], stem.lora_A.weight)
    torch.testing.assert_close(
        snapshot.weights["net.stem"], (stem.base_layer.weight + product).detach()
    )
    assert not torch.equal(snapshot.weights["net.stem"], stem.base_layer.weight)
    assert snapshot.health["net.stem"].totals.drift > 0


def test_a_lazy_layer_that_gets_no_input_is_passed_over(fit) -> None:
    class Unused(Lit):
        def add_parts(self) -> None:
            self.unused = nn.LazyConv2d(4, 3)
            super().add_parts()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD([*self.net.parameters(), *self.head.parameters()], lr=0.1)

    trainer = fit(KernelVizCallback(early_steps=False), model=Unused(), max_epochs=1)
    assert steps_on_disk(trainer.log_dir) == [0, 4]
    assert list(_last(trainer).weights) == ["net.stem"]


@pytest.mark.loses_something
def test_a_named_layer_that_gets_no_input_is_said(tmp_path, recwarn) -> None:
    net = nn.Sequential(nn.LazyConv2d(4, 3))
    with KernelWatcher(net, tmp_path, loggers=[]) as watcher:
        watcher.snapshot(0)
    [warning] = warned(recwarn)
    assert "could not take a snapshot: a lazy convolution got no input" in warning

"""Training with the callback is bit-identical to training without it."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import STEPS, TinyNet, TwoOptimizers, Witness, assert_seen, steps_on_disk
from identity import assert_same, fingerprint
from lightning.pytorch import LightningModule, callbacks
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.data import DataLoader

from kernelviz_callback import KernelVizCallback, list_snapshots, load_snapshot


def both(
    fit: Any, make: Callable[[], TinyNet] = TinyNet, *, watch: dict[str, Any], **options: Any
) -> tuple[LightningModule, ...]:
    """Train without and with the callback, and compare the two models.

    Args:
        fit: The fixture.
        make: Makes the model of each training.
        watch: Arguments of the callback.
        options: Arguments of the trainer. ``callbacks`` is a function that makes the others.
    """
    models = []
    make_callbacks = options.pop("callbacks", list)
    for watched in (False, True):
        torch.manual_seed(11)
        model = make()
        for module in model.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        ours = [KernelVizCallback(**watch)] if watched else []
        fit(*ours, *make_callbacks(), model=model, **options)
        models.append(model)
    assert len(models[0].losses) >= STEPS
    assert_same(*map(fingerprint, models))
    return tuple(models)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"every_n_train_steps": 1},
        {"probe": "train_batch"},
        {"probe": "val_batch"},
        {"response": "sum", "scale": "run"},
    ],
    ids=str,
)
@pytest.mark.parametrize("sanity", [0, 2])
def test_with_every_kind_of_option(fit, options, sanity) -> None:
    both(fit, watch=options, num_sanity_val_steps=sanity)


@pytest.mark.usefixtures("two_threads")
def test_with_two_threads(fit) -> None:
    both(fit, watch={"every_n_train_steps": 1})


def normed() -> TinyNet:
    model = TinyNet()
    model.conv = spectral_norm(model.conv)
    return model


def compiled_layer() -> TinyNet:
    model = TinyNet()
    model.conv = torch.compile(model.conv)
    return model


def compiled() -> TinyNet:
    model = TinyNet()
    model.compile()
    return model


def channels_last() -> TinyNet:
    return TinyNet().to(memory_format=torch.channels_last)


class Noise(nn.Module):
    """A layer that draws random numbers also in evaluation mode, and counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.count = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.count += 1
        noise = torch.rand_like(x) * random.random() * np.random.rand()
        return x + 0.01 * noise


class Deep(TinyNet):
    """A model with three convolutions; noise, dropout and a batch norm lie between them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.BatchNorm2d(6),
            nn.Dropout(0.2),
            Noise(),
            nn.Conv2d(6, 8, 3, padding=1),
            Noise(),
            nn.Conv2d(8, 8, 3),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.log("seen", x.mean(), on_step=False, on_epoch=True)
        return super().forward(x)


def compiled_deep() -> TinyNet:
    model = TinyNet()
    model.conv = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Dropout(0.2), nn.Conv2d(6, 8, 3))
    model.compile()
    return model


TRAINER_OPTIONS: list[dict[str, Any]] = [
    {"precision": "bf16-mixed"},
    {"precision": "64-true"},
    {"accumulate_grad_batches": 2},
    {"deterministic": True},
]


@pytest.mark.parametrize(
    ("source", "options"),
    [
        (None, {}),
        ("train_batch", {}),
        *((None, options) for options in TRAINER_OPTIONS),
        *(pytest.param("train_batch", o, marks=pytest.mark.long) for o in TRAINER_OPTIONS),
    ],
)
def test_with_deeper_layers(fit, options, source) -> None:
    torch._dynamo.reset()
    watch = {"layers": "*", "every_n_train_steps": 1, "probe": source, "probe_size": 48}
    try:
        alone, watched = both(fit, Deep, watch=watch, **options)
    finally:
        torch.use_deterministic_algorithms(False)
    assert watched.conv[3].count == alone.conv[3].count > 0
    seen = [model.trainer.callback_metrics["seen"] for model in (alone, watched)]
    assert torch.equal(*seen)
    for layer in ("conv.0", "conv.4", "conv.6"):
        steps = 4 if "accumulate_grad_batches" in options else STEPS
        assert_seen(watched.trainer, list(range(steps + 1)), layer)


def test_with_deeper_layers_of_a_compiled_model(fit) -> None:
    counters = torch._dynamo.utils.counters
    graphs = []
    for layers in (None, "*"):
        torch._dynamo.reset()
        counters.clear()
        _, watched = both(fit, compiled_deep, watch={"layers": layers, **EVERY_STEP})
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[1] > 0, "the probe must not cause a compilation"
    assert_seen(watched.trainer, list(range(STEPS + 1)), "conv.2")


EVERY_STEP = {"every_n_train_steps": 1}


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (TinyNet, {"precision": "bf16-mixed"}),
        (TinyNet, {"precision": "bf16-true"}),
        (TinyNet, {"precision": "64-true"}),
        (TinyNet, {"accumulate_grad_batches": 2}),
        (TinyNet, {"deterministic": True}),
        (TinyNet, {"inference_mode": False}),
        (TinyNet, {"val_check_interval": 1}),
        (TwoOptimizers, {}),
        (normed, {}),
        (channels_last, {}),
    ],
)
def test_with_every_kind_of_training(fit, make, options) -> None:
    try:
        both(fit, make, watch=EVERY_STEP, **options)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("make", [compiled, compiled_layer])
def test_with_a_compiled_model(fit, make) -> None:
    torch._dynamo.reset()
    _unwatched, watched = both(fit, make, watch=EVERY_STEP)
    assert steps_on_disk(watched.trainer.log_dir) == list(range(STEPS + 1))
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] > 0, "nothing was compiled"


@pytest.mark.parametrize("ours_first", [False, True])
@pytest.mark.parametrize("kind", ["EMA", "SWA"])
def test_with_averaged_weights(fit, kind: str, ours_first: bool) -> None:
    """The snapshots hold the trained weights, not the averaged ones."""
    averaging = {"SWA": lambda: callbacks.StochasticWeightAveraging(0.05, swa_epoch_start=1)}
    if hasattr(callbacks, "EMAWeightAveraging"):
        averaging["EMA"] = lambda: callbacks.EMAWeightAveraging(decay=0.5)
    elif kind == "EMA":
        pytest.skip("this Lightning has no weight averaging")
    witness = Witness()
    prints = []
    for watched in (False, True):
        torch.manual_seed(11)
        model = TinyNet()
        model.rest[0] = nn.Identity()  # with BatchNorm, SWA adds an epoch with averaged weights
        ours = KernelVizCallback(every_n_epochs=None, early_steps=False)
        others = [averaging[kind](), witness]
        order = [ours, *others] if ours_first else [*others, ours]
        trainer = fit(*(order if watched else others), model=model, max_epochs=3)
        prints.append(fingerprint(model))
    assert_same(*prints)
    snapshots = list_snapshots(Path(trainer.log_dir) / "kernelviz")
    assert list(snapshots) == [0, 12]
    last = load_snapshot(snapshots[12])
    assert torch.equal(last.weights["conv"], witness.weights[12])
    assert not torch.equal(last.weights["conv"], model.conv.weight), (
        "the model has the averaged weights"
    )
    assert last.epoch == 2


@pytest.mark.parametrize("ours_first", [False, True])
@pytest.mark.parametrize("kind", ["learning rate", "batch size"])
def test_with_a_finder_of_learning_rate_or_batch_size(
    fit, tmp_path: Path, kind: str, ours_first: bool
) -> None:
    class Found(TinyNet):
        lr, batch_size = 0.1, 8

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.lr)

        def _loader(self, shuffle):
            loader = super()._loader(shuffle)
            return DataLoader(loader.dataset, batch_size=self.batch_size, shuffle=shuffle)

    prints = []
    for watched in (False, True):
        torch.manual_seed(11)
        model = Found()
        finder = (
            callbacks.LearningRateFinder(num_training_steps=5)
            if kind == "learning rate"
            else callbacks.BatchSizeFinder(max_trials=1, steps_per_trial=1)
        )
        ours = [KernelVizCallback()] if watched else []
        order = [*ours, finder] if ours_first else [finder, *ours]
        trainer = fit(*order, model=model)
        prints.append({**fingerprint(model), "lr": model.lr, "batch": model.batch_size})
    assert_same(*prints)
    # The number of batches depends on the version of Lightning: 8 or 16 steps in two epochs.
    assert_seen(trainer, [0, *(2**k for k in range(trainer.global_step.bit_length()))])

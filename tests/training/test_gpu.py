"""Training on a CUDA device: snapshots, pictures, bit-identity, and hooks that do not wait."""

import statistics
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEFAULT_STEPS, STEPS, TinyNet, Witness, assert_seen
from identity import assert_same, fingerprint
from lightning.pytorch import Callback, LightningModule, Trainer
from test_bit_identity import Deep
from torch import nn

from kernelviz_callback import KernelVizCallback, list_snapshots, load_snapshot
from kernelviz_callback.drawing.layer_pictures import kernel_picture, response_picture
from kernelviz_callback.model.convolutions import Geometry, geometry_of
from kernelviz_callback.probe.probe import load_probe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_training_is_bit_identical_on_cuda(fit, precision: str) -> None:
    prints = []
    for callbacks in ([], [KernelVizCallback(every_n_train_steps=1)]):
        torch.manual_seed(11)
        model = TinyNet()
        fit(*callbacks, model=model, accelerator="gpu", devices=1, precision=precision)
        prints.append(fingerprint(model))
    assert_same(*prints)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_training_with_deeper_layers_is_bit_identical_on_cuda(fit, precision: str) -> None:
    prints = []
    for callbacks in ([], [KernelVizCallback("*", every_n_train_steps=1, probe_size=48)]):
        torch.manual_seed(11)
        model = Deep()
        fit(*callbacks, model=model, accelerator="gpu", devices=1, precision=precision)
        prints.append({**fingerprint(model), "cuda": torch.cuda.get_rng_state()})
    assert_same(*prints)
    assert_seen(model.trainer, list(range(STEPS + 1)), "conv.4")


def test_the_snapshots_hold_the_weights(fit) -> None:
    witness = Witness()
    trainer = fit(KernelVizCallback(), witness, accelerator="gpu", devices=1)
    assert_seen(trainer, DEFAULT_STEPS)
    for step, path in list_snapshots(Path(trainer.log_dir) / "kernelviz").items():
        assert torch.equal(load_snapshot(path).weights["conv"], witness.weights[step].cpu())


@pytest.mark.parametrize("tf32", [False, True])
def test_the_responses_are_those_of_the_cpu(tf32: bool) -> None:
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        weights = torch.randn(64, 3, 7, 7, generator=torch.Generator().manual_seed(1))
        geometry = Geometry("Conv2d", (2, 2), (3, 3), (1, 1), 1)
        pictures = [
            response_picture(w, geometry, load_probe(), layer="conv").pixels.int()
            for w in (weights, weights.cuda())
        ]
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
    assert (pictures[0] - pictures[1]).abs().max() <= 1


@pytest.mark.parametrize("conv", [nn.Conv1d(2, 16, 31, dilation=2), nn.Conv3d(3, 16, (3, 5, 5))])
def test_the_pictures_of_other_dimensions_are_those_of_the_cpu(conv: nn.Module) -> None:
    weights = conv.weight.detach()
    weights[3].flatten()[2] = torch.nan
    drawn = [
        torch.cat([picture.pixels.int().flatten() for picture in pictures])
        for pictures in (
            (
                kernel_picture(w, layer="conv"),
                response_picture(w, geometry_of(conv), load_probe(size=64), layer="conv"),
            )
            for w in (weights, weights.cuda())
        )
    ]
    # The end of a curve may differ by one pixel.
    assert ((drawn[0] - drawn[1]).abs() > 1).float().mean() < 1e-4


class Busy(TinyNet):
    """A model that gives the device a fifth of a second of work after every step."""

    def on_train_batch_end(self, *_: Any) -> None:
        torch.cuda._sleep(400_000_000)


class Stopwatch(Callback):
    def __init__(self, watched: KernelVizCallback) -> None:
        self.times: list[float] = []
        hook = watched.on_train_epoch_end

        def timed(trainer: Trainer, module: LightningModule) -> None:
            start = time.perf_counter()
            hook(trainer, module)
            self.times.append(time.perf_counter() - start)

        watched.on_train_epoch_end = timed


def test_the_hooks_do_not_wait_for_the_device(fit) -> None:
    callback = KernelVizCallback(early_steps=False)
    stopwatch = Stopwatch(callback)
    trainer = fit(
        callback, model=Busy(), accelerator="gpu", devices=1, max_epochs=4, limit_val_batches=0
    )
    assert trainer.global_step == 2 * STEPS
    assert statistics.median(stopwatch.times) < 0.02, (
        "each step leaves the device a fifth of a second of work"
    )

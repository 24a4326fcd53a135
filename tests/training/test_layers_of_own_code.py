"""Layers whose own code computes their output are watched, and nothing else is lost."""

from typing import Any

import pytest
import torch
from conftest import warned
from networks import Lit, Rectified, last_snapshot
from torch import Tensor, nn

from kernelviz_callback import (
    KernelVizCallback,
    list_snapshots,
    load_snapshot,
)


@pytest.mark.loses_something
def test_weights_that_cannot_be_measured_are_said_once(fit, recwarn) -> None:
    class Own(Lit):
        def add_parts(self) -> None:
            super().add_parts()
            self.net.stem = Rectified(3, 8, 5)

    trainer = fit(KernelVizCallback(health=False), model=Own())
    [warning] = warned(recwarn)
    assert warning == (
        "kernelviz: at step 0 could not measure the weights that net.stem multiplies with: its "
        "output is not its input, convolved with one kernel. Training goes on. The weights that "
        "the layer stores are shown."
    )
    snapshot = last_snapshot(trainer)
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
        "Training goes on. The layers that cannot be read are left out of the snapshots."
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
    snapshot = last_snapshot(trainer)
    product = torch.einsum("or,rcij->ocij", stem.lora_B.weight[..., 0, 0], stem.lora_A.weight)
    torch.testing.assert_close(
        snapshot.weights["net.stem"], (stem.base_layer.weight + product).detach()
    )
    assert not torch.equal(snapshot.weights["net.stem"], stem.base_layer.weight)
    assert snapshot.health["net.stem"].totals.drift > 0

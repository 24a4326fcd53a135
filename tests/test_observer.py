"""The observer never disturbs: bit-identical training, and failures that training survives."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import DEFAULT_STEPS, STEPS, TinyNet, assert_seen, logged_images
from lightning.pytorch import Callback, LightningModule
from torch.nn.utils.parametrizations import spectral_norm

from kernelviz_callback import KernelVizCallback


def fingerprint(model: LightningModule) -> dict[str, Any]:
    return {
        "losses": model.losses,
        "state": {k: v.clone() for k, v in model.state_dict().items()},
        "modes": {n: m.training for n, m in model.named_modules()},
        "grad": {n: p.requires_grad for n, p in model.named_parameters()},
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1],
        "python": random.getstate(),
        "hooks": {n: len(m._forward_hooks) for n, m in model.named_modules()},
    }


def assert_same(a: Any, b: Any, path: str = "") -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, np.ndarray):
        assert np.array_equal(a, b), path
    else:
        assert a == b, path


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
def test_training_is_bit_identical(fit, options, sanity) -> None:
    prints = []
    for callbacks in ([], [KernelVizCallback(**options)]):
        model = TinyNet()
        torch.manual_seed(11)
        for module in model.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        fit(*callbacks, model=model, num_sanity_val_steps=sanity)
        prints.append(fingerprint(model))
    assert len(prints[0]["losses"]) == STEPS
    assert_same(*prints)


def test_training_under_spectral_norm_is_bit_identical(fit) -> None:
    prints = []
    for callbacks in ([], [KernelVizCallback(every_n_train_steps=1)]):
        torch.manual_seed(11)
        model = TinyNet()
        model.conv = spectral_norm(model.conv)
        fit(*callbacks, model=model)
        prints.append(fingerprint(model))
    assert_same(*prints)


# --- failures of ours ---------------------------------------------------------------------------


def trained_weights(fit, *callbacks: Callback, **options: Any) -> torch.Tensor:
    torch.manual_seed(11)
    model = TinyNet()
    fit(*callbacks, model=model, **options)
    return model.conv.weight.detach()


def test_a_disk_that_cannot_be_written_gives_one_warning(fit, tmp_path: Path) -> None:
    expected = trained_weights(fit, logger=False)
    (tmp_path / "kernelviz").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="could not write to") as caught:
        found = trained_weights(fit, KernelVizCallback(), logger=False)
    assert len([w for w in caught if "kernelviz:" in str(w.message)]) == 1
    assert torch.equal(found, expected)


class Experiment:
    """A writer that fails from its second picture on."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def add_image(self, tag: str, pixels: np.ndarray, step: int, dataformats: str) -> None:
        assert dataformats == "HWC"
        assert pixels.dtype == np.uint8
        self.calls.append((tag, step))
        if len(self.calls) > 1:
            raise ConnectionError("the server is gone")


def own_logger(tmp_path: Path, experiment: Experiment) -> Any:
    from lightning.pytorch.loggers import CSVLogger

    class OwnLogger(CSVLogger):
        @property
        def experiment(self) -> Any:
            return experiment

        def log_metrics(self, *_: Any, **__: Any) -> None: ...

        def save(self) -> None: ...

    return OwnLogger(tmp_path)


def test_a_failing_logger_gives_one_warning_and_snapshots_go_on(fit, tmp_path: Path) -> None:
    expected = trained_weights(fit)
    experiment = Experiment()
    with pytest.warns(UserWarning, match="could not log to Experiment") as caught:
        found = trained_weights(fit, KernelVizCallback(), logger=own_logger(tmp_path, experiment))
    assert len([w for w in caught if "kernelviz:" in str(w.message)]) == 1
    assert torch.equal(found, expected)
    assert len(experiment.calls) == 1 + 2 * len(DEFAULT_STEPS)
    assert len(list(tmp_path.rglob("step-*.safetensors"))) == len(DEFAULT_STEPS)


def test_a_logger_that_breaks_before_training_gives_one_warning(fit, tmp_path: Path) -> None:
    class Broken(Experiment):
        @property
        def add_image(self) -> Any:
            raise ConnectionError("the server is gone")

    expected = trained_weights(fit)
    with pytest.warns(UserWarning, match="could not prepare .*the server is gone") as caught:
        found = trained_weights(fit, KernelVizCallback(), logger=own_logger(tmp_path, Broken()))
    assert len([w for w in caught if "kernelviz:" in str(w.message)]) == 1
    assert torch.equal(found, expected)


@pytest.mark.loses_something
def test_warnings_as_errors_do_not_end_a_training(fit, tmp_path: Path) -> None:
    (tmp_path / "kernelviz").write_text("a file where the folder should be")
    trainer = fit(KernelVizCallback(), logger=False)  # pytest turns warnings into errors here
    assert trainer.global_step == STEPS


def test_weights_that_turn_nan_are_pictured(fit) -> None:
    class Exploding(TinyNet):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=float("inf"))

    trainer = fit(KernelVizCallback(), model=Exploding())
    assert_seen(trainer, DEFAULT_STEPS)
    last = logged_images(trainer.log_dir)["kernels/conv"][8]
    assert (last == (255, 0, 255)).all(-1).sum() > 0.4 * 8 * 80 * 80, "half of every tile's stripes"

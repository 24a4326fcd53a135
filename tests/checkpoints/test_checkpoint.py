"""Open checkpoints of real trainings in a process without the code of the training."""

import argparse
import enum
import json
import os
import random
import subprocess
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import STEPS, TinyNet
from lightning.pytorch import Callback, LightningModule, Trainer, callbacks
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from kernelviz_callback import KernelVizCallback
from kernelviz_callback.checkpoints.checkpoint import load_weights, open_checkpoint

# A new process, without the classes of this file and without Lightning.
OPEN = """
import json, sys
for missing in ("lightning", "pytorch_lightning", "conftest", "test_checkpoint", "tensorboard"):
    sys.modules[missing] = None
from kernelviz_callback.checkpoints.checkpoint import open_checkpoint
checkpoint = open_checkpoint(sys.argv[1])
print(json.dumps({
    "step": checkpoint.step,
    "epoch": checkpoint.epoch,
    "layers": {name: list(layer.shape) for name, layer in checkpoint.layers.items()},
    "weights": checkpoint.read().flatten().tolist(),
}))
"""


def open_in_new_process(path: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(path)],
        cwd=path.parent,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class Colour(enum.Enum):
    RED = 1


class Mode(enum.Flag):
    A = 1
    B = 2


class Scale:
    """A class of a user, without ``__reduce__``."""

    def __init__(self) -> None:
        self.table = torch.ones(8, 3, 5, 5)


class Words(dict[str, Any]): ...


class Rows(list[Any]): ...


class Reduced:
    def __reduce__(self) -> Any:
        return Reduced, (), {"a": 1}, iter([1]), iter([("b", 2)])

    def append(self, item: Any) -> None: ...

    def __setitem__(self, key: str, item: Any) -> None: ...


SETTINGS: dict[str, Any] = {
    "scale": Scale(),
    "words": Words(a=1),
    "rows": Rows([1]),
    "counts": defaultdict(list, a=[1]),
    "ordered": OrderedDict(a=1),
    "namespace": argparse.Namespace(lr=0.1),
    "path": Path("data"),
    "number": np.float32(0.5),
    "array": np.arange(3),
    "colour": Colour.RED,
    "mode": Mode.A | Mode.B,
    "queue": deque([1, 2], maxlen=3),
    "class": Scale,
    "activation": nn.ReLU(),
    "reduced": Reduced(),
    "random": random.Random(1).getstate(),
    "set": {1, 2},
    "frozen": frozenset("ab"),
    "bytes": b"ab",
    "complex": 1j,
    "slice": slice(1, 2),
    "range": range(3),
    "dtype": torch.float32,
    "device": torch.device("cpu"),
    "function": torch.nn.functional.relu,
    "method": "abc".join,
}


class Configured(TinyNet):
    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.save_hyperparameters()


class Stateful(Callback):
    def state_dict(self) -> dict[str, Any]:
        return {"conv.weight": torch.ones(8, 3, 5, 5), "scale": Scale(), "mode": Mode.A}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


def checkpoints(folder: Path, **options: Any) -> ModelCheckpoint:
    return ModelCheckpoint(folder, save_top_k=-1, **options)


def trained(fit: Callable[..., Trainer], *callbacks: Callback, **options: Any) -> TinyNet:
    model = options.pop("model", None) or TinyNet()
    fit(*callbacks, model=model, logger=False, enable_checkpointing=True, **options)
    return model


@pytest.mark.filterwarnings("ignore:Attribute 'activation' is an instance of `nn.Module`")
def test_a_checkpoint_with_objects_of_unknown_classes_is_opened(
    fit: Callable[..., Trainer], tmp_path: Path
) -> None:
    model = trained(fit, checkpoints(tmp_path / "c"), Stateful(), model=Configured(**SETTINGS))
    (last,) = (tmp_path / "c").glob("*step=8.ckpt")
    found = open_in_new_process(last)
    assert (found["step"], found["epoch"]) == (STEPS, 1)
    first, beside = found["layers"]
    assert (first, beside.rpartition(".")[2]) == ("conv", "conv")
    assert beside.startswith("callbacks."), "what a callback has saved comes last"
    assert torch.equal(torch.tensor(found["weights"]).view(8, 3, 5, 5), model.conv.weight)


def test_layers_have_the_names_that_the_callback_uses(
    fit: Callable[..., Trainer], tmp_path: Path
) -> None:
    class Wrapped(TinyNet):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.compile(nn.Sequential(nn.Conv2d(3, 8, 5)), backend="eager")

    seen: list[str] = []

    class Names(KernelVizCallback):
        def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
            super().setup(trainer, pl_module, stage)
            from kernelviz_callback.model.convolutions import find_convolutions

            seen.extend(find_convolutions(pl_module))

    trained(fit, checkpoints(tmp_path), Names(), model=Wrapped(), max_epochs=1)
    (path,) = tmp_path.glob("*.ckpt")
    assert list(open_checkpoint(path).layers) == seen == ["conv.0"]


@pytest.mark.skipif(
    not hasattr(callbacks, "EMAWeightAveraging"), reason="this Lightning has no such callback"
)
def test_averaged_weights_are_listed_first(fit: Callable[..., Trainer], tmp_path: Path) -> None:
    model = trained(
        fit, checkpoints(tmp_path), callbacks.EMAWeightAveraging(decay=0.5), max_epochs=1
    )
    (path,) = tmp_path.glob("*.ckpt")
    checkpoint = open_checkpoint(path)
    assert list(checkpoint.layers) == ["conv", "current_model_state.conv"]
    stored = torch.load(path, weights_only=True)
    average: Tensor = stored["state_dict"]["conv.weight"]
    assert not torch.equal(average, stored["current_model_state"]["conv.weight"])
    assert torch.equal(checkpoint.read(), average)
    assert torch.equal(model.conv.weight, average), "the training ends with the average"


def test_step_and_epoch_are_read_from_the_content_or_the_name(tmp_path: Path) -> None:
    weights = {"conv.weight": torch.ones(8, 3, 5, 5)}

    def step_and_epoch(name: str, **more: Any) -> tuple[int | None, int | None]:
        torch.save({**weights, **more}, tmp_path / name)
        checkpoint = open_checkpoint(tmp_path / name)
        return checkpoint.step, checkpoint.epoch

    assert step_and_epoch("a.pt") == (None, None)
    assert step_and_epoch("epoch=3-step=70.pt") == (70, 3)
    assert step_and_epoch("step_12.pt", step=13, epoch=2) == (13, 2)
    assert step_and_epoch("b.pt", global_step=5) == (5, None)
    assert step_and_epoch("c.pt", step=True, epoch="x") == (None, None)
    assert step_and_epoch("d.pt", step=10**5000, epoch=-1) == (None, None)


def test_a_module_is_opened() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 5, dilation=2), nn.LazyConv2d(4, 3))
    checkpoint = open_checkpoint(net)
    assert list(checkpoint.layers) == ["0"]
    assert checkpoint.layers["0"].geometry.dilation == (2, 2)
    assert torch.equal(checkpoint.read(), net[0].weight)
    with pytest.raises(
        ValueError, match=r"^Sequential: '1' cannot be shown, it has no weights before"
    ):
        checkpoint.read("1")
    with pytest.raises(ValueError, match=r"Linear: .*no 2-D convolution"):
        open_checkpoint(nn.Linear(1, 1)).read()


def test_the_layers_of_a_module_that_cannot_be_shown_have_a_reason() -> None:
    net = nn.Sequential(nn.ConvTranspose2d(8, 4, 4), nn.Conv2d(3, 8, 5, device="meta"))
    checkpoint = open_checkpoint(net.append(nn.Conv2d(3, 8, 5)))
    assert list(checkpoint.refused) == ["0", "1"]
    assert [remark[:18] for remark in checkpoint.remarks()] == [
        "0 cannot be shown,",
        "1 cannot be shown,",
    ]
    assert "transposed" in checkpoint.refused["0"]


def test_other_layers_that_may_read_the_image_are_named(tmp_path: Path) -> None:
    encoder = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3))
    decoder = nn.Sequential(nn.Conv2d(16, 8, 3), nn.Conv2d(8, 3, 3))
    net = nn.ModuleDict({"decoder": decoder, "encoder": encoder})
    torch.save(net.state_dict(), tmp_path / "a.pt")
    checkpoint = open_checkpoint(tmp_path / "a.pt")
    assert checkpoint.resolve() == "decoder.0"
    assert checkpoint.remarks() == [
        "decoder.0 is the first convolution in the file; also there: encoder.0"
    ]
    assert checkpoint.remarks("decoder.0") == []
    assert open_checkpoint("torchvision:resnet18").remarks() == []
    many = nn.ModuleList(nn.Conv2d(3, 8, 3) for _ in range(8))
    [remark] = open_checkpoint(many).remarks()
    assert remark.endswith("also there: 1, 2, 3, 4, 5 and 2 more")


def test_a_wrong_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    torch.save({"net.stem.weight": torch.rand(8, 3, 5, 5)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"found no single layer 'steem'; the nearest name is"):
        open_checkpoint(tmp_path / "a.pt").read("steem")


def test_a_layer_is_found_by_its_name_the_end_of_it_or_a_glob(tmp_path: Path) -> None:
    net = nn.Sequential(
        OrderedDict(
            a=nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 8, 5))),
            b=nn.Sequential(OrderedDict(conv1=nn.Conv2d(8, 8, 3), conv2=nn.Conv2d(8, 4, 3))),
        )
    )
    torch.save(net.state_dict(), tmp_path / "a.pt")
    checkpoint = open_checkpoint(tmp_path / "a.pt")
    assert checkpoint.resolve() == "a.conv1"
    assert checkpoint.resolve("conv2") == "b.conv2"
    assert checkpoint.resolve("b.*") == "b.conv1"
    for wrong in ("conv1", "nothing", "*nothing*"):
        with pytest.raises(ValueError, match=r"a\.pt: found no single layer") as raised:
            checkpoint.read(wrong)
        assert "\n  b.conv1: 8x8x3x3\n" in str(raised.value)
    many = {f"conv{i}.weight": torch.zeros(1, 1, 1, 1) for i in range(30)}
    torch.save(many, tmp_path / "b.pt")
    assert open_checkpoint(tmp_path / "b.pt").describe().endswith("\n  ... and 10 more")


def test_missing_files_and_other_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"x\.pt: the file or folder does not exist$"):
        open_checkpoint(tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"a folder without a checkpoint; name a file"):
        open_checkpoint(tmp_path)


def test_a_torchvision_network_without_weights_is_always_the_same() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one = load_weights("torchvision:resnet18")
    assert torch.equal(torch.rand(1), expected), "the random numbers of the user stay the same"
    assert torch.equal(load_weights("torchvision:resnet18"), one)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:nonsense", "expected torchvision:NAME"),
        ("torchvision:", "expected torchvision:NAME"),
        ("torchvision:resnet18:NONSENSE", "expected torchvision:NAME"),
        ("torchvision:resnet18:IMAGENET1K_V1", "could not be downloaded"),
    ],
)
def test_torchvision_errors_are_one_line(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # a port without a server
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=rf"^{name}: [^\n]*{message}[^\n]*$"):
        open_checkpoint(name)

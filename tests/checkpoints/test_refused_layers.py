"""Layers that look like convolutions but cannot be shown are listed with the reason."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.ao.nn.quantized
from safetensors.torch import save_file
from test_stored_layers import Net
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from kernelviz_callback.checkpoints.checkpoint import open_checkpoint, plain_geometry
from kernelviz_callback.checkpoints.match_names import find_same_layer
from kernelviz_callback.checkpoints.stored_layers import StoredTensor, find_layers
from kernelviz_callback.model.convolutions import find_convolutions, geometry_of
from kernelviz_callback.model.weights import effective_weight
from kernelviz_callback.snapshots.format import save_snapshot
from kernelviz_callback.snapshots.snapshot import Snapshot


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: torch.rand(0, 3, 5, 5), "it is empty, of shape"),
        (lambda: torch.rand(8, 3, 0), "it is empty, of shape"),
        (lambda: torch.ones(8, 3, 5, 5, dtype=torch.int8), "whole numbers .int8"),
        (lambda: torch.ones(8, 3, 5, 5, dtype=torch.bool), "whole numbers .bool"),
        (lambda: torch.ones(8, 3, 5, 5, dtype=torch.complex64), "its weights are complex"),
        (lambda: torch.rand(8, 3, 5, 5).to_sparse(), "its weights are sparse_coo"),
        (lambda: torch.rand(8, 3, 5, 5).to("meta"), "its weights are on the meta device"),
        (lambda: np.ones((8, 3, 5, 5), np.int8), "whole numbers .int8"),
        (lambda: np.ones((8, 3, 5, 5), np.complex64), "its weights are complex"),
        (lambda: nn.LazyConv2d(8, 5).weight, "it has no weights before its first forward"),
        (lambda: torch.rand(0), "it is empty, of shape"),
        (
            lambda: torch.quantize_per_tensor(torch.rand(8, 3, 5, 5), 0.1, 0, torch.qint8),
            "whole numbers .qint8",
        ),
        (
            lambda: torch.quantize_per_channel(
                torch.rand(8, 3, 5, 5), torch.ones(8), torch.zeros(8), 0, torch.qint8
            ),
            "whole numbers .qint8",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*uantize")
def test_layers_that_cannot_be_shown_have_a_reason(
    make: Callable[[], torch.Tensor], reason: str, open_saved: Any
) -> None:
    checkpoint = open_saved({"conv.weight": make(), "head.weight": torch.rand(2, 2)})
    assert not checkpoint.layers
    for asked in (None, "conv"):
        with pytest.raises(ValueError, match=reason) as raised:
            checkpoint.read(asked)
        assert str(raised.value).startswith(checkpoint.name)


class Centred(nn.Module):
    """A parametrization of a user."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight - weight.mean((1, 2, 3), keepdim=True)


class Scaled(Centred):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(8, 1, 1, 1))


class Split(Centred):
    """A parametrization of two tensors."""

    def forward(self, weight: torch.Tensor, other: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return weight + other

    def right_inverse(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return weight / 2, weight / 2


@pytest.mark.parametrize("make", [Centred, Scaled, Split])
@pytest.mark.parametrize("before", [None, parametrizations.spectral_norm])
def test_weights_under_a_parametrization_of_a_user_are_refused(
    make: Any, before: Any, open_saved: Any
) -> None:
    net = Net()
    if before is not None:
        before(net.stem)
    if before is None or make is Scaled:  # the others leave no trace beside a spectral norm
        parametrize.register_parametrization(net.stem, "weight", make())
        checkpoint = open_saved(net.state_dict())
        assert list(checkpoint.layers) == ["model.0"]
        assert "a parametrization whose code is not in the file" in checkpoint.refused["stem"]


@pytest.mark.parametrize(
    "parts",
    [
        {"weight_orig": (8, 3, 5, 5)},
        {"weight_v": (8, 3, 5, 5)},
        {"weight_orig": (8, 3, 5, 5), "weight_mask": (8, 3, 5, 1)},
        {"weight_v": (8, 3, 5, 5), "weight_g": (8, 3, 1, 1)},
        {"weight_v": (8, 3, 5, 5), "weight_g": (8,)},
        {"weight_orig": (8, 3, 5, 5), "weight_u": (8,), "weight_v": (3,)},
        {"weight_real": (8, 3, 5, 5), "weight_imag": (8, 3, 5, 5)},
    ],
)
def test_weights_whose_parts_cannot_be_joined_are_refused(
    parts: dict[str, tuple[int, ...]],
) -> None:
    stored = {f"conv.{name}": StoredTensor(shape) for name, shape in parts.items()}
    layers = find_layers(stored)
    assert not layers.found
    assert layers.refused["conv"].startswith("the file has no weight, only weight_")


class Standardized(nn.Conv2d):
    """A convolution of a user's own class."""


class Own(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(shape))


def whole_network() -> nn.Module:
    """A network with every kind of layer that has weights of 3 to 5 dimensions."""
    return nn.Sequential(
        OrderedDict(
            up=nn.ConvTranspose2d(8, 4, 4),
            own=Own(8, 3, 5, 5),
            norm=nn.LayerNorm((3, 4, 5)),
            pair=nn.Bilinear(2, 3, 4),
            stem=nn.Conv2d(4, 8, (5, 3), stride=(2, 1), padding="valid", dilation=2, groups=2),
            mine=Standardized(3, 8, 5, padding=(1, 2)),
            time=nn.Conv1d(2, 8, 31, padding=3),
            up1=nn.ConvTranspose1d(2, 8, 4),
            clip=nn.Conv3d(3, 8, (2, 3, 5), padding="same"),
            lazy=nn.LazyConv2d(8, 3),
            quantized=torch.ao.nn.quantized.Conv2d(1, 2, 2),
        )
    )


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_whole_module_in_a_file_has_the_layers_that_the_callback_can_watch(
    protocol: int, tmp_path: Path
) -> None:
    net = whole_network()
    torch.save(net, tmp_path / "a.pt", pickle_protocol=protocol)
    checkpoint = open_checkpoint(tmp_path / "a.pt")
    watched = find_convolutions(net, "*")
    assert list(checkpoint.layers) == [name for name in watched if name != "lazy"]
    for name, layer in checkpoint.layers.items():
        assert layer.geometry == geometry_of(watched[name])
        assert torch.equal(checkpoint.read(name), effective_weight(watched[name]))
    assert list(checkpoint.refused) == ["up", "own", "up1", "lazy", "quantized"]
    for name in ("up", "own", "up1", "quantized"):
        with pytest.raises(ValueError, match="no convolution to watch") as raised:
            find_convolutions(net, name)
        assert checkpoint.refused[name].partition(", ")[0] in str(raised.value)
    assert list(checkpoint.refused.items()) == list(open_checkpoint(net).refused.items())
    [remark] = checkpoint.remarks("mine")
    assert remark.endswith("it is a Standardized, whose code is not in the file")
    assert checkpoint.remarks("clip") == []


def test_a_layer_before_the_first_that_cannot_be_shown_is_named(open_saved: Any) -> None:
    net = Net()
    weights = net.state_dict()
    weights["stem.weight"] = weights["stem.weight"].to_sparse()
    checkpoint = open_saved(weights)
    assert checkpoint.resolve() == "model.0"
    assert checkpoint.remarks() == ["stem cannot be shown, its weights are sparse_coo"]
    assert checkpoint.remarks("model.0") == []
    assert checkpoint.describe().splitlines()[0].startswith("  stem: cannot be shown")
    also = "stem is the first convolution in the file; also there: model.0"
    assert open_saved(net.state_dict()).remarks() == [also]


@pytest.mark.parametrize("wrap", [lambda weights: weights, lambda weights: {"model": weights}])
def test_a_layer_under_an_adapter_is_refused_and_the_adapter_is_no_layer(
    wrap: Any, open_saved: Any
) -> None:
    weights = {
        "net.0.base_layer.weight": torch.rand(8, 3, 5, 5),
        "net.0.lora_A.default.weight": torch.rand(4, 3, 5, 5),
        "net.0.lora_B.default.weight": torch.rand(8, 4, 1, 1),
        "net.1.base_layer.weight": torch.rand(8, 8, 3, 3),
        "lora_stem.weight": torch.rand(8, 3, 5, 5),
    }
    checkpoint = open_saved(wrap(weights))
    assert list(checkpoint.layers) == ["net.1.base_layer", "lora_stem"]
    assert list(checkpoint.refused) == ["net.0"]
    assert "an adapter (LoRA) changes its weights" in checkpoint.refused["net.0"]
    with pytest.raises(ValueError, match=r"'net\.0' cannot be shown, an adapter"):
        checkpoint.read("0")


def test_a_layer_that_is_fused_with_a_batch_norm_is_refused(open_saved: Any) -> None:
    weights = {
        "0.weight": torch.rand(8, 3, 5, 5),
        "0.bn.weight": torch.rand(8),
        "0.weight_fake_quant.scale": torch.rand(8),
        "1.weight": torch.rand(8, 8, 3, 3),
        "1.weight_fake_quant.scale": torch.rand(8),
    }
    checkpoint = open_saved(weights)
    assert list(checkpoint.layers) == ["1"]
    assert "fused: its weights depend on the batch norm" in checkpoint.refused["0"]


def test_weights_under_other_names_are_refused_if_there_are_no_others(open_saved: Any) -> None:
    weights = {"conv1/kernel": np.ones((5, 5, 3, 8), np.float32), "bias": np.ones(8)}
    checkpoint = open_saved(weights)
    assert list(checkpoint.refused) == ["conv1/kernel"]
    with pytest.raises(ValueError, match=r"its name does not end in \.weight"):
        checkpoint.read()
    assert not open_saved(weights | Net().state_dict()).refused


def test_a_refused_layer_is_not_replaced_by_another_one(tmp_path: Path) -> None:
    weight = torch.rand(8, 3, 5, 5)
    stored = {"conv1.weight": torch.ones(8, 3, 5, 5, dtype=torch.int8), "sub.conv1.weight": weight}
    torch.save(stored, tmp_path / "a.pt")
    checkpoint = open_checkpoint(tmp_path / "a.pt")
    for find in (
        checkpoint.resolve,
        lambda name: find_same_layer(checkpoint, name, name, (8, 3, 5, 5)),
    ):
        with pytest.raises(ValueError, match=r"'conv1' cannot be shown, .*whole numbers"):
            find("conv1")
    assert torch.equal(checkpoint.read("sub.conv1"), weight)


def test_other_content_of_any_kind_does_not_make_a_file_damaged(tmp_path: Path) -> None:
    weight = torch.rand(8, 3, 5, 5)
    many = {"conv.weight": weight, "psi": torch.zeros((2,) * 12)}
    save_file(many, tmp_path / "a.safetensors")
    torch.save(many | {"extra": np.ones(3).view(Informed)}, tmp_path / "a.pt")
    for name in ("a.safetensors", "a.pt"):
        assert list(open_checkpoint(tmp_path / name).layers) == ["conv"]
        assert torch.equal(open_checkpoint(tmp_path / name).read(), weight)


def test_a_snapshot_of_a_layer_that_is_too_large_is_refused(tmp_path: Path) -> None:
    large = torch.zeros(1, 1_000_000, 1, 1)
    weights = {"large": large, "conv": torch.rand(8, 3, 5, 5)}
    geometry = {name: plain_geometry(tuple(w.shape)) for name, w in weights.items()}
    path = save_snapshot(Snapshot(3, 0, 0.0, weights, geometry), tmp_path)
    checkpoint = open_checkpoint(path)
    assert list(checkpoint.layers) == ["conv"]
    assert "input channels can be drawn" in checkpoint.refused["large"]


class Informed(np.ndarray):
    """An array with an item more in its state, as NumPy's documentation shows it."""

    def __reduce__(self) -> Any:
        function, arguments, state = super().__reduce__()
        return function, arguments, (*state, "info")

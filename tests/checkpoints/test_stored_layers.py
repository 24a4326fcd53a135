"""Find the convolutions in a state dict, with the names and weights that the module has."""

import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kernelviz_callback.checkpoints.checkpoint import Checkpoint, open_checkpoint
from kernelviz_callback.checkpoints.stored_layers import StoredTensor, find_layers
from kernelviz_callback.model.convolutions import find_convolutions
from kernelviz_callback.model.weights import effective_weight


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 5)
        self.model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=2), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 2)


class MixedDimensions(nn.Module):
    """A network with a 1-D, a 3-D and a 2-D convolution, in this order."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Conv1d(1, 8, 31)
        self.clip = nn.Conv3d(3, 8, (2, 3, 5))
        self.stem = nn.Conv2d(3, 8, 5)


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[Any], Checkpoint]:
    def save_and_open(content: Any) -> Checkpoint:
        torch.save(content, tmp_path / "a.pt")
        return open_checkpoint(tmp_path / "a.pt")

    return save_and_open


def assert_same(checkpoint: Checkpoint, net: nn.Module) -> None:
    """Check that names, order and weights are the same as for the callback."""
    convolutions = find_convolutions(net, "*")
    assert list(checkpoint.layers) == list(convolutions)
    for name, conv in convolutions.items():
        weight = effective_weight(conv)
        assert checkpoint.layers[name].shape == tuple(weight.shape)
        torch.testing.assert_close(checkpoint.read(name), weight, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda net: net,
        nn.DataParallel,
        torch.compile,
        lambda net: torch.compile(nn.DataParallel(net)),
        lambda net: net.double(),
        lambda net: net.half(),
    ],
)
def test_wrapped_networks_have_the_names_that_the_callback_uses(wrap: Any, opened: Any) -> None:
    net = wrap(Net())
    assert_same(opened(net.state_dict()), net)


@pytest.mark.parametrize(
    "key", ["state_dict", "model_state_dict", "model", "net", "network", "module", "anything"]
)
def test_the_key_of_the_state_dict_is_not_in_the_names(key: str, opened: Any) -> None:
    net = Net()
    assert_same(opened({"epoch": 3, "lr": torch.ones(1), key: net.state_dict()}), net)
    assert_same(opened({key: net}), net)
    assert_same(opened({"all": {key: net.state_dict()}}), net)


def test_the_order_of_a_state_dict_is_kept(opened: Any) -> None:
    assert next(iter(opened(Net().state_dict()).layers)) == "stem"


@pytest.mark.parametrize(
    "norm",
    [
        weight_norm,
        lambda conv: weight_norm(conv, dim=1),
        lambda conv: weight_norm(conv, dim=None),
        parametrizations.weight_norm,
        lambda conv: parametrizations.weight_norm(conv, dim=1),
        spectral_norm,
        parametrizations.spectral_norm,
        lambda conv: prune.random_unstructured(conv, "weight", 0.5),
        lambda conv: prune.ln_structured(conv, "weight", 0.5, n=2, dim=0),
    ],
)
def test_normalized_and_pruned_weights_are_computed(
    norm: Callable[[nn.Module], Any], opened: Any
) -> None:
    torch.manual_seed(1)
    net = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the hooks are deprecated
        norm(net.stem)
    net.stem(torch.rand(1, 3, 9, 9))  # a step of the power iteration
    assert_same(opened({"state_dict": net.state_dict()}), net)


def test_running_averages_come_last_with_their_full_paths(opened: Any) -> None:
    net = Net()
    average = AveragedModel(Net(), multi_avg_fn=get_ema_multi_avg_fn())
    checkpoint = opened(
        {
            "ema_model": average.state_dict(),
            "state_dict_ema": average.module.state_dict(),
            "teacher": average.module.state_dict(),
            "state_dict": net.state_dict(),
        }
    )
    assert list(checkpoint.layers) == [
        "stem",
        "model.0",
        "ema_model.module.stem",
        "ema_model.module.model.0",
        "state_dict_ema.stem",
        "state_dict_ema.model.0",
        "teacher.stem",
        "teacher.model.0",
    ]
    assert torch.equal(checkpoint.read(), net.stem.weight)
    assert torch.equal(checkpoint.read("state_dict_ema.stem"), average.module.stem.weight)


def test_two_networks_in_one_file_have_distinct_names(opened: Any) -> None:
    one, other = Net(), Net()
    checkpoint = opened({"generator": one.state_dict(), "critic": other.state_dict()})
    assert list(checkpoint.layers) == ["stem", "model.0", "critic.stem", "critic.model.0"]
    assert torch.equal(checkpoint.read("critic.stem"), other.stem.weight)


def test_tensors_of_optimizers_are_not_layers(opened: Any) -> None:
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters())
    net.stem(torch.rand(1, 3, 9, 9)).sum().backward()
    optimizer.step()
    named = {f"{n}.weight": torch.rand(8, 3, 5, 5) for n in "ab"}
    content = {
        "optimizer_states": [optimizer.state_dict()],
        "optimizer": named,
        "callbacks": named,
        "scaler": named,
        "model": net.state_dict(),
    }
    assert_same(opened(content), net)


ODD = ["a b", "ünïcödé", "(3, 5)", "a/b", "weight", "*", "[0]", "emanuel", "swallow", "state_dict_"]


@pytest.mark.parametrize("name", ODD)
def test_unusual_names_are_kept(name: str, opened: Any) -> None:
    net = nn.Sequential(OrderedDict([(name, nn.Conv2d(3, 8, 5))]))
    assert_same(opened(net.state_dict()), net)
    assert_same(opened({"state_dict": net.state_dict()}), net)
    assert_same(opened(net), net)


@pytest.mark.parametrize("name", ["line\nbreak", "\x1b[31mred", "nul\0", "x" * 1000, "\ud800"])
def test_names_with_control_characters_are_skipped(name: str, opened: Any) -> None:
    checkpoint = opened({f"{name}.weight": torch.ones(8, 3, 5, 5), "b.weight": torch.ones(1)})
    assert not checkpoint.layers


def test_a_bare_convolution(opened: Any) -> None:
    conv = nn.Conv2d(3, 8, 5)
    assert_same(opened(conv.state_dict()), conv)
    assert_same(opened(conv), conv)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: torch.rand(0, 3, 5, 5), "it is empty, of shape"),
        (lambda: torch.rand(8, 3, 0), "it is empty, of shape"),
        (lambda: torch.ones(8, 3, 5, 5, dtype=torch.int8), "whole numbers .int8"),
        (lambda: torch.ones(8, 3, 5, 5, dtype=torch.bool), "whole numbers .bool"),
        (lambda: torch.ones(8, 3, 5, 5, dtype=torch.complex64), "its weights are complex"),
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
    make: Callable[[], torch.Tensor], reason: str, opened: Any
) -> None:
    checkpoint = opened({"conv.weight": make(), "head.weight": torch.rand(2, 2)})
    assert not checkpoint.layers
    for asked in (None, "conv"):
        with pytest.raises(ValueError, match=reason) as raised:
            checkpoint.read(asked)
        assert str(raised.value).startswith(checkpoint.name)


@pytest.mark.parametrize("made", [nn.Conv1d(2, 8, 31), nn.Conv3d(2, 8, (2, 3, 5))])
def test_1d_and_3d_layers_are_found(made: nn.Module, opened: Any) -> None:
    net = nn.Sequential(OrderedDict(a=nn.BatchNorm1d(2), b=made))
    assert_same(opened({"state_dict": net.state_dict()}), net)
    assert_same(opened(made.state_dict()), made)
    assert torch.equal(opened(net.state_dict()).read(), made.weight)


@pytest.mark.parametrize("make", [lambda: nn.Conv1d(2, 8, 9), lambda: nn.Conv3d(2, 8, 3)])
@pytest.mark.parametrize(
    "norm",
    [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        spectral_norm,
        lambda conv: prune.random_unstructured(conv, "weight", 0.5),
    ],
)
def test_normalized_weights_of_1d_and_3d_layers_are_computed(
    make: Any, norm: Any, opened: Any
) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(make())
    norm(net[0])
    net(torch.rand(1, 2, *[9] * (net[0].weight.ndim - 2)))  # a step of the power iteration
    assert_same(opened({"state_dict": net.state_dict()}), net)


def test_the_first_layer_is_the_same_as_for_the_callback(opened: Any) -> None:
    net = MixedDimensions()
    checkpoint = opened(net.state_dict())
    assert_same(checkpoint, net)
    assert [checkpoint.resolve()] == list(find_convolutions(net)) == ["stem"]
    assert checkpoint.resolve("*") == "stem"
    assert checkpoint.resolve("[tc]*") == "time"
    del net.stem
    assert [opened(net.state_dict()).resolve()] == list(find_convolutions(net)) == ["time"]


def test_the_end_of_a_name_means_the_2d_layer_if_there_is_one(opened: Any) -> None:
    net = nn.ModuleDict(
        {"a": nn.ModuleDict({"conv": nn.Conv1d(2, 4, 3)}), "b": nn.ModuleDict({"conv": Net().stem})}
    )
    assert opened(net.state_dict()).resolve("conv") == "b.conv"
    assert opened({"a.conv.weight": torch.rand(4, 2, 3)}).resolve("conv") == "a.conv"


def test_deep_and_cyclic_dicts_are_read(opened: Any) -> None:
    endless: dict[str, Any] = {"conv.weight": torch.ones(8, 3, 5, 5)}
    endless["again"] = endless
    assert list(opened(endless).layers) == ["conv"]
    deep: dict[str, Any] = {}
    for _ in range(400):
        deep = {"d": deep}
    deep["conv.weight"] = torch.ones(8, 3, 5, 5)
    assert list(opened(deep).layers) == ["conv"]


def test_weights_with_missing_parts_are_not_found() -> None:
    stored = StoredTensor((8, 3, 5, 5))
    assert not find_layers({"conv.weight_orig": stored}).found
    assert not find_layers({"conv.weight_v": stored}).found

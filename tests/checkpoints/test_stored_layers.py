"""Find the convolutions in a state dict, with the names and weights that the module has."""

import enum
import warnings
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.ao.nn.quantized
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kernelviz_callback.checkpoints.checkpoint import Checkpoint
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
def test_wrapped_networks_have_the_names_that_the_callback_uses(wrap: Any, open_saved: Any) -> None:
    net = wrap(Net())
    assert_same(open_saved(net.state_dict()), net)


@pytest.mark.parametrize(
    "key", ["state_dict", "model_state_dict", "model", "net", "network", "module", "anything"]
)
def test_the_key_of_the_state_dict_is_not_in_the_names(key: str, open_saved: Any) -> None:
    net = Net()
    assert_same(open_saved({"epoch": 3, "lr": torch.ones(1), key: net.state_dict()}), net)
    assert_same(open_saved({key: net}), net)
    assert_same(open_saved({"all": {key: net.state_dict()}}), net)


def test_the_order_of_a_state_dict_is_kept(open_saved: Any) -> None:
    assert next(iter(open_saved(Net().state_dict()).layers)) == "stem"


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
    norm: Callable[[nn.Module], Any], open_saved: Any
) -> None:
    torch.manual_seed(1)
    net = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the hooks are deprecated
        norm(net.stem)
    net.stem(torch.rand(1, 3, 9, 9))  # a step of the power iteration
    assert_same(open_saved({"state_dict": net.state_dict()}), net)


def test_running_averages_come_last_with_their_full_paths(open_saved: Any) -> None:
    net = Net()
    average = AveragedModel(Net(), multi_avg_fn=get_ema_multi_avg_fn())
    checkpoint = open_saved(
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


def test_two_networks_in_one_file_have_distinct_names(open_saved: Any) -> None:
    one, other = Net(), Net()
    checkpoint = open_saved({"generator": one.state_dict(), "critic": other.state_dict()})
    assert list(checkpoint.layers) == ["stem", "model.0", "critic.stem", "critic.model.0"]
    assert torch.equal(checkpoint.read("critic.stem"), other.stem.weight)


def test_the_state_of_an_optimizer_has_no_layers(open_saved: Any) -> None:
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters())
    net.stem(torch.rand(1, 3, 9, 9)).sum().backward()
    optimizer.step()
    by_name = {"state": {"stem": {"weight": torch.rand(8, 3, 5, 5)}}, "param_groups": []}
    content = {"optimizer_states": [optimizer.state_dict()], "by_name": by_name, "whole": optimizer}
    assert_same(open_saved(content | {"model": net.state_dict()}), net)


def test_what_is_beside_the_weights_comes_last_with_its_full_path(open_saved: Any) -> None:
    net = Net()
    named = {"a.weight": torch.rand(8, 3, 5, 5)}
    content = {"optimizer": named, "callbacks": {"early": dict(named)}, "scaler": dict(named)}
    checkpoint = open_saved(content | {"model": net.state_dict()})
    beside = ["optimizer.a", "callbacks.early.a", "scaler.a"]
    assert list(checkpoint.layers) == ["stem", "model.0", *beside]
    assert torch.equal(checkpoint.read("callbacks.early.a"), named["a.weight"])


WORDS = ["optimizer", "optimal", "optical_flow", "loops", "callbacks", "hyper_parameters", "scaler"]
WORDS += ["upscaler", "ema", "swa", "average", "teacher", "shadow", "current_model_state"]
WORDS += ["momentum", "target", "encoder_k"]


@pytest.mark.parametrize("word", WORDS)
def test_a_layer_is_found_whatever_its_name_is(word: str, open_saved: Any) -> None:
    inner = nn.Sequential(nn.Conv2d(3, 8, 5), nn.Conv2d(8, 8, 3))
    net = nn.Sequential(OrderedDict([(word, inner), ("tail", nn.Conv2d(8, 4, 3))]))
    bare = nn.Sequential(OrderedDict([(word, nn.Conv2d(3, 8, 5)), ("tail", nn.Conv2d(3, 8, 5))]))
    for content in (net.state_dict(), {"state_dict": net.state_dict()}, net, {"model": net}):
        assert_same(open_saved(content), net)
    for content in (bare.state_dict(), bare):
        assert_same(open_saved(content), bare)
    assert_same(open_saved({word: inner.state_dict()}), inner)


def test_a_copy_has_a_counterpart_and_comes_last(open_saved: Any) -> None:
    net = nn.ModuleDict({"teacher": Net(), "student": Net()})
    names = ["student.stem", "student.model.0", "teacher.stem", "teacher.model.0"]
    assert list(open_saved(net.state_dict()).layers) == names
    assert list(open_saved(net).layers) == names
    for copy, original in (("momentum_encoder", "base_encoder"), ("encoder_k", "encoder_q")):
        pair = nn.ModuleDict({copy: Net(), original: Net()})
        assert next(iter(open_saved(pair.state_dict()).layers)) == f"{original}.stem"
    one, other = Net(), Net()
    checkpoint = open_saved({"ema": one.state_dict(), "plain": other.state_dict()})
    assert list(checkpoint.layers) == ["stem", "model.0", "ema.stem", "ema.model.0"]
    assert torch.equal(checkpoint.read(), other.stem.weight)
    wider = nn.Sequential(OrderedDict(stem=nn.Conv2d(3, 16, 5)))
    checkpoint = open_saved({"ema": one.state_dict(), "plain": wider.state_dict()})
    assert list(checkpoint.layers) == ["stem", "model.0", "plain.stem"], "not a copy of it"


class Learner:
    """An object of a user that holds a model."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.losses = [1.0, 2.0]


class Phase(enum.Enum):
    TRAIN = 1


class Rows(list[Any]): ...


class Slotted:
    __slots__ = ("net", "step")

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.step = 3


@pytest.mark.parametrize(
    "contain",
    [
        lambda net: [net.state_dict(), {}],
        lambda net: (net.state_dict(), 3),
        lambda net: {0: net.state_dict()},
        lambda net: {"models": [{"weights": net.state_dict()}]},
        lambda net: {"folds": {3: (net,)}},
        lambda net: [net, torch.optim.SGD(net.parameters(), 0.1)],
        lambda net: {k: v.numpy() for k, v in net.state_dict().items()},
        lambda net: {"model": {k: v.double().numpy() for k, v in net.state_dict().items()}},
        torch.compile,
        lambda net: {"model": torch.compile(net), "epoch": 3},
        Learner,
        lambda net: [Learner(net)],
        Slotted,
        lambda net: {None: net.state_dict()},
        lambda net: {("a", 1): net.state_dict(), 0.5: 1},
        lambda net: {Phase.TRAIN: net.state_dict()},
        lambda net: {np.int64(3): net.state_dict()},
        lambda net: Rows([net.state_dict()]),
        lambda net: deque([net.state_dict()]),
        lambda net: defaultdict(dict, {"fold": net.state_dict()}),
    ],
)
def test_layers_in_any_container_are_found(contain: Callable[..., Any], open_saved: Any) -> None:
    net = Net()
    assert_same(open_saved(contain(net)), net)


def test_a_compiled_part_of_a_module_has_the_name_that_the_callback_uses(open_saved: Any) -> None:
    net = nn.Sequential(OrderedDict(a=torch.compile(Net()), b=nn.Conv2d(3, 8, 5)))
    assert_same(open_saved(net), net)


def test_two_networks_in_a_list_have_distinct_names(open_saved: Any) -> None:
    one, other = Net(), Net()
    checkpoint = open_saved({"models": [one.state_dict(), other.state_dict()]})
    assert list(checkpoint.layers) == ["stem", "model.0", "models.1.stem", "models.1.model.0"]
    assert torch.equal(checkpoint.read("models.1.stem"), other.stem.weight)


def test_names_that_differ_by_a_wrapper_only_are_both_listed(open_saved: Any) -> None:
    one, other = torch.rand(8, 3, 5, 5), torch.rand(8, 3, 5, 5)
    checkpoint = open_saved({"module.conv.weight": one, "conv.weight": other})
    assert list(checkpoint.layers) == ["conv", "conv (2)"]
    assert torch.equal(checkpoint.read("conv (2)"), other)


ODD = ["a b", "ünïcödé", "(3, 5)", "a/b", "weight", "*", "[0]", "emanuel", "swallow", "state_dict_"]


@pytest.mark.parametrize("name", ODD)
def test_unusual_names_are_kept(name: str, open_saved: Any) -> None:
    net = nn.Sequential(OrderedDict([(name, nn.Conv2d(3, 8, 5))]))
    assert_same(open_saved(net.state_dict()), net)
    assert_same(open_saved({"state_dict": net.state_dict()}), net)
    assert_same(open_saved(net), net)


@pytest.mark.parametrize("name", ["line\nbreak", "\x1b[31mred", "nul\0", "\ud800"])
def test_names_with_control_characters_are_escaped(name: str, open_saved: Any) -> None:
    weight = torch.rand(8, 3, 5, 5)
    checkpoint = open_saved({f"{name}.weight": weight, "b.weight": torch.ones(1)})
    assert list(checkpoint.layers) == [name.encode("unicode_escape").decode()]
    assert torch.equal(checkpoint.read(), weight)


def test_a_bare_convolution(open_saved: Any) -> None:
    conv = nn.Conv2d(3, 8, 5)
    assert_same(open_saved(conv.state_dict()), conv)
    assert_same(open_saved(conv), conv)


@pytest.mark.parametrize("made", [nn.Conv1d(2, 8, 31), nn.Conv3d(2, 8, (2, 3, 5))])
def test_1d_and_3d_layers_are_found(made: nn.Module, open_saved: Any) -> None:
    net = nn.Sequential(OrderedDict(a=nn.BatchNorm1d(2), b=made))
    assert_same(open_saved({"state_dict": net.state_dict()}), net)
    assert_same(open_saved(made.state_dict()), made)
    assert torch.equal(open_saved(net.state_dict()).read(), made.weight)


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
    make: Any, norm: Any, open_saved: Any
) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(make())
    norm(net[0])
    net(torch.rand(1, 2, *[9] * (net[0].weight.ndim - 2)))  # a step of the power iteration
    assert_same(open_saved({"state_dict": net.state_dict()}), net)


def test_the_first_layer_is_the_same_as_for_the_callback(open_saved: Any) -> None:
    net = MixedDimensions()
    checkpoint = open_saved(net.state_dict())
    assert_same(checkpoint, net)
    assert [checkpoint.resolve()] == list(find_convolutions(net)) == ["stem"]
    assert checkpoint.resolve("*") == "stem"
    assert checkpoint.resolve("[tc]*") == "time"
    del net.stem
    assert [open_saved(net.state_dict()).resolve()] == list(find_convolutions(net)) == ["time"]


def test_the_end_of_a_name_means_the_2d_layer_if_there_is_one(open_saved: Any) -> None:
    net = nn.ModuleDict(
        {"a": nn.ModuleDict({"conv": nn.Conv1d(2, 4, 3)}), "b": nn.ModuleDict({"conv": Net().stem})}
    )
    assert open_saved(net.state_dict()).resolve("conv") == "b.conv"
    assert open_saved({"a.conv.weight": torch.rand(4, 2, 3)}).resolve("conv") == "a.conv"


def test_deep_and_cyclic_dicts_are_read(open_saved: Any) -> None:
    endless: dict[str, Any] = {"conv.weight": torch.ones(8, 3, 5, 5)}
    endless["again"] = endless
    assert list(open_saved(endless).layers) == ["conv"]
    deep: dict[str, Any] = {}
    for _ in range(400):
        deep = {"d": deep}
    deep["conv.weight"] = torch.ones(8, 3, 5, 5)
    assert list(open_saved(deep).layers) == ["conv"]

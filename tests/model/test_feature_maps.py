"""Feature maps are the outputs of layers, and recording them does not change the model."""

import copy
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from kernelviz_callback.model.convolutions import find_convolutions
from kernelviz_callback.model.feature_maps import feature_maps
from kernelviz_callback.model.weights import effective_weight


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def chain() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 6, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Conv2d(6, 4, 3, dilation=2),
        nn.Flatten(),
        nn.Linear(7, 2),  # its input size fits no image
    )


PROBE = drawn(3, 20, 24, seed=9)


def found_in(
    model: nn.Module, layers: str | list[str] = "*", probe: Tensor = PROBE, **options: Any
):
    return feature_maps(model, find_convolutions(model, layers), probe, **options)


def test_a_map_is_the_output_of_the_layers_up_to_this_layer() -> None:
    net = chain()
    for _ in range(3):
        net[:4](torch.randn(4, 3, 20, 24))  # updates the statistics of the batch norm
    found = found_in(net)
    assert not found.absent
    assert list(found.maps) == ["0", "3", "6"]
    for name, each in found.maps.items():
        expected = copy.deepcopy(net[: int(name) + 1]).eval()(PROBE[None])[0]
        torch.testing.assert_close(each.values, expected.detach())
        assert not each.values.requires_grad
        assert not each.values.is_inference()


@pytest.mark.parametrize("factor", [2, 3])
def test_a_map_can_be_shrunk_by_averaging(factor: int) -> None:
    whole, part = (found_in(chain(), "0", **o) for o in ({}, {"shrink": lambda n, h, w: factor}))
    values, small = whole.maps["0"].values, part.maps["0"]
    assert small.shrink == factor
    for n, row, column in ((0, 0, 0), (7, 1, 2), (3, 1, 0)):
        block = values[
            n,
            row * factor : (row + 1) * factor,
            column * factor : (column + 1) * factor,
        ]
        torch.testing.assert_close(small.values[n, row, column], block.mean())
    assert small.values.shape[1:] == tuple(side // factor for side in values.shape[1:])


def test_shrink_is_called_with_the_size_of_each_map() -> None:
    sizes: list[tuple[int, int, int]] = []
    found_in(chain(), shrink=lambda *size: sizes.append(size) or 1)
    assert sizes == [(8, 8, 10), (6, 8, 10), (4, 4, 6)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_model_runs_in_its_own_precision(dtype: torch.dtype) -> None:
    net = chain()
    exact = found_in(net).maps["3"].values
    found = found_in(net.to(dtype)).maps["3"].values
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, atol=0.05, rtol=0.05)


# --- compiled models ----------------------------------------------------------------------------


def compiled_in_place(net: nn.Sequential) -> nn.Module:
    net.compile(backend="eager")
    return net


def compiled_layer(net: nn.Sequential) -> nn.Module:
    net[3] = torch.compile(net[3], backend="eager")
    return net


def compiled_forward(net: nn.Sequential) -> nn.Module:
    net.forward = torch.compile(net.forward, backend="eager")
    return net


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch reads the one of a layer's input
@pytest.mark.parametrize(
    "compiled",
    [
        lambda net: torch.compile(net, backend="eager"),
        compiled_in_place,
        compiled_layer,
        compiled_forward,
    ],
    ids=["wrapped", "in place", "one layer", "the forward method"],
)
def test_a_compiled_model_is_not_compiled_again(compiled: Callable[..., nn.Module]) -> None:
    torch._dynamo.reset()
    images = drawn(4, 3, 20, 24)
    usual, net = chain()[:5], compiled(chain()[:5])
    usual(images), net(images)
    plain = found_in(usual)
    counters = torch._dynamo.utils.counters
    before = copy.deepcopy(dict(counters))
    assert before["stats"]["unique_graphs"] > 0
    found = found_in(net)
    net(images)
    assert dict(counters) == before
    assert not found.absent
    for name, each in plain.maps.items():
        torch.testing.assert_close(found.maps[name].values, each.values)


# --- which module is run, and where the run ends ------------------------------------------------


class WithoutForward(LightningModule):
    """Has no forward, like many LightningModules whose ``training_step`` calls a network."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.loss = nn.CrossEntropyLoss()
        self.nets = nn.ModuleDict({"main": net, "average": copy.deepcopy(net)})


def test_of_a_module_without_a_forward_the_child_with_the_first_convolution_is_run() -> None:
    net = chain()
    found = found_in(WithoutForward(net), "nets.main.*")
    assert set(found.maps) == {"nets.main.0", "nets.main.3", "nets.main.6"}
    for name, each in found_in(net).maps.items():
        assert torch.equal(found.maps[f"nets.main.{name}"].values, each.values)
    both = found_in(WithoutForward(net))
    assert "nets.average.3" in both.absent
    assert "nets.main.3" in both.maps


def test_without_any_forward_only_the_first_convolution_has_a_map() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)])

    found = found_in(Parts())
    assert list(found.maps) == ["parts.0"], "the first convolution itself has a forward"
    assert found.absent == {"parts.1": "the model ended without calling it"}


def test_self_log_does_nothing_during_the_run() -> None:
    class Logging(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = chain()
            self.logged: list[str] = []

        def log(self, name: str, *_: Any, **__: Any) -> None:
            self.logged.append(name)

        def forward(self, x: Tensor) -> Tensor:
            self.log("mean", x.mean())
            self.log_dict({"more": x.mean()})
            return self.net(x)

    model = Logging()
    assert not found_in(model).absent
    assert model.logged == []
    model.log("x")
    assert model.logged == ["x"]


def test_the_run_ends_after_the_last_layer_although_the_model_catches_exceptions() -> None:
    class CatchesExceptions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
            self.tail = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            try:
                x = self.net(x)
            except Exception:
                x = x[:, :1]
            ended.append("too late")
            return self.tail(x)

    ended: list[str] = []
    assert set(found_in(CatchesExceptions()).maps) == {"net.0", "net.1"}
    assert not ended


def test_a_layer_that_is_called_twice_has_the_map_of_its_first_call() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.again, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.again(self.again(x)))

    net = Twice()
    found = found_in(net)
    torch.testing.assert_close(found.maps["again"].values, net.again(PROBE[None])[0].detach())


def test_the_other_layers_have_maps_if_one_layer_is_not_called() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.aux = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)
            self.last = nn.Conv2d(4, 4, 3)

        def forward(self, x: Tensor) -> Any:
            x = self.stem(x)
            return (self.last(x), self.aux(x)) if self.training else self.last(x)

    found = found_in(Auxiliary())
    assert set(found.maps) == {"stem", "last"}
    assert found.absent == {"aux": "the model ended without calling it"}


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Conv2d(3, 4, 3)), "RuntimeError: "),
        (nn.Sequential(nn.Conv2d(5, 4, 3)), r"expected input.* to have 5 channels"),
    ],
)
def test_a_model_that_fails_on_images_has_no_maps(net: nn.Module, reason: str) -> None:
    (given,) = found_in(net).absent.values()
    assert given.startswith("the model failed on images of shape (1, 3, 20, 24) before calling it")
    assert re.search(reason, given)


def test_a_model_with_uninitialized_parameters_is_not_run() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.LazyLinear(2))
    (reason,) = found_in(net, "1").absent.values()
    assert reason == "the model has layers without weights before its first batch"
    assert isinstance(net[3].weight, nn.UninitializedParameter)


def test_a_model_on_a_device_without_restorable_random_numbers_is_not_run() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3)).to("meta")
    assert feature_maps(net, {"0": net[0]}, PROBE).absent == {
        "0": "the model is on meta, where random numbers cannot be restored"
    }


def test_a_batch_as_probe_is_refused() -> None:
    with pytest.raises(ValueError, match=r"found \(1, 3, 20, 24\)"):
        found_in(chain(), probe=PROBE[None])


@pytest.mark.parametrize(
    "norm",
    [
        weight_norm,
        spectral_norm,
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        lambda conv: prune.random_unstructured(conv, "weight", 0.5),
    ],
)
def test_derived_weights_are_up_to_date(norm: Callable[[nn.Module], Any]) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the older functions are deprecated
        norm(net[1])
    net(PROBE[None])
    with torch.no_grad():
        for parameter in net[1].parameters():
            parameter += 0.1  # the weights derived in the last forward are out of date
    inner = net[0](PROBE[None]).detach()
    expected = F.conv2d(inner, effective_weight(net[1]), net[1].bias)[0].detach()
    torch.testing.assert_close(found_in(net, "1").maps["1"].values, expected)

"""Every change that a forward pass can make to a model is undone after `feature_maps`."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from kernelviz_callback.model.feature_maps import feature_maps
from kernelviz_callback.model.isolation import undo_side_effects


class Network(nn.Module):
    """Calls a function that changes the network in its forward pass."""

    def __init__(self, side_effect: Callable[["Network"], None]) -> None:
        super().__init__()
        self.side_effect = side_effect
        self.conv = nn.Conv2d(3, 4, 3)
        self.deep = nn.Conv2d(4, 4, 3)
        self.scale = nn.Parameter(torch.ones(3))
        self.register_buffer("running", torch.zeros(3))
        self.register_buffer("wide", self.running[:1].expand(5))
        self.plain = torch.zeros(3)
        self.nested: dict[str, Any] = {"a": [1, {"b": torch.zeros(2)}]}
        self.counter: Counter[str] = Counter(a=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        self.side_effect(self)
        return self.deep(x)


def set_weights(net: Network) -> None:
    net.conv.weight.data = torch.renorm(net.conv.weight.data, 2, 0, 0.01)


def add_one_to(tensor: Callable[[Network], Tensor]) -> Callable[[Network], None]:
    def side_effect(net: Network) -> None:
        tensor(net).add_(1)

    return side_effect


def backward(net: Network) -> None:
    with torch.enable_grad():
        (net.scale * 3).sum().backward()


SIDE_EFFECTS: dict[str, Callable[[Network], None]] = {
    "a parameter": add_one_to(lambda net: net.scale),
    "a parameter through its data": add_one_to(lambda net: net.scale.data),
    "replaced weights": set_weights,
    "a buffer": add_one_to(lambda net: net.running),
    "a buffer through its data": add_one_to(lambda net: net.running.data),
    "a view of a buffer": add_one_to(lambda net: net.running[1:]),
    "a buffer that was resized": lambda net: net.running.resize_(50).fill_(2),
    "a buffer as the out argument": lambda net: torch.add(net.running, 1, out=net.running),
    "a tensor that is an attribute": add_one_to(lambda net: net.plain),
    "a tensor in a list in a dictionary": add_one_to(lambda net: net.nested["a"][1]["b"]),
    "a list in a dictionary": lambda net: net.nested["a"].append(2),
    "a counter": lambda net: net.counter.update("ab"),
    "a replaced buffer": lambda net: net.register_buffer("running", torch.ones(7)),
    "gradients": backward,
    "the modes": lambda net: net.train() and None,
}


def state_of(net: Network) -> list[Any]:
    tensors = [*net.parameters(), *net.buffers(), net.plain, net.nested["a"][1]["b"]]
    values = [(id(t), t.shape, t.tolist()) for t in tensors]
    gradients = [None if p.grad is None else p.grad.tolist() for p in net.parameters()]
    modes = [module.training for module in net.modules()]
    return [values, gradients, modes, len(net.nested["a"]), dict(net.counter)]


@pytest.mark.parametrize("side_effect", SIDE_EFFECTS.values(), ids=SIDE_EFFECTS)
@pytest.mark.parametrize("has_gradients", [False, True])
def test_a_side_effect_is_undone(
    side_effect: Callable[[Network], None], has_gradients: bool
) -> None:
    net = Network(side_effect)
    if has_gradients:
        (net.scale.sum() + net.conv.weight.sum()).backward()
    before = state_of(net)
    assert feature_maps(net, {"deep": net.deep}, torch.rand(3, 8, 8)).absent == {}
    assert state_of(net) == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_side_effects_are_undone_after_an_exception(error: type[BaseException]) -> None:
    net = Network(add_one_to(lambda net: net.running))
    before = state_of(net)

    def run() -> None:
        with undo_side_effects(net):
            net(torch.rand(1, 3, 8, 8))
            raise error

    with pytest.raises(error):
        run()
    assert state_of(net) == before


def test_a_tensor_that_an_in_place_layer_changes_gives_the_right_map() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3))
    image = torch.rand(3, 8, 8)
    with torch.no_grad():
        expected = net(image[None])[0]
    found = feature_maps(net, {"2": net[2]}, image).maps["2"].values
    assert torch.equal(found, expected)


def test_global_hooks_are_not_called_and_remain_registered() -> None:
    called = []
    handle = register_module_forward_hook(lambda *_: called.append(1))
    try:
        net = Network(lambda net: None)
        feature_maps(net, {"deep": net.deep}, torch.rand(3, 8, 8))
        assert called == []
        net(torch.rand(1, 3, 8, 8))
        assert len(called) == 3
    finally:
        handle.remove()

"""What a model may do to itself when it runs, and that none of it is left."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from kernelviz_callback.model.feature_maps import feature_maps
from kernelviz_callback.model.isolation import untouched


class Messy(nn.Module):
    """Its forward does one thing that a forward should not."""

    def __init__(self, mess: Callable[["Messy"], None]) -> None:
        super().__init__()
        self.mess = mess
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
        self.mess(self)
        return self.deep(x)


def set_weights(net: Messy) -> None:
    net.conv.weight.data = torch.renorm(net.conv.weight.data, 2, 0, 0.01)


def write(tensor: Callable[[Messy], Tensor]) -> Callable[[Messy], None]:
    def mess(net: Messy) -> None:
        tensor(net).add_(1)

    return mess


def backward(net: Messy) -> None:
    with torch.enable_grad():
        (net.scale * 3).sum().backward()


MESSES: dict[str, Callable[[Messy], None]] = {
    "a parameter": write(lambda net: net.scale),
    "a parameter by its data": write(lambda net: net.scale.data),
    "other weights": set_weights,
    "a buffer": write(lambda net: net.running),
    "a buffer by its data": write(lambda net: net.running.data),
    "a view of a buffer": write(lambda net: net.running[1:]),
    "a buffer that was resized": lambda net: net.running.resize_(50).fill_(2),
    "a buffer by out": lambda net: torch.add(net.running, 1, out=net.running),
    "a tensor that is an attribute": write(lambda net: net.plain),
    "a tensor in a list in a dictionary": write(lambda net: net.nested["a"][1]["b"]),
    "a list in a dictionary": lambda net: net.nested["a"].append(2),
    "a counter": lambda net: net.counter.update("ab"),
    "another buffer": lambda net: net.register_buffer("running", torch.ones(7)),
    "gradients": backward,
    "the modes": lambda net: net.train() and None,
}


def everything(net: Messy) -> list[Any]:
    tensors = [*net.parameters(), *net.buffers(), net.plain, net.nested["a"][1]["b"]]
    values = [(id(t), t.shape, t.tolist()) for t in tensors]
    gradients = [None if p.grad is None else p.grad.tolist() for p in net.parameters()]
    modes = [module.training for module in net.modules()]
    return [values, gradients, modes, len(net.nested["a"]), dict(net.counter)]


@pytest.mark.parametrize("mess", MESSES.values(), ids=MESSES)
@pytest.mark.parametrize("has_gradients", [False, True])
def test_nothing_is_left_of(mess: Callable[[Messy], None], has_gradients: bool) -> None:
    net = Messy(mess)
    if has_gradients:
        (net.scale.sum() + net.conv.weight.sum()).backward()
    before = everything(net)
    assert feature_maps(net, {"deep": net.deep}, torch.rand(3, 8, 8)).absent == {}
    assert everything(net) == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_after_an_exception(error: type[BaseException]) -> None:
    net = Messy(write(lambda net: net.running))
    before = everything(net)

    def run() -> None:
        with untouched(net):
            net(torch.rand(1, 3, 8, 8))
            raise error

    with pytest.raises(error):
        run()
    assert everything(net) == before


def test_what_the_model_made_itself_is_not_copied() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3))
    image = torch.rand(3, 8, 8)
    with torch.no_grad():
        expected = net(image[None])[0]
    found = feature_maps(net, {"2": net[2]}, image).maps["2"].values
    assert torch.equal(found, expected)


def test_hooks_for_all_modules_are_not_called_and_stay() -> None:
    called = []
    handle = register_module_forward_hook(lambda *_: called.append(1))
    try:
        net = Messy(lambda net: None)
        feature_maps(net, {"deep": net.deep}, torch.rand(3, 8, 8))
        assert called == []
        net(torch.rand(1, 3, 8, 8))
        assert len(called) == 3
    finally:
        handle.remove()

"""Every change that a forward pass can make to a model is undone after `feature_maps`."""

import itertools
import logging
import queue
import random
import threading
import warnings
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torchmetrics import Accuracy

from kernelviz_callback.model.convolutions import find_convolutions
from kernelviz_callback.model.feature_maps import FeatureMaps, feature_maps
from kernelviz_callback.model.isolation import undo_side_effects

PROBE = torch.randn(3, 20, 24, generator=torch.Generator().manual_seed(9))


def run_on_probe(model: nn.Module, layers: str = "*") -> FeatureMaps:
    return feature_maps(model, find_convolutions(model, layers), PROBE)


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


class Helper:
    """An object that is no module, as a schedule or a mask maker."""

    __slots__ = ("__dict__", "late", "number")

    def __init__(self) -> None:
        self.number = 0
        self.rng = np.random.default_rng(3)
        self.seeds = np.random.SeedSequence(3)
        self.old_rng = np.random.RandomState(3)
        self.python_rng = random.Random(3)
        self.noise = np.zeros(3)
        self.seen: list[int] = []


class HoldsObjects(nn.Module):
    """Changes objects of many kinds that it holds, in its forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.deep = nn.Conv2d(4, 4, 3)
        self.helper = Helper()
        self.hidden = [nn.BatchNorm2d(3)]
        self.plain = torch.zeros(2)
        count = 0

        def next_number() -> int:
            nonlocal count
            count += 1
            return count

        self.next_number = next_number

    def forward(self, x: Tensor) -> Tensor:
        helper = self.helper
        helper.number += 1
        helper.late = 1
        helper.rng.random(), helper.old_rng.normal(), helper.python_rng.random()
        helper.rng.spawn(2), helper.seeds.spawn(1)
        helper.noise += 1
        helper.seen.append(self.next_number())
        self.hidden[0].calls = 1
        self.hidden[0](x)
        self.plain.data = torch.ones(7)
        return self.deep(self.conv(x))


def test_objects_that_the_model_holds_are_restored() -> None:
    net = HoldsObjects()
    assert run_on_probe(net).absent == {}
    helper, fresh = net.helper, Helper()
    assert helper.number == 0
    assert not hasattr(helper, "late")
    assert helper.rng.random() == fresh.rng.random()
    assert helper.rng.spawn(1)[0].random() == fresh.rng.spawn(1)[0].random()
    assert helper.seeds.spawn(1)[0].spawn_key == (0,)
    assert helper.old_rng.normal() == fresh.old_rng.normal()
    assert helper.python_rng.random() == fresh.python_rng.random()
    assert helper.noise.tolist() == [0, 0, 0]
    assert helper.seen == []
    assert net.next_number() == 1
    assert not hasattr(net.hidden[0], "calls")
    assert net.hidden[0].num_batches_tracked == 0
    assert net.plain.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("held", "name"),
    [(itertools.count(), "count"), (iter([1, 2]), "list_iterator"), (queue.Queue(), "Queue")],
)
def test_a_model_that_holds_what_cannot_be_restored_is_not_run(held: Any, name: str) -> None:
    class Never(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError

    net = Never(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    net.held = held
    [reason] = set(run_on_probe(net).absent.values())
    assert f"Never.held holds a {name}, which cannot be restored" in reason


def test_trainers_loggers_and_hooks_do_not_prevent_a_run() -> None:
    class Holds(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.save_hyperparameters({"rate": 1})
            self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
            self.log_to = logging.getLogger("held")
            self.lock = threading.Lock()
            self.makes = partial(nn.Conv2d, kernel_size=3)
            self.accuracy = Accuracy("multiclass", num_classes=3)
            self.optimizer = torch.optim.Adam(self.parameters())

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    model = Holds()
    model.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    counter = itertools.count()
    model.net[0].register_forward_hook(lambda *_: next(counter) and None)
    assert run_on_probe(model).absent == {}
    assert next(counter) == 0


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


class ChangesItself(nn.Module):
    """Changes its parameters, buffers, attributes, children and modes in its forward pass."""

    def __init__(self, fails: type[BaseException] | None = None) -> None:
        super().__init__()
        self.fails = fails
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.unlisted = [self.norm]
        self.last = nn.Conv2d(4, 4, 3)
        self.register_buffer("calls", torch.zeros(2))
        self.register_buffer("replaced", torch.zeros(()))
        self.register_buffer("grown", torch.zeros(1))
        self.generator = torch.Generator().manual_seed(4)
        self.count = 0
        self.seen: list[Tensor] = []
        self.latest: deque[Tensor] = deque(maxlen=2)
        self.by_name: dict[str, Any] = {"a": 1}
        self.names = {"x"}
        self.hook_calls = 0
        self.conv.register_forward_hook(self.count_hook)
        self.last.register_forward_pre_hook(self.count_hook)

    def count_hook(self, *_: Any) -> None:
        self.hook_calls += 1

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.replaced = self.replaced + 1
        self.grown.resize_(3).fill_(7)
        self.count += 1
        self.new = "attribute"
        x = self.drop(self.unlisted[0](self.conv(x)))
        self.seen.append(x)
        self.latest.append(x)
        self.by_name["a"] = x
        self.names.add("y")
        self.by_name = {}
        x = x + torch.randn_like(x) * np.random.rand() * random.random()
        x = x + torch.rand(x.shape, generator=self.generator)
        self.norm.running_mean.mul_(2)
        self.train()
        self.norm = nn.BatchNorm2d(4)
        if self.fails is not None:
            raise self.fails("in the middle")
        return self.last(x)


def whole_state_of(model: nn.Module) -> dict[str, Any]:
    """Return the state of a model, torch and the random generators: tensors by value, other
    objects by identity.
    """
    plain: dict[str, Any] = {}
    for name, module in model.named_modules():
        plain |= {f"{name}.{key}": id(value) for key, value in vars(module).items()}
        for key, value in vars(module).items():
            if isinstance(value, list | deque | set):
                plain[f"{name}.{key}[]"] = [id(inner) for inner in sorted(value, key=id)]
            elif isinstance(value, dict):
                plain[f"{name}.{key}[]"] = [(key, id(inner)) for key, inner in value.items()]
        plain[f"{name} mode"] = module.training
    return {
        "plain": plain,
        "values": {n: t.clone() for n, t in [*model.named_parameters(), *model.named_buffers()]},
        "grads": {
            n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()
        },
        "needs": {n: p.requires_grad for n, p in model.named_parameters()},
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
        "own": model.generator.get_state() if hasattr(model, "generator") else None,
        "modes": (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.get_autocast_dtype("cpu"),
            torch.is_autocast_cache_enabled(),
        ),
    }


def assert_same(before: Any, after: Any, path: str = "") -> None:
    if isinstance(before, dict):
        assert before.keys() == after.keys(), path
        for key in before:
            assert_same(before[key], after[key], f"{path}/{key}")
    elif isinstance(before, Tensor):
        assert torch.equal(before, after), path
    else:
        assert before == after, path


@pytest.mark.parametrize("fails", [None, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("layers", ["*", "conv"])
@pytest.mark.parametrize("is_autocast", [False, True])
def test_all_side_effects_are_undone(
    fails, is_training: bool, layers: str, is_autocast: bool
) -> None:
    torch.manual_seed(1)
    net = ChangesItself(fails).train(is_training)
    net.drop.train(not is_training)
    net.conv.weight.grad = torch.randn_like(net.conv.weight)
    net.last.bias.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
        before = whole_state_of(net)
        if fails is KeyboardInterrupt and layers == "*":
            with pytest.raises(KeyboardInterrupt):
                run_on_probe(net, layers)
        else:
            found = run_on_probe(net, layers)
            assert "conv" in found.maps
            assert ("last" in found.maps) == (layers == "*" and fails is None)
        assert_same(before, whole_state_of(net))


def test_the_next_training_steps_are_the_same() -> None:
    results = []
    for repetitions in (0, 3):
        torch.manual_seed(1)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=2),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 6, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Conv2d(6, 4, 3, dilation=2),
            nn.Flatten(),
            nn.LazyLinear(2),
        )
        images = torch.randn(4, 3, 20, 24)
        net(images)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            for _ in range(repetitions):
                run_on_probe(net)
            optimizer.zero_grad()
            net(images).square().mean().backward()
            optimizer.step()
        results.append({**net.state_dict(), "next": torch.rand(3)})
    assert_same(*results)


def test_a_tensor_that_the_model_creates_and_keeps_can_be_used_in_training() -> None:
    """Such a tensor must not be created in inference mode."""

    class Cached(nn.Module):
        made: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            if Cached.made is None:
                Cached.made = torch.ones(1)
            return x * Cached.made

    net = nn.Sequential(nn.Conv2d(3, 4, 3), Cached(), nn.Conv2d(4, 4, 3))
    run_on_probe(net)
    assert Cached.made is not None
    net(PROBE[None]).sum().backward()


def test_a_scripted_module_keeps_its_mode_and_buffers() -> None:
    inner = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        scripted = torch.jit.script(inner)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), scripted, nn.Conv2d(4, 4, 3)).train()
    before = scripted.state_dict()["1.running_mean"].clone()
    found = run_on_probe(net)
    assert set(found.maps) == {"0", "2"}
    assert scripted.training
    assert all(module.training for module in scripted.modules())
    assert torch.equal(scripted.state_dict()["1.running_mean"], before)

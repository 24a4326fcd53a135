"""A forward pass that changes everything at once leaves no trace."""

import random
import warnings
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from probe_runs import PROBE, run_on_probe
from torch import Tensor, nn


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

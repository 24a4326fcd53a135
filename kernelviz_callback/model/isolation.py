"""A model that is run once more than the training runs it, and is as if it had not been."""

import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Hooks of torch's own that derive a layer's weights: weight norm, spectral norm, pruning.
_DERIVING = "torch.nn.utils"
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks")
_CONTAINERS = (list, dict, OrderedDict, defaultdict, Counter, set, deque)
_COLLECTIVES = ("c10d", "_c10d_functional", "_c10d_functional_autograd", "c10d_functional")


class AsksOthers(BaseException):
    """The model began to talk to other processes. No model catches it, as some do `Exception`."""


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Prepare a model to be run by the body, and undo after it whatever either has done to it.

    In the body all modules are in evaluation mode, without hooks but those of torch's own that
    derive weights, and what a ``LightningModule`` says to ``self.log`` is not heard. Afterwards,
    also after an exception, these are as before: modes, hooks, gradients, attributes of modules and
    what lists, dicts, sets and deques in them hold, every tensor that torch wrote to, wherever it
    is kept, and the random numbers of torch, numpy, Python and of generators that modules have.

    Raises:
        AsksOthers: From the body, at the first operation that waits for other processes.
    """
    with _same_random_numbers(model), _same_tensors(model), _same_attributes(model), _no_hooks():
        for module in model.modules():
            module.training = False  # not `eval`: a model may have its own, with effects
            for name in _HOOKS:
                hooks = getattr(module, name)
                kept = {key: hook for key, hook in hooks.items() if _derives_weights(hook)}
                vars(module)[name] = OrderedDict(kept)
            if any(kind.__name__ == "LightningModule" for kind in type(module).__mro__):
                vars(module).update(log=_unheard, log_dict=_unheard)
        yield


class _Guard(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps a copy of whatever is older than itself before it is written to."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._made: set[int] = set()  # addresses
        self._saved: dict[int, tuple[Any, Any]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func.namespace in _COLLECTIVES:
            raise AsksOthers(str(func))
        given = dict(zip((a.name for a in func._schema.arguments), args, strict=False))
        given |= kwargs or {}
        for argument in func._schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in _tensors(given.get(argument.name)):
                    self._save(tensor)
        result = func(*args, **(kwargs or {}))
        if all(returned.alias_info is None for returned in func._schema.returns):
            self._made.update(_address(tensor) for tensor in _tensors(result))
        return result

    def restore(self) -> None:
        """Put everything back as it was."""
        for storage, saved in self._saved.values():
            if storage.nbytes() != saved.nbytes():
                storage.resize_(saved.nbytes())
            storage.copy_(saved)

    def _save(self, tensor: Tensor) -> None:
        address = _address(tensor)
        if address and address not in self._made and address not in self._saved:
            storage = tensor.untyped_storage()
            self._saved[address] = storage, storage.clone()  # type: ignore[no-untyped-call]


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _address(tensor: Tensor) -> int:
    """Of the memory that it is a view of; 0 of one that has none."""
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else 0


@contextmanager
def _same_tensors(model: nn.Module) -> Iterator[None]:
    """Put back values, and what parameters and buffers are: a ``p.data = ...`` is no operation."""
    before = [(t, t.detach()) for t in (*model.parameters(), *model.buffers())]
    gradients = [(p, p.grad) for p in model.parameters()]
    guard = _Guard()
    try:
        with guard:
            yield
    finally:
        guard.restore()
        for tensor, saved in before:
            if _place(tensor) != _place(saved):
                with torch.inference_mode(tensor.is_inference()):
                    tensor.data = saved
        for parameter, gradient in gradients:
            if parameter.grad is not gradient:
                parameter.grad = gradient


def _place(tensor: Tensor) -> tuple[Any, ...]:
    if tensor.layout != torch.strided:
        return (tensor.shape,)
    return tensor.data_ptr(), tensor.shape, tensor.stride()


@contextmanager
def _no_hooks() -> Iterator[None]:
    """Without the hooks that are called for every module there is."""
    with ExitStack() as restoring:
        for name in _GLOBAL_HOOKS:
            hooks = getattr(torch_module, name)
            restoring.callback(hooks.update, dict(hooks))
            hooks.clear()
        yield


def _derives_weights(hook: object) -> bool:
    return any(kind.__module__.startswith(_DERIVING) for kind in type(hook).__mro__)


def _unheard(*_: Any, **__: Any) -> None:
    """In place of `self.log`: what is said here would be averaged with what training says."""


@contextmanager
def _same_attributes(model: nn.Module) -> Iterator[None]:
    """Put back what modules are made of: attributes, modes, hooks, children, what lists hold."""
    modules = list(model.modules())
    modes = [module.training for module in modules]
    own = [(vars(module), dict(vars(module))) for module in modules]
    contents = [(value, copy(value)) for value in _containers([saved for _, saved in own])]
    try:
        yield
    finally:
        for attributes, saved in own:
            for name in attributes.keys() - saved.keys():
                del attributes[name]
            attributes.update(saved)
        for container, saved in contents:
            if not _is_same(container, saved):
                container.clear()
                container.extend(saved) if hasattr(container, "extend") else container.update(saved)
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def _containers(dicts: list[dict[str, Any]]) -> list[Any]:
    """What the values hold and what that holds, each once."""
    found: dict[int, Any] = {}
    waiting: list[Any] = [value for each in dicts for value in each.values()]
    while waiting:
        value = waiting.pop()
        if type(value) in _CONTAINERS and id(value) not in found:
            found[id(value)] = value
            waiting.extend(value.values() if isinstance(value, dict) else value)
    return list(found.values())


def _is_same(container: Any, saved: Any) -> bool:
    if isinstance(container, set) or len(container) != len(saved):
        return bool(container == saved)
    if isinstance(container, dict):
        container, saved = ([*d.keys(), *d.values()] for d in (container, saved))
    return all(a is b for a, b in zip(container, saved, strict=True))


@contextmanager
def _same_random_numbers(model: nn.Module) -> Iterator[None]:
    devices = {p.device for p in model.parameters() if p.is_cuda}
    own = [v for m in model.modules() for v in vars(m).values() if isinstance(v, torch.Generator)]
    states = [generator.get_state() for generator in own]
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(sorted(devices, key=str)):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        for generator, state in zip(own, states, strict=True):
            generator.set_state(state)

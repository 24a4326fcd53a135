"""Run a model and undo every side effect of the run, so that the training does not change."""

import random
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kernelviz_callback.model.held_state import HeldState, NotRestorable

# The module of torch's hooks that derive the weights of a layer: weight norm, spectral norm and
# pruning.
_WEIGHT_HOOKS_MODULE = "torch.nn.utils"
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks")
# Namespaces of torch's operations that communicate with other processes.
_COLLECTIVES = ("c10d", "_c10d_functional", "_c10d_functional_autograd", "c10d_functional")


class CollectiveOperation(BaseException):
    """Raised when the model starts an operation that waits for other processes.

    It is not an `Exception`, because some models catch every `Exception` in their forward pass.
    """


@contextmanager
def isolated_run(
    model: nn.Module, device: torch.device, *, hooks_of: nn.Module | None = None
) -> Iterator[None]:
    """Run a model in the body of ``with``, without gradients and autocast, and leave no trace.

    Nothing is compiled, because inputs of another shape would recompile the model.

    Args:
        model: The model, in any mode.
        device: The device of its parameters.
        hooks_of: See `undo_side_effects`.

    Raises:
        NotRestorable: Before the body, if the model holds an object that cannot be restored.
        CollectiveOperation: From the body, at the first operation that waits for other processes.
    """
    with (
        undo_side_effects(model, hooks_of=hooks_of),
        _without_compiling(),
        torch.no_grad(),
        torch.autocast(device.type, enabled=False),
    ):
        yield


def why_run_failed(error: BaseException, shape: Sequence[int]) -> str:
    """Say why a model did not call a layer in `isolated_run`.

    Args:
        error: What the run raised.
        shape: Shape of the images that the model was to read.
    """
    if isinstance(error, NotRestorable):
        return f"the model cannot be run without a trace: {error}"
    if isinstance(error, CollectiveOperation):
        return f"the model waits for other processes ({error}), which do not run it now"
    return (
        f"the model failed on images of shape {tuple(shape)} before calling it: "
        f"{type(error).__name__}: {error}"
    )


@contextmanager
def undo_side_effects(model: nn.Module, *, hooks_of: nn.Module | None = None) -> Iterator[None]:
    """Prepare a model for a run in the body of ``with``, and undo every change after the body.

    In the body all modules are in evaluation mode. They have no hooks, except torch's hooks that
    derive weights. ``self.log`` of a ``LightningModule`` does nothing. After the body, also after
    an exception, the following are as before: the modes, hooks and gradients; the objects that the
    model holds, see `HeldState`; every tensor that torch wrote to, also a tensor outside the model;
    and the random number generators of torch, numpy and Python. What the model prints or writes to
    a log or a file stays, and so do changes of classes and of global variables.

    Args:
        model: The model, in any mode.
        hooks_of: The module that keeps all its hooks.

    Raises:
        NotRestorable: Before the body, if the model holds an object that cannot be restored.
        CollectiveOperation: From the body, at the first operation that waits for other processes.
    """
    held = HeldState(model, hooks_of=hooks_of)
    with (
        _restore_random_state(model),
        _restore_tensors(model, held.tensors),
        _restore_held_state(model, held),
        _disable_global_hooks(),
    ):
        for module in model.modules():
            module.training = False  # a model may override `eval` with side effects
            for name in _HOOKS if module is not hooks_of else ():
                hooks = getattr(module, name)
                kept = {key: hook for key, hook in hooks.items() if derives_weights(hook)}
                vars(module)[name] = OrderedDict(kept)
            if any(kind.__name__ == "LightningModule" for kind in type(module).__mro__):
                vars(module).update(log=_ignore_log, log_dict=_ignore_log)
        yield


def derives_weights(hook: object) -> bool:
    """Whether a hook is one of torch's that derive the weights of a layer."""
    return any(kind.__module__.startswith(_WEIGHT_HOOKS_MODULE) for kind in type(hook).__mro__)


def _without_compiling() -> AbstractContextManager[Any]:
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and the import takes a second
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


class _WrittenTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Copies a tensor before the first write to it, unless the tensor was created in this mode."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._created: set[int] = set()  # addresses of memory
        self._saved: dict[int, tuple[Any, Any]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func.namespace in _COLLECTIVES:
            raise CollectiveOperation(str(func))
        values = dict(zip((a.name for a in func._schema.arguments), args, strict=False))
        values |= kwargs or {}
        for argument in func._schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in _tensors(values.get(argument.name)):
                    self._save(tensor)
        result = func(*args, **(kwargs or {}))
        if all(returned.alias_info is None for returned in func._schema.returns):
            self._created.update(_address(tensor) for tensor in _tensors(result))
        return result

    def restore(self) -> None:
        """Give every copied tensor its saved values and size."""
        for storage, saved in self._saved.values():
            if storage.nbytes() != saved.nbytes():
                storage.resize_(saved.nbytes())
            storage.copy_(saved)

    def _save(self, tensor: Tensor) -> None:
        address = _address(tensor)
        if address and address not in self._created and address not in self._saved:
            storage = tensor.untyped_storage()
            self._saved[address] = storage, storage.clone()  # type: ignore[no-untyped-call]


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _address(tensor: Tensor) -> int:
    """Return the address of the memory that a tensor is a view of, or 0 if it has no strides."""
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else 0


@contextmanager
def _restore_tensors(model: nn.Module, held: Sequence[Tensor]) -> Iterator[None]:
    """Restore the values of tensors, the memory of parameters and buffers, and the gradients.

    The memory is restored separately, because torch does not report ``p.data = ...`` as an
    operation.
    """
    own = {id(t): t for t in held if t.layout == torch.strided}
    own |= {id(t): t for t in (*model.parameters(), *model.buffers())}
    before = [(t, t.detach()) for t in own.values()]
    gradients = [(t, t.grad) for t in own.values() if t.is_leaf]
    written = _WrittenTensors()
    try:
        with written:
            yield
    finally:
        written.restore()
        for tensor, saved in before:
            if _memory_layout(tensor) != _memory_layout(saved):
                with torch.inference_mode(tensor.is_inference()):
                    tensor.data = saved
        for tensor, gradient in gradients:
            if tensor.grad is not gradient:
                tensor.grad = gradient


def _memory_layout(tensor: Tensor) -> tuple[Any, ...]:
    if tensor.layout != torch.strided:
        return (tensor.shape,)
    return tensor.data_ptr(), tensor.shape, tensor.stride()


@contextmanager
def _disable_global_hooks() -> Iterator[None]:
    """Remove the hooks that torch calls for every module, and put them back afterwards."""
    with ExitStack() as restoring:
        for name in _GLOBAL_HOOKS:
            hooks = getattr(torch_module, name)
            restoring.callback(hooks.update, dict(hooks))
            hooks.clear()
        yield


def _ignore_log(*_: Any, **__: Any) -> None:
    """Replace ``self.log``: Lightning would average the logged values with those of training."""


@contextmanager
def _restore_held_state(model: nn.Module, held: HeldState) -> Iterator[None]:
    """Restore the objects that the model holds, and the modes of its modules."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        try:
            held.restore()
        finally:
            for module, mode in modes:
                module.training = mode


@contextmanager
def _restore_random_state(model: nn.Module) -> Iterator[None]:
    devices = {p.device for p in model.parameters() if p.is_cuda}
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(sorted(devices, key=str)):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)

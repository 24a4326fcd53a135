"""Save the state of all objects that a model holds, and restore it after a run."""

import datetime
import decimal
import enum
import operator
import pathlib
import random
import re
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_MOST_OBJECTS = 2**20
_MOST_BYTES = 2**26  # in an array
# Values that do not change, values that have no state, and values of which only others follow.
_FIXED = (
    *(bool, int, float, complex, str, bytes, range, slice, type, types.ModuleType, types.CodeType),
    *(type(None), type(...), type(NotImplemented), property, staticmethod, classmethod),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
    *(np.generic, np.dtype, np.ufunc, re.Pattern, enum.Enum, pathlib.PurePath, decimal.Decimal),
    *(operator.itemgetter, operator.attrgetter, operator.methodcaller),
    *(datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo, random.SystemRandom),
)
_METHODS = (types.MethodType, types.BuiltinMethodType, types.MethodWrapperType)
# Modules of classes whose objects are left alone: a run of a model does not change them, or only
# writes messages with them.
_LEFT_ALONE = re.compile(
    r"(lightning|pytorch_lightning|lightning_fabric|logging|_thread)\b"
    r"|torch\.(_|fx\b|distributed\b|jit\b)"
)
# Modules of classes whose objects other threads and processes change at the same time.
_SHARED = re.compile(r"(threading|queue|concurrent|multiprocessing|asyncio|socket|subprocess)\b")


class NotRestorable(Exception):
    """Raised if a model holds an object that cannot be restored. The message is the reason."""


class HeldState:
    """The state of all objects that can be reached from the attributes of a model.

    These are its modules; containers; the random number generators of torch, numpy and Python;
    numpy arrays; objects of classes written in Python; and the variables that its functions have
    taken from other functions. Not followed are the trainer and the loggers, hooks, classes, and
    the global variables of Python modules.

    Args:
        model: The model.
        hooks_of: The module whose hooks will be called.

    Attributes:
        tensors: The tensors that were found. They are not saved.

    Raises:
        NotRestorable: If there is an object of another kind.
    """

    def __init__(self, model: nn.Module, *, hooks_of: nn.Module | None = None) -> None:
        self.tensors: list[Tensor] = []
        self._hooks_of = hooks_of
        self._restoring = ExitStack()
        self._seen: dict[int, Any] = {}
        self._waiting: list[tuple[Any, str]] = [(model, type(model).__name__)]
        where = ""
        try:
            while self._waiting:
                value, where = self._waiting.pop()
                if id(value) not in self._seen:
                    self._seen[id(value)] = value
                    self._save(value, where)
                if len(self._seen) > _MOST_OBJECTS:
                    raise NotRestorable(f"{where} holds too many objects to restore them")
        except NotRestorable:
            raise
        except Exception as error:
            raise NotRestorable(
                f"the state of {where} cannot be saved: {type(error).__name__}: {error}"
            ) from error

    def restore(self) -> None:
        """Restore what has changed. All is restored also if a part fails."""
        self._restoring.close()

    def _follow(self, values: Iterable[Any], where: str) -> None:
        self._waiting += [(v, where) for v in values if not isinstance(v, _FIXED)]

    def _undo(self, function: Callable[..., Any], *args: Any) -> None:
        self._restoring.callback(function, *args)

    def _save(self, value: Any, where: str) -> None:
        kind = type(value)
        if isinstance(value, _FIXED):
            return
        if isinstance(value, Tensor):
            self.tensors.append(value)
        elif isinstance(value, nn.Module):
            self._save_module(value)
        elif isinstance(value, types.FunctionType):
            if not str(value.__module__).startswith("torch."):
                given = [value.__defaults__, value.__kwdefaults__, vars(value)]
                self._follow([*given, *(value.__closure__ or ())], where)
        elif isinstance(value, types.CellType):
            self._save_cell(value, where)
        elif isinstance(value, _METHODS):
            self._follow([value.__self__, getattr(value, "__func__", None)], where)
        elif isinstance(value, partial):
            self._follow([value.func, value.args, value.keywords, vars(value)], where)
        elif isinstance(value, weakref.ref):
            self._follow([value()], where)
        elif isinstance(value, types.MappingProxyType):
            self._follow(dict(value).values(), where)
        elif isinstance(value, tuple | frozenset):
            self._follow(value, where)
        elif self._save_generator(value) or self._save_container(value, where):
            self._save_attributes(value, where)
        elif any(_LEFT_ALONE.match(each.__module__) for each in kind.__mro__):
            return
        elif _is_written_in_python(kind) and not _SHARED.match(kind.__module__):
            self._save_attributes(value, where)
        elif kind.__module__.partition(".")[0] != "torch":
            raise NotRestorable(f"{where} holds a {kind.__name__}, which cannot be restored")

    def _save_module(self, module: nn.Module) -> None:
        attributes = vars(module)
        self._undo(_restore_attributes, attributes, dict(attributes))
        for name, value in attributes.items():
            where = f"{type(module).__name__}.{name}"
            if "_hooks" in name and isinstance(value, dict) and module is not self._hooks_of:
                self._undo(_restore_dict, value, dict(value))
            else:
                self._follow([value], where)

    def _save_attributes(self, value: Any, where: str) -> None:
        attributes = getattr(value, "__dict__", None)
        if isinstance(attributes, dict):
            self._undo(_restore_attributes, attributes, dict(attributes))
            self._follow(attributes.values(), where)
        for slot in _slots(type(value)):
            try:
                held = slot.__get__(value)
            except AttributeError:
                self._undo(_delete_slot, slot, value)
            else:
                self._undo(slot.__set__, value, held)
                self._follow([held], where)

    def _save_cell(self, cell: types.CellType, where: str) -> None:
        try:
            held = cell.cell_contents
        except ValueError:  # the variable has no value yet
            return
        self._undo(setattr, cell, "cell_contents", held)
        self._follow([held], where)

    def _save_generator(self, value: Any) -> bool:
        """Save a random number generator. Return False if the value is none."""
        if isinstance(value, torch.Generator):
            self._undo(value.set_state, value.get_state())
        elif isinstance(value, random.Random):
            self._undo(value.setstate, value.getstate())
        elif isinstance(value, np.random.RandomState):
            self._undo(value.set_state, value.get_state(legacy=False))
        elif isinstance(value, np.random.Generator | np.random.BitGenerator):
            bits: Any = getattr(value, "bit_generator", value)
            self._undo(setattr, bits, "state", bits.state)
            self._save_generator(getattr(bits, "seed_seq", None))
        elif isinstance(value, np.random.SeedSequence):
            seeds: Any = value  # counts the generators that were spawned
            self._undo(seeds.__setstate__, seeds.__reduce__()[2])
        else:
            return False
        return True

    def _save_container(self, value: Any, where: str) -> bool:
        """Save what a container or an array holds. Return False if the value is none."""
        if isinstance(value, dict):
            saved = dict(value)
            self._undo(_restore_dict, value, saved)
            self._follow((*saved, *saved.values()), where)
        elif isinstance(value, list | deque):
            held = list(value)
            self._undo(_restore_list, value, held)
            self._follow(held, where)
        elif isinstance(value, set):
            members = set(value)
            self._undo(_restore_set, value, members)
            self._follow(members, where)
        elif isinstance(value, bytearray):
            self._undo(value.__setitem__, slice(None), bytes(value))
        elif isinstance(value, np.ndarray):
            if value.nbytes > _MOST_BYTES or value.dtype.hasobject:
                raise NotRestorable(f"{where} holds an array that is too large or holds objects")
            self._undo(_restore_array, value, value.copy())
        else:
            return False
        return True


def _is_written_in_python(kind: type) -> bool:
    """Whether attributes and slots are all that an object has: no memory of compiled code."""
    pointers = sum(1 for _ in _slots(kind)) + (kind.__dictoffset__ > 0)
    pointers += kind.__weakrefoffset__ > 0
    size = object.__basicsize__ + pointers * np.dtype(np.intp).itemsize
    return kind.__basicsize__ <= size and not kind.__itemsize__


def _slots(kind: type) -> Iterable[types.MemberDescriptorType]:
    for each in kind.__mro__:
        if "__slots__" in vars(each):
            yield from (v for v in vars(each).values() if isinstance(v, types.MemberDescriptorType))


def _delete_slot(slot: types.MemberDescriptorType, value: Any) -> None:
    with suppress(AttributeError):  # it has still no value
        slot.__delete__(value)


def _restore_attributes(attributes: dict[str, Any], saved: dict[str, Any]) -> None:
    for name in attributes.keys() - saved.keys():
        del attributes[name]
    for name, value in saved.items():
        if name not in attributes or attributes[name] is not value:
            attributes[name] = value


def _restore_dict(value: dict[Any, Any], saved: dict[Any, Any]) -> None:
    now = dict(value)
    if not _is_same([*now, *now.values()], [*saved, *saved.values()]):
        kind = OrderedDict if isinstance(value, OrderedDict) else dict
        kind.clear(value)
        for key, each in saved.items():
            kind.__setitem__(value, key, each)


def _restore_list(value: Any, saved: list[Any]) -> None:
    if not _is_same(list(value), saved):
        kind = list if isinstance(value, list) else deque
        kind.clear(value)
        kind.extend(value, saved)


def _restore_set(value: set[Any], saved: set[Any]) -> None:
    if value != saved:
        set.clear(value)
        set.update(value, saved)


def _restore_array(value: Any, saved: Any) -> None:
    if value.tobytes() != saved.tobytes():
        value[...] = saved


def _is_same(values: list[Any], saved: list[Any]) -> bool:
    return len(values) == len(saved) and all(a is b for a, b in zip(values, saved, strict=True))

"""What a pickle would do, found out without doing it.

torch's ``weights_only`` unpickler executes nothing, but a hostile file can still make it fill the
memory or never return, and it gives up at objects of unknown classes unless it is told what a
stand-in for them must be filled like. Both can be read off the opcodes beforehand.
"""

import pickletools
from collections.abc import Callable
from io import BytesIO
from math import prod
from typing import Any, BinaryIO, Literal, NamedTuple, TypeAlias

Filling: TypeAlias = Literal["object", "mapping", "sequence"]

# Hashing a tuple visits every path through it, and a few bytes a level double their number.
_DEEPEST_TUPLE = 32
# What these make is as large as the numbers they are called with.
_SIZED_BY_NUMBERS = ("bytearray", "Storage", "Tensor")
_MARK = object()


class _Name(str):
    """A class or function on the stack."""


class _Made(NamedTuple):
    """What a call of a class or function returned."""

    by: str


class _Tuple(NamedTuple):
    items: list[Any]
    depth: int


def survey_pickle(file: BinaryIO | bytes, *, size: int) -> dict[str, Filling]:
    """Follow the opcodes of one pickle, and read nothing beyond its end.

    Args:
        file: The pickle, or a file at its start.
        size: Of the file that it stands in, in bytes: who asks for more memory lies.

    Returns:
        The classes and functions that it names, as ``module.name``, to what is filled into the
        objects that they make: items of a mapping, of a sequence, or neither.

    Raises:
        ValueError: If it is no whole pickle, or one that nobody writes in good faith: calls of what
            is no class or function, more memory than the file has, tuples in tuples without end.

    Example:
        >>> import pickle
        >>> from collections import Counter
        >>> survey_pickle(pickle.dumps(Counter("abba")), size=100)
        {'collections.Counter': 'mapping'}
    """
    walk = _Walk(size)
    stream = BytesIO(file) if isinstance(file, bytes) else file
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            walk.take(opcode, argument)
    except IndexError:
        raise ValueError("a damaged pickle: it takes what it has not put down") from None
    return walk.found


class _Walk:
    """The stack of an unpickler, with descriptions in place of objects."""

    def __init__(self, size: int) -> None:
        self.found: dict[str, Filling] = {}
        self._size = size
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._actions: dict[str, Callable[[Any], None]] = {
            "MARK": lambda _: self._stack.append(_MARK),
            "GLOBAL": lambda name: self._name(name.replace(" ", ".", 1)),
            "STACK_GLOBAL": lambda _: self._name(".".join(map(str, self._pop(2)))),
            "EMPTY_TUPLE": lambda _: self._make_tuple([]),
            "TUPLE1": lambda _: self._make_tuple(self._pop(1)),
            "TUPLE2": lambda _: self._make_tuple(self._pop(2)),
            "TUPLE3": lambda _: self._make_tuple(self._pop(3)),
            "TUPLE": lambda _: self._make_tuple(self._pop_to_mark()),
            "REDUCE": lambda _: self._call(*self._pop(2)),
            "NEWOBJ": lambda _: self._call(*self._pop(2)),
            "NEWOBJ_EX": lambda _: self._call(*self._pop(3)),
            "SETITEM": lambda _: self._fill(self._pop(2), "mapping"),
            "SETITEMS": lambda _: self._fill(self._pop_to_mark(), "mapping"),
            "APPEND": lambda _: self._fill(self._pop(1), "sequence"),
            "APPENDS": lambda _: self._fill(self._pop_to_mark(), "sequence"),
            "DUP": lambda _: self._stack.append(self._stack[-1]),
            "MEMOIZE": lambda _: self._remember(len(self._memo)),
        }
        self._actions |= dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), self._remember)
        self._actions |= dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), self._recall)

    def take(self, opcode: Any, argument: Any) -> None:
        action = self._actions.get(opcode.name)
        if action is not None:
            action(argument)
            return
        if pickletools.markobject in opcode.stack_before:
            self._pop_to_mark()
            self._pop(opcode.stack_before.index(pickletools.markobject))
        else:
            self._pop(len(opcode.stack_before))
        known = argument if isinstance(argument, int | str) else None
        self._stack += [known] * len(opcode.stack_after)

    def _pop(self, count: int) -> list[Any]:
        if count > len(self._stack):
            raise IndexError
        popped = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return popped

    def _pop_to_mark(self) -> list[Any]:
        popped = []
        while (item := self._stack.pop()) is not _MARK:
            popped.append(item)
        return popped[::-1]

    def _name(self, name: str) -> None:
        self.found.setdefault(name, "object")
        self._stack.append(_Name(name))

    def _make_tuple(self, items: list[Any]) -> None:
        depth = 1 + max((item.depth for item in items if isinstance(item, _Tuple)), default=0)
        if depth > _DEEPEST_TUPLE:
            raise ValueError(f"a hostile pickle: tuples in tuples, {depth} deep")
        self._stack.append(_Tuple(items, depth))

    def _call(self, called: Any, *arguments: Any) -> None:
        if not isinstance(called, _Name):
            raise ValueError("a hostile pickle: it calls what is no class or function")
        if called.endswith(_SIZED_BY_NUMBERS):
            given = [x for a in arguments if isinstance(a, _Tuple) for x in a.items]
            given += [x for a in given if isinstance(a, _Tuple) for x in a.items]
            wanted = prod(max(1, x) for x in given if isinstance(x, int))
            if wanted > self._size:
                raise ValueError(
                    f"a hostile pickle: {called} of {wanted} in a file of {self._size} bytes"
                )
        self._stack.append(_Made(called))

    def _fill(self, filled: list[Any], filling: Filling) -> None:
        if isinstance(self._stack[-1], _Made):
            self.found[self._stack[-1].by] = filling

    def _remember(self, index: int) -> None:
        if index > self._size:
            raise ValueError(f"a hostile pickle: object {index} in a file of {self._size} bytes")
        self._memo[index] = self._stack[-1]

    def _recall(self, index: int) -> None:
        self._stack.append(self._memo.get(index))

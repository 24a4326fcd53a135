"""Read a pickle as plain data: no class in it is imported, and no function in it is called.

A pickle is a program for a stack machine. This module is a stack machine that cannot import modules
and cannot call functions. It makes dicts, lists, tuples, strings and numbers, and a `Placeholder`
for every other object. So it needs no list of safe classes, it reads files whose classes are not
installed, and its time and memory are limited by a `Budget`. torch's own ``weights_only`` unpickler
does not have such limits, and before torch 2.10 a file could make it corrupt memory
(CVE-2026-24747).
"""

import pickle
import pickletools
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from sys import getsizeof
from types import SimpleNamespace
from typing import Any, BinaryIO

from kernelviz_callback.checkpoints.byte_ranges import without_collection
from kernelviz_callback.checkpoints.dangerous_calls import danger_of
from kernelviz_callback.checkpoints.pickle_budget import Budget, RefusedError

_LONGEST_LINE = 1 << 16  # bytes of a line in a pickle of protocol 0
_LONGEST_NAME = 1_000  # characters of the name of a class or function
_LARGEST_KEY = 1 << 63  # a larger number is slow to hash
_MOST_DIMENSIONS = 64  # torch makes no tensor of more
_LARGEST_NUMBER = 1 << 62
_MOST_QUOTED = 60  # characters of a name in a message
# Bytes of memory, about: of a dict, list, tuple or placeholder; of an item of a dict or the memo.
_OBJECT = 200
_ENTRY = 64


class Name(str):
    """The name of a class or function in a file, as ``module.name``."""


@dataclass(eq=False, repr=False, slots=True)
class Placeholder:
    """An object that is not built, because that would need a call of a class or function.

    Attributes:
        name: Name of the class or function. Empty for a persistent id.
        arguments: Arguments of the call.
        state: The state of the object in the file, often a dict of its attributes.
        items: The items that the file adds to the object, if it is a mapping; of a subclass of
            list, its elements by their indices. If one of the first three arguments is a dict, its
            items are included. None if there are no items.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] | None = None


def read_pickle(file: BinaryIO, budget: Budget | None = None) -> tuple[Any, list[Any]]:
    """Read one pickle. The bytes after the end of the pickle are not read.

    Args:
        file: The file, at the first byte of the pickle.
        budget: What reading may cost; None for the usual limits.

    Returns:
        The object in the pickle, and the persistent ids in their order. The object consists of
        dicts, lists, tuples, strings, numbers, bytes, None, `Name` and `Placeholder`. A set becomes
        a list. In a dict, a key that is not a string, a whole number of at most 63 bits or a
        `Placeholder` becomes a `Placeholder` with the name ``""`` and the key as its argument. So
        does a persistent id.

    Raises:
        ValueError: If the pickle is damaged, calls a dangerous function, or costs too much.

    Example:
        >>> import pickle
        >>> from io import BytesIO
        >>> made, _ = read_pickle(BytesIO(pickle.dumps({"lr": 0.1, "by": complex(1, 2)})))
        >>> made["lr"], made["by"].name, made["by"].arguments
        (0.1, 'builtins.complex', (1.0, 2.0))
    """
    machine = _Machine(file, budget or Budget())
    try:
        with warnings.catch_warnings(), without_collection():
            warnings.simplefilter("ignore")  # Python warns of invalid escapes in strings
            return machine.run(), machine.persistent
    except RefusedError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, struct.error) as e:
        raise ValueError(
            "damaged: its pickle ends early or is not valid; download or copy it again"
        ) from e


def whole_numbers(node: Any) -> tuple[int, ...]:
    """Return the whole numbers in a tuple, list or ``torch.Size``, such as a shape.

    Raises:
        TypeError: If the node is something else, has more than 64 numbers, or a number is negative
            or has more than 62 bits.

    Example:
        >>> whole_numbers(Placeholder("torch.Size", ((8, 3),)))
        (8, 3)
    """
    numbers = whole_numbers_or_none(node, _MOST_DIMENSIONS)
    if numbers is None:
        raise TypeError(f"expected at most {_MOST_DIMENSIONS} whole numbers from 0")
    return numbers


def whole_numbers_or_none(node: Any, most: int) -> tuple[int, ...] | None:
    """Return what `whole_numbers` does, or None if the node is something else.

    Args:
        node: A node of a pickle.
        most: How many numbers it may have.
    """
    if isinstance(node, Placeholder) and len(node.arguments) == 1:
        (node,) = node.arguments
    if not isinstance(node, tuple | list) or len(node) > most:
        return None
    if not all(isinstance(n, int) and 0 <= n < _LARGEST_NUMBER for n in node):
        return None
    return tuple(node)


def text(value: Any) -> str:
    """Return the value if it is a string, such as a name or a key.

    Raises:
        TypeError: If it is anything else. It may be slow to compare or to print.
    """
    if not isinstance(value, str):
        raise TypeError("expected a string")
    return value


def quoted(name: str) -> str:
    r"""Quote a name from a file for a message: one short line without control characters.

    Example:
        >>> quoted("data\n")
        "'data\\n'"
    """
    return ascii(name if len(name) <= _MOST_QUOTED else f"{name[:_MOST_QUOTED]}...")


class _Machine:
    """The stack machine. Its state is the stack with its marks, the memo and the persistent ids."""

    def __init__(self, file: BinaryIO, budget: Budget) -> None:
        self.stack: list[Any] = []
        self.persistent: list[Any] = []
        self._read = file.read
        # The functions of pickletools that read the argument of an instruction use these two.
        self._file: Any = SimpleNamespace(
            read=file.read, readline=partial(file.readline, _LONGEST_LINE)
        )
        self._budget = budget
        self._outer: list[list[Any]] = []  # the items below each mark
        self._memo: dict[int, Any] = {}
        self._names: dict[tuple[str, str], Name] = {}
        self._dangers: dict[str, str] = {}

    def run(self) -> Any:
        """Execute the instructions until the end of the pickle, and return its object."""
        read, file, instructions = self._read, self._file, _INSTRUCTIONS
        for done in range(self._budget.instructions):
            code = read(1)
            if code == pickle.STOP:
                self._budget.instructions -= done
                return self.stack.pop()
            action, read_argument = instructions[code]
            action(self, None if read_argument is None else read_argument(file))
        raise self._budget.too_many_instructions()

    def sized(self, length: int, decode: Callable[[bytes], Any]) -> None:
        """Push a string, bytes or a large number of a known length."""
        self._budget.spend(length)
        content = self._read(length)
        if len(content) != length:
            raise ValueError("the pickle ends early")
        if not content.isascii():
            self._budget.spend(3 * length)  # a character may take four bytes
            self._budget.memory += 3 * length
        value = decode(content)
        self._budget.spend(max(0, getsizeof(value) - length))
        self.stack.append(value)

    def push(self, item: Any) -> None:
        self.stack.append(item)

    def make(self, made: Any) -> None:
        """Push an object that was made of others."""
        self._budget.spend(_OBJECT)
        self.stack.append(made)

    def mark(self) -> None:
        self._outer.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self._outer.pop()
        return items

    def last(self, count: int) -> list[Any]:
        items = self.stack[-count:]
        if len(items) != count:
            raise IndexError
        del self.stack[-count:]
        return items

    def call(self, called: Any, arguments: Any) -> None:
        """Push a placeholder for a call. It has the name "" if ``called`` is not a `Name`."""
        name = called if isinstance(called, Name) else ""
        danger = self._dangers.get(name)
        if danger is not None:
            raise RefusedError(
                f"hostile: it calls {quoted(name)}, which {danger}; no checkpoint needs that, and "
                "nothing was run"
            )
        given = arguments if isinstance(arguments, tuple) else (arguments,)
        # Old protocols pass the items of a dict subclass as an argument. Newer protocols add the
        # items after the call.
        items = next((argument for argument in given[:3] if isinstance(argument, dict)), None)
        self.make(Placeholder(name, given, items=items))

    def name(self, module: Any, name: Any) -> None:
        """Push a `Name`, the same object for the same name."""
        key = text(module), text(name)
        if key not in self._names:
            if len(module) + len(name) > _LONGEST_NAME:
                raise ValueError("the name of a class or function is too long")
            module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
            made = Name(".".join((module, name)))
            self._budget.spend(getsizeof(made))
            self._names[key] = made
            danger = danger_of(made)
            if danger is not None:
                self._dangers[made] = danger
        self.stack.append(self._names[key])

    def build(self, state: Any) -> None:
        if isinstance(self.stack[-1], Placeholder):
            self.stack[-1].state = state

    def extend(self, items: list[Any]) -> None:
        extended = self.stack[-1]
        if isinstance(extended, Placeholder):  # in the place of a subclass of list or set
            self._budget.spend(_ENTRY * len(items))
            extended.items = numbered = extended.items or {}
            numbered.update(enumerate(items, len(numbered)))
        else:
            extended.extend(items)

    def fill(self, items: list[Any]) -> None:
        filled = self.stack[-1]
        if isinstance(filled, Placeholder):
            filled.items = filled.items or {}
            filled = filled.items
        if len(items) % 2:
            raise IndexError
        self._budget.spend(_ENTRY * (len(items) // 2))
        pairs = zip(items[::2], items[1::2], strict=True)
        filled.update((key if _is_key(key) else Placeholder("", (key,)), v) for key, v in pairs)

    def make_dict(self, items: list[Any]) -> None:
        self.make({})
        self.fill(items)

    def persist(self, identity: Any) -> None:
        self.persistent.append(identity)
        self.make(Placeholder("", (identity,)))

    def remember(self, index: int) -> None:
        self._budget.spend(_ENTRY)
        self._memo[index] = self.stack[-1]

    def memoize(self) -> None:
        self.remember(len(self._memo))

    def recall(self, index: int) -> None:
        self.stack.append(self._memo[index])

    def call_since_mark(self) -> None:
        called, *arguments = self.since_mark()
        self.call(called, tuple(arguments))

    def call_named(self, called: str) -> None:
        arguments = self.since_mark()
        self.name(*called.split(" ", 1))
        self.call(self.stack.pop(), tuple(arguments))


def _is_key(key: Any) -> bool:
    """Whether a key of a dict is kept as it is. Keys of other types can be slow to hash."""
    return isinstance(key, str | Placeholder) or (isinstance(key, int) and abs(key) < _LARGEST_KEY)


_ACTIONS: dict[str, Callable[[_Machine, Any], object]] = {
    "PROTO": lambda m, a: None,
    "FRAME": lambda m, a: None,
    "NONE": lambda m, a: m.push(None),
    "NEWTRUE": lambda m, a: m.push(True),
    "NEWFALSE": lambda m, a: m.push(False),
    "EMPTY_LIST": lambda m, a: m.make([]),
    "EMPTY_SET": lambda m, a: m.make([]),
    "EMPTY_TUPLE": lambda m, a: m.make(()),
    "EMPTY_DICT": lambda m, a: m.make({}),
    "LIST": lambda m, a: m.make(m.since_mark()),
    "FROZENSET": lambda m, a: m.make(m.since_mark()),
    "DICT": lambda m, a: m.make_dict(m.since_mark()),
    "TUPLE": lambda m, a: m.make(tuple(m.since_mark())),
    "TUPLE1": lambda m, a: m.make(tuple(m.last(1))),
    "TUPLE2": lambda m, a: m.make(tuple(m.last(2))),
    "TUPLE3": lambda m, a: m.make(tuple(m.last(3))),
    "APPEND": lambda m, a: m.extend(m.last(1)),
    "APPENDS": lambda m, a: m.extend(m.since_mark()),
    "ADDITEMS": lambda m, a: m.extend(m.since_mark()),
    "SETITEM": lambda m, a: m.fill(m.last(2)),
    "SETITEMS": lambda m, a: m.fill(m.since_mark()),
    "GLOBAL": lambda m, a: m.name(*a.split(" ", 1)),
    "STACK_GLOBAL": lambda m, a: m.name(*m.last(2)),
    "REDUCE": lambda m, a: m.call(*m.last(2)),
    "NEWOBJ": lambda m, a: m.call(*m.last(2)),
    "NEWOBJ_EX": lambda m, a: m.call(*m.last(3)[:2]),
    "OBJ": lambda m, a: m.call_since_mark(),
    "INST": _Machine.call_named,
    "BUILD": lambda m, a: m.build(m.stack.pop()),
    "PERSID": _Machine.persist,
    "BINPERSID": lambda m, a: m.persist(m.stack.pop()),
    "MARK": lambda m, a: m.mark(),
    "POP": lambda m, a: m.stack.pop() if m.stack else m.since_mark(),
    "POP_MARK": lambda m, a: m.since_mark(),
    "DUP": lambda m, a: m.push(m.stack[-1]),
    "MEMOIZE": lambda m, a: m.memoize(),
    "PUT": _Machine.remember,
    "BINPUT": _Machine.remember,
    "LONG_BINPUT": _Machine.remember,
    "GET": _Machine.recall,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
}
# Instructions that push their argument: those whose argument has a length before it, with the bytes
# of that length and the function that decodes the argument, and the others.
_SIZED: dict[str, tuple[int, Callable[[bytes], Any]]] = {
    "SHORT_BINSTRING": (1, lambda content: content.decode("latin-1")),
    "BINSTRING": (4, lambda content: content.decode("latin-1")),
    "SHORT_BINBYTES": (1, bytes),
    "BINBYTES": (4, bytes),
    "BINBYTES8": (8, bytes),
    "BYTEARRAY8": (8, bytearray),
    "SHORT_BINUNICODE": (1, lambda content: content.decode("utf-8", "surrogatepass")),
    "BINUNICODE": (4, lambda content: content.decode("utf-8", "surrogatepass")),
    "BINUNICODE8": (8, lambda content: content.decode("utf-8", "surrogatepass")),
    "LONG1": (1, pickle.decode_long),
    "LONG4": (4, pickle.decode_long),
}
_PUSHED = ("INT", "BININT", "BININT1", "BININT2", "LONG", "FLOAT", "BINFLOAT", "STRING", "UNICODE")


def _sized_instruction(width: int, decode: Callable[[bytes], Any]) -> Any:
    def push(machine: _Machine, length: int) -> None:
        machine.sized(length, decode)

    return push, lambda file: int.from_bytes(_exactly(file, width), "little")


def _exactly(file: Any, length: int) -> bytes:
    content: bytes = file.read(length)
    if len(content) != length:
        raise ValueError("the pickle ends early")
    return content


def _instructions() -> dict[bytes, Any]:
    """Map each code to its action and the function that reads its argument, or None."""
    found = {}
    for opcode in pickletools.opcodes:
        code = opcode.code.encode("latin-1")
        action = _Machine.push if opcode.name in _PUSHED else _ACTIONS.get(opcode.name)
        if opcode.name in _SIZED:
            found[code] = _sized_instruction(*_SIZED[opcode.name])
        elif action is not None:
            found[code] = action, None if opcode.arg is None else opcode.arg.reader
    return found


_INSTRUCTIONS = _instructions()

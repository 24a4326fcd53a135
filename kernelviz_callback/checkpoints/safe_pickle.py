"""Read a pickle as plain data: no class in it is imported, and no function in it is called.

A pickle is a program for a stack machine. This module is a stack machine that cannot import modules
and cannot call functions. It makes dicts, lists, tuples, strings and numbers, and a `Placeholder`
for every other object. So it needs no list of safe classes, it reads files whose classes are not
installed, and its memory is limited by the size of the file. torch's own ``weights_only`` unpickler
does not have this limit, and before torch 2.10 a file could make it corrupt memory
(CVE-2026-24747).
"""

import pickletools
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from kernelviz_callback.checkpoints.dangerous_calls import danger_of

# A pickle with this many instructions is read in some seconds. The pickle in the checkpoint of a
# large network has a hundredth of this number.
_MOST_INSTRUCTIONS = 5_000_000
HOSTILE = "hostile"  # the first word of the error of a pickle that calls a dangerous function
_LONGEST_NAME = 1_000  # characters of the name of a class or function
_MOST_QUOTED = 60  # characters of a name in a message
# An instruction that only pushes its argument has one of these words in its name.
_CONSTANTS = ("INT", "LONG", "FLOAT", "STRING", "BYTES", "BYTEARRAY", "UNICODE")


class _RefusedError(ValueError):
    """An error whose message is shown to the user as it is."""


class Name(str):
    """The name of a class or function in a file, as ``module.name``."""


@dataclass(eq=False, repr=False, slots=True)
class Placeholder:
    """An object that is not built, because that would need a call of a class or function.

    Attributes:
        name: Name of the class or function. Empty for a persistent id.
        arguments: Arguments of the call.
        state: The state of the object in the file, often a dict of its attributes.
        items: The items that the file adds to the object, if it is a mapping. If one of the first
            three arguments is a dict, its items are included. None if there are no items.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] | None = None


def read_pickle(file: BinaryIO) -> tuple[Any, list[Any]]:
    """Read one pickle. The bytes after the end of the pickle are not read.

    Args:
        file: The file, at the first byte of the pickle.

    Returns:
        The object in the pickle, and the persistent ids in their order. The object consists of
        dicts, lists, tuples, strings, numbers, bytes, None, `Name` and `Placeholder`. A set becomes
        a list. A dict keeps only the items whose key is a string, a whole number of
        at most 62 bits, or a `Placeholder`. A persistent
        id becomes a `Placeholder` with the name ``""`` and the id as its argument.

    Raises:
        ValueError: If the pickle is damaged, calls a function that can run programs, or has too
            many instructions.

    Example:
        >>> import pickle
        >>> from io import BytesIO
        >>> made, _ = read_pickle(BytesIO(pickle.dumps({"lr": 0.1, "by": complex(1, 2)})))
        >>> made["lr"], made["by"].name, made["by"].arguments
        (0.1, 'builtins.complex', (1.0, 2.0))
    """
    machine = _Machine()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns of invalid escapes in strings
            for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
                if count == _MOST_INSTRUCTIONS:
                    raise _RefusedError(f"its pickle has more than {count:,} instructions")
                machine.execute(opcode.name, argument)
        return machine.stack.pop(), machine.persistent
    except _RefusedError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, struct.error) as e:
        raise ValueError("damaged: its pickle ends early or is not valid") from e


def whole_numbers(node: Any) -> tuple[int, ...]:
    """Return the integers in a tuple, list or ``torch.Size``.

    Raises:
        TypeError: If the node is something else, or an integer has more than 62 bits.
        ValueError: If the node is a placeholder without exactly one argument.

    Example:
        >>> whole_numbers(Placeholder("torch.Size", ((8, 3),)))
        (8, 3)
    """
    (numbers,) = node.arguments if isinstance(node, Placeholder) else (node,)
    if not all(isinstance(n, int) and abs(n) < 1 << 62 for n in numbers):
        raise TypeError("expected whole numbers")
    return tuple(numbers)


def quoted(name: str) -> str:
    r"""Quote a name from a file for a message: one short line without control characters.

    Example:
        >>> quoted("data\n")
        "'data\\n'"
    """
    return ascii(name if len(name) <= _MOST_QUOTED else f"{name[:_MOST_QUOTED]}...")


def _is_quick_to_hash(key: Any) -> bool:
    is_short_number = isinstance(key, int) and abs(key) < 1 << 62
    return is_short_number or isinstance(key, str | Placeholder)


class _Machine:
    """The stack machine. Its state is the stack with its marks, the memo and the persistent ids."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.persistent: list[Any] = []
        self._outer: list[list[Any]] = []  # the items below each mark
        self._memo: dict[int, Any] = {}

    def execute(self, instruction: str, argument: Any) -> None:
        action = _ACTIONS.get(instruction)
        if action is not None:
            action(self, argument)
        elif any(kind in instruction for kind in _CONSTANTS):
            self.stack.append(argument)
        else:
            raise ValueError(f"unexpected instruction {instruction}")

    def push(self, item: Any) -> None:
        self.stack.append(item)

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
        danger = danger_of(name)
        if danger is not None:
            raise _RefusedError(
                f"{HOSTILE}: it calls {quoted(name)}, which {danger}; no checkpoint needs that, "
                "and nothing was run"
            )
        given = arguments if isinstance(arguments, tuple) else (arguments,)
        # Old protocols pass the items of a dict subclass as an argument. Newer protocols add the
        # items after the call.
        items = next((argument for argument in given[:3] if isinstance(argument, dict)), None)
        self.stack.append(Placeholder(str(name), given, items=items))

    def name(self, module: str, name: str) -> None:
        if len(module) + len(name) > _LONGEST_NAME:
            raise ValueError("the name of a class or function is too long")
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        self.stack.append(Name(".".join((module, name))))

    def build(self, state: Any) -> None:
        if isinstance(self.stack[-1], Placeholder):
            self.stack[-1].state = state

    def extend(self, items: list[Any]) -> None:
        extended = self.stack[-1]
        # A placeholder here replaces a subclass of list or set. These never hold weights, so their
        # items are dropped.
        if not isinstance(extended, Placeholder):
            extended.extend(items)

    def fill(self, items: list[Any]) -> None:
        filled = self.stack[-1]
        if isinstance(filled, Placeholder):
            filled.items = filled.items or {}
            filled = filled.items
        # An item with another key is dropped, because the key can be slow to hash.
        if len(items) % 2:
            raise IndexError
        pairs = zip(items[::2], items[1::2], strict=True)
        filled.update(pair for pair in pairs if _is_quick_to_hash(pair[0]))

    def make_dict(self, items: list[Any]) -> None:
        self.stack.append({})
        self.fill(items)

    def persist(self, identity: Any) -> None:
        self.persistent.append(identity)
        self.stack.append(Placeholder("", (identity,)))

    def remember(self, index: int) -> None:
        self._memo[index] = self.stack[-1]

    def memoize(self) -> None:
        self._memo[len(self._memo)] = self.stack[-1]

    def recall(self, index: int) -> None:
        self.stack.append(self._memo[index])

    def call_since_mark(self, *called: Any) -> None:
        called, *arguments = *called, *self.since_mark()
        self.call(called, tuple(arguments))


_ACTIONS: dict[str, Callable[[_Machine, Any], object]] = {
    "PROTO": lambda m, a: None,
    "FRAME": lambda m, a: None,
    "STOP": lambda m, a: None,
    "NONE": lambda m, a: m.push(None),
    "NEWTRUE": lambda m, a: m.push(True),
    "NEWFALSE": lambda m, a: m.push(False),
    "EMPTY_LIST": lambda m, a: m.push([]),
    "EMPTY_SET": lambda m, a: m.push([]),
    "EMPTY_TUPLE": lambda m, a: m.push(()),
    "EMPTY_DICT": lambda m, a: m.push({}),
    "LIST": lambda m, a: m.push(m.since_mark()),
    "FROZENSET": lambda m, a: m.push(m.since_mark()),
    "DICT": lambda m, a: m.make_dict(m.since_mark()),
    "TUPLE": lambda m, a: m.push(tuple(m.since_mark())),
    "TUPLE1": lambda m, a: m.push(tuple(m.last(1))),
    "TUPLE2": lambda m, a: m.push(tuple(m.last(2))),
    "TUPLE3": lambda m, a: m.push(tuple(m.last(3))),
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
    "INST": lambda m, a: m.call_since_mark(Name(a.replace(" ", ".", 1))),
    "BUILD": lambda m, a: m.build(m.stack.pop()),
    "PERSID": lambda m, a: m.persist(a),
    "BINPERSID": lambda m, a: m.persist(m.stack.pop()),
    "MARK": lambda m, a: m.mark(),
    "POP": lambda m, a: m.stack.pop() if m.stack else m.since_mark(),
    "POP_MARK": lambda m, a: m.since_mark(),
    "DUP": lambda m, a: m.push(m.stack[-1]),
    "MEMOIZE": lambda m, a: m.memoize(),
    "PUT": lambda m, a: m.remember(a),
    "BINPUT": lambda m, a: m.remember(a),
    "LONG_BINPUT": lambda m, a: m.remember(a),
    "GET": lambda m, a: m.recall(a),
    "BINGET": lambda m, a: m.recall(a),
    "LONG_BINGET": lambda m, a: m.recall(a),
}

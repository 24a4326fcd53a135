"""A pickle read as plain data: no class in it is looked up, and nothing in it is called.

A pickle is a program for a stack machine. This is such a machine without the instructions to import
and to call: it makes dicts, lists, tuples, strings and numbers, and a `StandIn` in place of every
object. So it needs no list of what is safe, opens files whose classes exist nowhere, and takes no
more memory than their bytes stand for. torch's own ``weights_only`` unpickler is no substitute: it
makes what a file asks for, however large, and before torch 2.10 a file could make it corrupt memory
(CVE-2026-24747).
"""

import pickletools
import re
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

# Takes some seconds. The checkpoint of a large network has a hundredth.
_MOST_INSTRUCTIONS = 5_000_000
# Nobody puts a call of these into a checkpoint in good faith.
_PROGRAMS = re.compile(
    r"(os|posix|nt|subprocess|pty|runpy|shutil|socket|ctypes|importlib|code|pdb|timeit)\..*"
    r"|builtins\.(eval|exec|compile|open|breakpoint|__import__)"
)
_LONGEST_NAME = 1_000
_MOST_QUOTED = 60
_KEPT = ("INT", "LONG", "FLOAT", "STRING", "BYTES", "BYTEARRAY", "UNICODE")


class _RefusedError(ValueError):
    """The reason is for the user."""


class Name(str):
    """A class or function that a file names, as ``module.name``."""


@dataclass(eq=False, repr=False, slots=True)
class StandIn:
    """What stands where a pickle makes an object by calling a class or function.

    Attributes:
        name: Of the class or function.
        arguments: Of the call.
        state: What else the file holds of the object, often a dict of its attributes.
        items: What it holds as a mapping, None if it was not filled like one.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] | None = None


def read_pickle(file: BinaryIO) -> tuple[Any, list[Any]]:
    """Read one pickle, and nothing beyond its end.

    Returns:
        What it holds: dicts (of their string and object keys), lists (sets too), tuples, strings,
        numbers, bytes, None, `Name` and `StandIn`; and the persistent ids in it, in their order,
        for each of which there is a `StandIn` named ``""`` with the id as its argument.

    Raises:
        ValueError: If it is damaged, runs programs, or has no end.

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
            warnings.simplefilter("ignore")  # of escapes in strings that Python may refuse one day
            for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
                if count == _MOST_INSTRUCTIONS:
                    raise _RefusedError(f"its pickle has more than {count:,} instructions")
                machine.take(opcode.name, argument)
        return machine.stack.pop(), machine.persistent
    except _RefusedError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, struct.error) as e:
        raise ValueError("damaged: its pickle ends early or makes no sense") from e


def whole_numbers(node: Any) -> tuple[int, ...]:
    """The whole numbers in a tuple, list or ``torch.Size``; a `TypeError` if it is none.

    Example:
        >>> whole_numbers(StandIn("torch.Size", ((8, 3),)))
        (8, 3)
    """
    (numbers,) = node.arguments if isinstance(node, StandIn) else (node,)
    if not all(isinstance(n, int) and abs(n) < 1 << 62 for n in numbers):
        raise TypeError("expected whole numbers")
    return tuple(numbers)


def quoted(name: str) -> str:
    r"""A name out of a file, fit for a message: one line, short, without control characters.

    Example:
        >>> quoted("data\n")
        "'data\\n'"
    """
    return ascii(name if len(name) <= _MOST_QUOTED else f"{name[:_MOST_QUOTED]}...")


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.persistent: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks below the marks
        self._memo: dict[int, Any] = {}

    def take(self, instruction: str, argument: Any) -> None:
        action = _ACTIONS.get(instruction)
        if action is not None:
            action(self, argument)
        elif any(kind in instruction for kind in _KEPT):
            self.stack.append(argument)
        else:
            raise ValueError(f"no checkpoint has the instruction {instruction}")

    def push(self, item: Any) -> None:
        self.stack.append(item)

    def mark(self) -> None:
        self._below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self._below.pop()
        return items

    def last(self, count: int) -> list[Any]:
        items = self.stack[-count:]
        if len(items) != count:
            raise IndexError
        del self.stack[-count:]
        return items

    def call(self, called: Any, arguments: Any) -> None:
        """Note a call of whatever; only classes and functions have names."""
        name = called if isinstance(called, Name) else ""
        if _PROGRAMS.fullmatch(name):
            raise _RefusedError(
                f"hostile: it calls {quoted(name)}, as no checkpoint does; nothing was run"
            )
        given = arguments if isinstance(arguments, tuple) else (arguments,)
        # What a subclass of dict holds comes later, or, in old protocols, as an argument.
        items = next((argument for argument in given[:3] if isinstance(argument, dict)), None)
        self.stack.append(StandIn(str(name), given, items=items))

    def name(self, module: str, name: str) -> None:
        if len(module) + len(name) > _LONGEST_NAME:
            raise ValueError("a name of that length is none")
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        self.stack.append(Name(".".join((module, name))))

    def build(self, state: Any) -> None:
        if isinstance(self.stack[-1], StandIn):
            self.stack[-1].state = state

    def extend(self, items: list[Any]) -> None:
        extended = self.stack[-1]
        if not isinstance(extended, StandIn):  # else one of a list, which no weights are in
            extended.extend(items)

    def fill(self, items: list[Any]) -> None:
        filled = self.stack[-1]
        if isinstance(filled, StandIn):
            filled.items = filled.items or {}
            filled = filled.items
        # Other keys are none of weights, and can be slow to hash.
        if len(items) % 2:
            raise IndexError
        pairs = zip(items[::2], items[1::2], strict=True)
        filled.update(pair for pair in pairs if isinstance(pair[0], str | StandIn))

    def make_dict(self, items: list[Any]) -> None:
        self.stack.append({})
        self.fill(items)

    def persist(self, identity: Any) -> None:
        self.persistent.append(identity)
        self.stack.append(StandIn("", (identity,)))

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

"""Read pickles as plain data: all that Python writes is read, and no program in it runs."""

import argparse
import enum
import pickle
import pickletools
import re
import struct
import time
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from test_torch_file import save_legacy

from kernelviz_callback.checkpoints.checkpoint import open_checkpoint
from kernelviz_callback.checkpoints.safe_pickle import Name, Placeholder, read_pickle, whole_numbers


class Colour(enum.Enum):
    RED = 1


class Settings:
    def __init__(self) -> None:
        self.lr = 0.1


class Words(dict[str, Any]): ...


class Row(list[Any]): ...


class WithSlots:
    __slots__ = ("x",)

    def __init__(self) -> None:
        self.x = 1


def read(content: bytes) -> Any:
    return read_pickle(BytesIO(content))[0]


def save_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def error_of(content: bytes) -> str:
    """Return the error message for a pickle, empty if the pickle can be read."""
    try:
        read(content)
    except ValueError as error:
        return str(error)
    return ""


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner, inner)
    ),
)


@given(plain, st.sampled_from([3, 4, 5]))
def test_plain_data_is_read_as_python_reads_it(data: Any, protocol: int) -> None:
    assert read(pickle.dumps(data, protocol)) == data


@given(st.recursive(st.integers() | st.text(), st.lists), st.sampled_from([0, 1, 2]))
def test_plain_data_of_the_oldest_protocols_is_read(data: Any, protocol: int) -> None:
    assert read(pickle.dumps(data, protocol)) == data


@pytest.mark.parametrize("protocol", range(6))
def test_objects_become_placeholders(protocol: int) -> None:
    objects = {
        "settings": Settings(),
        "words": Words(a=1),
        "row": Row([1, 2]),
        "counts": defaultdict(int, a=1),
        "ordered": OrderedDict(b=2),
        "counter": Counter("a"),
        "namespace": argparse.Namespace(lr=1),
        "path": Path("x"),
        "number": np.float32(1.5),
        "colour": Colour.RED,
        "queue": deque([1]),
        "class": Settings,
    }
    if protocol >= 2:
        objects["slots"] = WithSlots()
    found = read(pickle.dumps(objects, protocol))
    assert list(found) == list(objects)
    assert found["settings"].state == {"lr": 0.1}
    assert found["namespace"].state == {"lr": 1}
    assert found["words"].items == {"a": 1}
    assert found["counts"].items == {"a": 1}
    assert found["ordered"].items == {"b": 2}
    assert found["class"] == f"{__name__}.Settings"
    assert isinstance(found["class"], Name)
    assert isinstance(found["queue"], Placeholder)


def test_shared_objects_and_cycles_are_kept() -> None:
    cyclic: dict[str, Any] = {"inner": {}}
    cyclic["self"] = cyclic
    cyclic["again"] = cyclic["inner"]
    found = read(pickle.dumps(cyclic))
    assert found["self"] is found
    assert found["again"] is found["inner"]


def test_bytes_after_the_end_of_the_pickle_are_not_read() -> None:
    stream = BytesIO(pickle.dumps(1) + pickle.dumps(2) + b"rest")
    assert [read_pickle(stream)[0], read_pickle(stream)[0], stream.read()] == [1, 2, b"rest"]


def test_persistent_ids_are_listed() -> None:
    content, ids = read_pickle(BytesIO(b"\x80\x02X\x01\x00\x00\x00aQ."))
    assert ids == ["a"]
    assert (content.name, content.arguments) == ("", ("a",))


def test_whole_numbers_are_checked() -> None:
    assert whole_numbers([1, 2]) == (1, 2)
    for wrong in (None, "a", [1.5], [1 << 62], Placeholder("x")):
        with pytest.raises((TypeError, ValueError)):
            whole_numbers(wrong)


@pytest.mark.parametrize("save", [torch.save, save_legacy, save_pickle])
def test_a_large_vocabulary_beside_the_weights_is_read(
    save: Callable[[Any, Path], None], tmp_path: Path
) -> None:
    words = [f"{number:x}" for number in range(400_000)]
    content = {"state_dict": {"conv.weight": torch.rand(8, 3, 5, 5)}}
    content |= {"words": words, "numbers": {word: n for n, word in enumerate(words)}}
    content["pairs"] = list(pairwise(words[:100_000]))
    save(content, tmp_path / "a.ckpt")
    checkpoint = open_checkpoint(tmp_path / "a.ckpt")
    assert torch.equal(checkpoint.read("conv"), content["state_dict"]["conv.weight"])


# Small pickles. A reader that executes them would use all memory or time.
def _deep(opening: bytes, closing: bytes, levels: int = 100_000) -> bytes:
    return b"\x80\x02" + opening * levels + b"N" + closing * levels + b"."


LONG = 1_000_000
BOMBS = {
    "lists in lists": _deep(b"](", b"e"),
    "tuples in tuples": _deep(b"", b"\x85"),
    "dicts in dicts": _deep(b"}U\1a", b"s"),
    "a tuple whose hash visits 2**60 paths, as a key": (b"\x80\x02}N" + b"2\x86" * 60 + b"Ns."),
    "a large index": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "a class with a huge name, a thousand times": (
        b"\x80\x04\x8c\x01mX" + struct.pack("<I", LONG) + b"n" * LONG + b"\x94" + b"\x93." * 1000
    ),
    "marks": b"\x80\x02" + b"(" * LONG + b"N.",
    "no end": b"\x80\x02" + b"N0" * 3_000_000 + b".",
    "a string longer than the file": b"\x80\x02X\xff\xff\xff\x7fa.",
    "bytes longer than any file": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",
    "calls with a long tuple, over and over": (
        b"\x80\x02("
        + b"N" * LONG
        + b"tq\x000"
        + b"cm\nn\nq\x010"
        + b"h\x01h\x00R0" * 300_000
        + b"N."
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_small_pickles_that_would_fill_the_memory_are_refused(bomb: str) -> None:
    began = time.process_time()
    assert re.fullmatch(r"[^\n]{,200}", error_of(BOMBS[bomb]))
    assert time.process_time() - began < 20


PROGRAMS = {
    "os.system": b"cos\nsystem\nX\x01\x00\x00\x00x\x85R.",
    "posix.system": b"cposix\nsystem\nX\x01\x00\x00\x00x\x85R.",
    "builtins.eval": b"c__builtin__\neval\nX\x01\x00\x00\x00x\x85R.",
    "subprocess.Popen": b"(X\x01\x00\x00\x00xisubprocess\nPopen\n.",
    "runpy.run_path": b"(crunpy\nrun_path\nX\x01\x00\x00\x00xo.",
    "nt.system": b"cnt\nsystem\n(X\x01\x00\x00\x00xt\x81.",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_error_names_the_program_that_would_run(program: str) -> None:
    with pytest.raises(ValueError, match=f"hostile: it calls '{program}'.*nothing was run"):
        read(b"\x80\x02" + PROGRAMS[program])


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\x80\x02",
        b".",
        b"N",
        b"s.",
        b"\x80\x02h\x07.",
        b"t.",
        b"\xff",
        b"cx\n",
        b"R.",
    ],
)
def test_the_error_of_a_damaged_pickle_is_one_line(damaged: bytes) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]{10,120}$"):
        read(damaged)


def test_every_instruction_is_read_or_refused_in_one_line() -> None:
    for opcode in pickletools.opcodes:
        content = b"\x80\x02(N" + opcode.code.encode("latin-1") + b"\x00" * 9 + b"\n."
        assert "\n" not in error_of(content), opcode.name

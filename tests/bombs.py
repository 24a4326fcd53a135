"""Small files whose reading would take minutes or gigabytes, if their values were used unchecked.

    python tests/bombs.py FILE ...

The script shows each file, and compares it with itself if it can be shown, with limits on memory
and processor time. It prints one line of JSON for each: the exit status of each command, the lines
on stderr, and the seconds of the processor.
"""

import contextlib
import io
import json
import os
import socket
import struct
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS = 200  # of the processor, for all files, before the process is killed
MEMORY = 300 << 20  # bytes above those of an interpreter that has read a usual file

P = b"\x80\x02"
ONES = b"(K\x01K\x01K\x01K\x01t"
Maker = Callable[[Path], object]


def text(value: str) -> bytes:
    content = value.encode()
    return b"X" + struct.pack("<I", len(content)) + content


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def pairs(levels: int) -> bytes:
    """A tuple of two tuples of two tuples ...: visiting each path visits 2**levels."""
    return b"N" + b"2\x86" * levels


def storage(kind: str = "FloatStorage", key: bytes = text("0"), view: bytes = b"") -> bytes:
    about = text("storage") + name("torch", kind) + key + text("cpu") + b"K\x05"
    return b"(" + about + view + b"tQ"


def tensor(
    place: bytes = b"",
    *,
    offset: bytes = b"K\x00",
    shape: bytes = ONES,
    strides: bytes = ONES,
    function: str = "_rebuild_tensor_v2",
    more: bytes = b"",
) -> bytes:
    arguments = (place or storage()) + offset + shape + strides + b"\x89)" + more
    return name("torch._utils", function) + b"(" + arguments + b"tR"


def integers(*numbers: int) -> bytes:
    return (
        b"(" + b"".join(b"\x8a\x08" + n.to_bytes(8, "little", signed=True) for n in numbers) + b"t"
    )


def one_layer(described: bytes) -> bytes:
    return P + b"}" + text("conv.weight") + described + b"s."


def zipped(pickled: bytes, **records: bytes) -> Maker:
    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", pickled)
            for key, content in records.items():
                archive.writestr(f"a/data/{key.removeprefix('_')}", content)

    return make


def tensor_many_times(count: int, described: bytes, key: str = "k{}") -> bytes:
    first = P + b"}(" + text(key.format(0)) + described + b"q\x06"
    return first + b"".join(text(key.format(i)) + b"h\x06" for i in range(1, count)) + b"u."


def old_format(*pickles: bytes, rest: bytes = b"") -> Maker:
    magic = P + b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
    return lambda path: path.write_bytes(
        b"".join((magic, P + b"M\xe9\x03.", P + b"}.", *pickles, rest))
    )


def safetensors(header: bytes | dict[str, Any], data: bytes = bytes(64)) -> Maker:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return lambda path: path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)


def layer(*shape: int, dtype: str = "F32") -> Maker:
    size = {"F32": 4, "F8_E4M3": 1}[dtype]
    for side in shape:
        size *= side
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}
    return safetensors({"conv.weight": entry}, os.urandom(size) if dtype == "F32" else bytes(size))


def snapshot(**changes: Any) -> Maker:
    """A snapshot of one layer whose description has been changed."""
    geometry = {
        "kind": "Conv2d",
        "stride": [1, 1],
        "padding": [0, 0],
        "dilation": [1, 1],
        "groups": 1,
    }
    described = {
        "schema_version": 1,
        "step": 1,
        "epoch": 0,
        "wall_time": 1.0,
        "layers": {"conv": geometry},
        "probe": None,
        "versions": {},
        "health": {},
        **changes,
    }
    entry = {"dtype": "F32", "shape": [4, 1, 1, 4], "data_offsets": [0, 64]}
    return safetensors({"__metadata__": {"kernelviz": json.dumps(described)}, "conv/weight": entry})


def parts(**shapes: tuple[int, ...]) -> Maker:
    """Tensors of zeros, all in one storage."""
    size, header = 1 << 20, {}
    for key, shape in shapes.items():
        count = 1
        for side in shape:
            count *= side
        header[f"conv.{key}"] = {"dtype": "F8_E4M3", "shape": shape, "data_offsets": [0, count]}
    return safetensors(header, bytes(size))


def state(content: bytes) -> bytes:
    return name("torch", "X") + b")\x81" + content + b"b"


def index(tensors: bytes, places: bytes, keys: bytes = b"}") -> Maker:
    content = text("state_dict_metadata") + tensors + text("planner_data") + keys
    content += text("storage_data") + places

    def make(path: Path) -> None:
        path.mkdir()
        (path / ".metadata").write_bytes(P + state(b"}(" + content + b"u") + b".")

    return make


def shard(fqn: bytes, offset: bytes = ONES) -> bytes:
    return state(b"}(" + text("fqn") + fqn + text("offset") + offset + b"u")


WHERE = state(
    b"}("
    + text("relative_path")
    + text("f")
    + text("offset")
    + b"K\x00"
    + text("length")
    + b"K\x01u"
)


def kept(dtype: bytes = text("torch.float32"), shape: bytes = ONES) -> bytes:
    return state(
        b"}(" + text("size") + shape + text("properties") + state(b"(" + dtype + b"t") + b"u"
    )


def many_keys(names: int, keys: int) -> Maker:
    planner = b"(" + text("a") + b"2" * (keys - 1) + b"tq\x09"
    found = [b"}(", b"}(", b"}("]
    shared = [planner, kept(text("torch.int64")) + b"q\x0a", WHERE + b"q\x0b"]
    for i in range(names):
        for at, number in enumerate((9, 10, 11)):
            key = shard(text(f"n{i}")) if at == 2 else text(f"n{i}")
            found[at] += key + (shared[at] if i == 0 else bytes((0x68, number)))
    keyed, tensors, places = (each + b"u" for each in found)
    return index(tensors, places, keyed)


def linked(target: str, within: str = "") -> Maker:
    def make(path: Path) -> None:
        if within:
            path.mkdir()
        (path / within).symlink_to(target)

    return make


def pipe(within: str = "") -> Maker:
    def make(path: Path) -> None:
        if within:
            path.mkdir()
        os.mkfifo(path / within)

    return make


def in_folder(file: str, content: bytes) -> Maker:
    def make(path: Path) -> None:
        path.mkdir()
        (path / file).write_bytes(content)
        (path / "model-00001-of-00002.safetensors").write_bytes(b"")

    return make


def piped_shard(path: Path) -> None:
    path.mkdir()
    for number in (1, 2):
        os.mkfifo(path / f"model-0000{number}-of-00002.safetensors")


def listening(path: Path) -> None:
    place = Path.cwd()
    os.chdir(path.parent)  # the address of a socket is at most 107 bytes long
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(path.name)
    os.chdir(place)


def sparse_pickle(path: Path) -> None:
    """A zip file that declares a pickle of 8 GiB and takes some kilobytes on the disk."""
    size, record = 8 << 30, b"a/data.pkl"
    extra = struct.pack("<HHQQ", 1, 16, size, size)
    local = struct.pack(
        "<4s5H3L2H", b"PK\3\4", 45, 0, 0, 0, 0, 0, 2**32 - 1, 2**32 - 1, len(record), 20
    )
    with path.open("wb") as file:
        file.write(local + record + extra)
        file.seek(size, os.SEEK_CUR)
        at = file.tell()
        entry = struct.pack(
            "<4s4B4HL2L5H2L", b"PK\1\2", 45, 0, 45, 0, 0, 0, 0, 0, 0, 2**32 - 1, 2**32 - 1,
            len(record), 20, 0, 0, 0, 0, 0,
        )  # fmt: skip
        file.write(entry + record + extra)
        end = file.tell()
        file.write(struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, end - at, at))
        file.write(struct.pack("<4sLQL", b"PK\6\7", 0, end, 1))
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 2**32 - 1, 2**32 - 1, 0))


def plain_with_hole(path: Path) -> None:
    """A pickle of 8 GiB of bytes, which take nothing on the disk."""
    path.write_bytes(b"\x80\x04\x8e" + (8 << 30).to_bytes(8, "little"))
    with path.open("ab") as file:
        file.truncate(9 << 30)


def records(count: int) -> Maker:
    """A zip file with so many records, all of them at the same place."""
    entry = b"PK\1\2" + bytes(24) + b"\1\0" + bytes(16) + b"x"
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0, 0, count * len(entry), 4, 0)
    return lambda path: path.write_bytes(b"PK\3\4" + entry * count + end)


def long_line(path: Path) -> None:
    old_format(P + b"V")(path)
    with path.open("ab") as file:
        file.truncate(4 << 30)


WIDE = "\U0010ffff" * 499
MANY = 600_000
VIEW = b"Nh\x05\x86"

BOMBS: dict[str, Maker] = {
    # Pickles.
    "names": zipped(
        b"\x80\x04("
        + text(WIDE)
        + b"q\x000"
        + text(WIDE)
        + b"q\x010"
        + b"h\x00h\x01\x93" * MANY
        + b"l."
    ),
    "calls": zipped(
        b"\x80\x04"
        + text(WIDE)
        + b"q\x00"
        + text(WIDE)
        + b"q\x01\x93q\x020("
        + b"h\x02)R" * MANY
        + b"l."
    ),
    "doubling offsets": zipped(
        P
        + b"]q\x05K\x01a0"
        + tensor_many_times(34, tensor(storage("LongStorage", view=VIEW), offset=b"h\x05"))[2:]
    ),
    "key of a storage": zipped(one_layer(tensor(storage(key=pairs(40))))),
    "dtype of a tensor": zipped(one_layer(tensor(function="_rebuild_tensor_v3", more=pairs(60)))),
    "long shape, often": zipped(
        tensor_many_times(
            100_000, tensor(shape=b"(" + b"K\x01" * 800_000 + b"tq\x07", strides=b"h\x07")
        )
    ),
    "long list as shape": zipped(
        tensor_many_times(
            100_000, tensor(shape=b"]q\x07(" + b"K\x01" * 100_000 + b"e", strides=b"h\x07")
        )
    ),
    "persistent ids": zipped(P + b"(" + b"Pa\n" * 1_100_000 + b"l."),
    "dicts": zipped(P + b"(" + b"}" * 1_100_000 + b"l."),
    "calls of None": zipped(P + b"(" + b"N)R" * MANY + b"l."),
    "ids of ids": zipped(P + b"N" + b"Q" * 900_000 + b"."),
    "places in the memo": zipped(
        P + b"N" + b"".join(b"r" + struct.pack("<I", i) for i in range(900_000)) + b"."
    ),
    "large numbers as keys": zipped(
        P
        + b"\x8b"
        + struct.pack("<I", 1 << 20)
        + b"\x7f" * (1 << 20)
        + b"q\x010}("
        + b"h\x01N" * 400_000
        + b"u."
    ),
    "pairs as keys": zipped(P + b"}" + pairs(60) + b"Ns."),
    "pairs as a module": zipped(b"\x80\x04" + pairs(60) + text("x") + b"\x93."),
    "long id, often": zipped(P + b"(" + b"N" * 400_000 + b"tq\x010(" + b"h\x01Q" * 200_000 + b"l."),
    "one tensor, often": zipped(tensor_many_times(300_000, tensor(), "k{}.weight"), _0=bytes(64)),
    "long arguments, often": zipped(
        P + b"(" + b"N" * 400_000 + b"tq\x010cm\nn\nq\x02(" + b"h\x02h\x01R" * 150_000 + b"l."
    ),
    "old format, each pickle with many instructions": old_format(
        *[P + b"(" + b"N" * 900_000 + b"l."] * 2
    ),
    "line without end": long_line,
    "string of two gigabytes": old_format(P + b"X\xff\xff\xff\x7f"),
    "sparse pickle": sparse_pickle,
    "records": records(170_000),
    "negative shape": zipped(one_layer(tensor(shape=integers(-1, 1, 1, 1))), _0=bytes(64)),
    "layout of a sparse tensor": zipped(
        one_layer(name("torch._utils", "_rebuild_sparse_tensor") + b"(" + pairs(40) + b"N" + b"tR")
    ),
    "dtype of an array": zipped(
        one_layer(
            name("numpy.core.multiarray", "_reconstruct")
            + b")R(K\x01"
            + ONES
            + name("numpy", "dtype")
            + pairs(40)
            + b"\x85R(K\x03"
            + pairs(40)
            + b"tb\x89NtbN0"
        )
    ),
    "plain pickle with a hole": plain_with_hole,
    "plain pickle, one storage often": lambda path: path.write_bytes(
        P
        + b"("
        + (name("torch.storage", "_load_from_bytes") + b"C\x00\x85R" + b"N" * 400_000)
        + b"tq\x010"
        + name("torch._utils", "_rebuild_tensor_v2")
        + b"q\x020("
        + b"h\x02h\x01R" * 100_000
        + b"l."
    ),
    # Folders of torch.distributed.checkpoint.
    "name of a shard": index(b"}", b"}" + shard(pairs(60)) + WHERE + b"s"),
    "dtype of a shard": index(
        b"}" + text("w") + kept(pairs(40)) + b"s", b"}" + shard(text("w")) + WHERE + b"s"
    ),
    "keys of names": many_keys(5_000, 800_000),
    "negative size": index(
        b"}" + text("w.weight") + kept(shape=integers(-4, -1, 1, 1)) + b"s",
        b"}" + shard(text("w.weight")) + WHERE + b"s",
    ),
    "index is a device": linked("/dev/zero", ".metadata"),
    "index is a pipe": pipe(".metadata"),
    # Safetensors.
    "dimensions": safetensors(
        {"conv.weight": {"dtype": "F32", "shape": [2**61] * 400_000, "data_offsets": [0, 64]}}
    ),
    "header of lists": safetensors(b'{"a":[' + b"[]," * 4_000_000 + b"[]]}"),
    "header of lists, as long as allowed": safetensors(b'{"a":[' + b"[]," * 2_700_000 + b"[]]}"),
    "header of tensors": safetensors(
        b"{"
        + b",".join(
            b'"%d":{"dtype":"F32","shape":[],"data_offsets":[0,4]}' % i for i in range(140_000)
        )
        + b"}"
    ),
    "deep header": safetensors(b'{"a":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}"),
    "long name": safetensors(
        {"x" * 7_000_000: {"dtype": "F32", "shape": [4, 1, 1, 4], "data_offsets": [0, 64]}}
    ),
    "list as dtype": safetensors(
        {"conv.weight": {"dtype": [], "shape": [4, 1, 1, 4], "data_offsets": [0, 64]}}
    ),
    # Snapshots.
    "number as probe": snapshot(probe=7),
    "number as time": snapshot(wall_time=10**4000),
    "list in padding": snapshot(
        layers={
            "conv": {
                "kind": "Conv2d",
                "stride": [1, 1],
                "padding": [[], {}],
                "dilation": [1, 1],
                "groups": 1,
            }
        }
    ),
    "deep description": safetensors({"__metadata__": {"kernelviz": "[" * 1_000_000}}),
    # Parts that do not fit.
    "mask that broadcasts": parts(weight_orig=(1, 1000, 1, 1), weight_mask=(1000, 1, 1, 1000)),
    "length that broadcasts": parts(weight_v=(1, 1000, 1, 1), weight_g=(1000, 1, 1, 1000)),
    "vectors of another size": parts(weight_orig=(8, 3, 5, 5), weight_u=(9,), weight_v=(74,)),
    # Layers that are too large to be drawn.
    "200,000 filters": layer(200_000, 1, 1, 1),
    "a million channels": layer(1, 1_000_000, 1, 1, dtype="F8_E4M3"),
    "a million taps": layer(1, 1, 1_000_000, dtype="F8_E4M3"),
    "kernels of 1,000 x 1,000": layer(4, 1, 1000, 1000, dtype="F8_E4M3"),
    # What is not a file, and files that name others.
    "index of lists": in_folder("model.safetensors.index.json", b"[" + b"[]," * 3_900_000 + b"[]]"),
    "shard is a pipe": piped_shard,
    "pipe": pipe(),
    "device": linked("/dev/zero"),
    "socket": listening,
    "folder without a checkpoint": lambda path: path.mkdir(),
}


def limit() -> None:
    """Let this process end if it takes too long, and let an allocation fail if it is too large."""
    import resource  # Windows does not have it, and imports this module all the same

    status = Path("/proc/self/status").read_text()
    taken = int(status.partition("VmData:")[2].split()[0]) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (taken + MEMORY, taken + MEMORY))
    used = int(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (used + SECONDS, used + SECONDS))


def read(path: str) -> dict[str, Any]:
    from kernelviz_callback.cli import main

    began, status, errors = time.process_time(), [], io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        status.append(main(["show", path, "-o", "shown.png"]))
        if status[0] == 0:
            status.append(main(["compare", path, path, "-o", "compared.png"]))
    seconds = round(time.process_time() - began, 2)
    return {"status": status, "lines": errors.getvalue().splitlines(), "seconds": seconds}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        usual = Path(folder) / "usual.safetensors"
        layer(4, 3, 5, 5)(usual)
        assert read(str(usual))["status"] == [0, 0]  # imports what reading needs
    limit()
    for each in sys.argv[1:]:
        print(json.dumps(read(each)), flush=True)

"""Small pickles that ask for much, and their parts."""

import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

Maker = Callable[[Path], object]

P = b"\x80\x02"
ONES = b"(K\x01K\x01K\x01K\x01t"


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

PICKLES: dict[str, Maker] = {
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
    "shapes in shapes, often": zipped(
        P
        + (b"(((" + b"K\x01" * 63 + b"Nt" + b"2" * 15 + b"t" + b"2" * 15 + b"tq\x010")
        + (name("torch._utils", "_rebuild_other") + b"q\x020(")
        + b"h\x02h\x01R" * 90_000
        + b"l."
    ),
    "state of quantized layers, often": zipped(
        P
        + (b"(" + b"N" * 400_000 + b"tq\x010")
        + (name("torch.ao.nn.quantized.modules.conv", "Conv2d") + b"q\x020(")
        + b"h\x02)\x81h\x01b" * 100_000
        + b"l."
    ),
    "long name, often": zipped(
        P + name("torch", "a" * 990) + b"q\x010(" + b"h\x01)R" * 300_000 + b"l."
    ),
    "five million persistent ids": zipped(P + b"(" + b"Pa\n" * 5_000_000 + b"l."),
}

"""Folders with an index that asks for much, and what is not a file."""

import os
import socket
from pathlib import Path

from pickle_bombs import ONES, Maker, P, integers, name, pairs, text


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


INDEXES: dict[str, Maker] = {
    "name of a shard": index(b"}", b"}" + shard(pairs(60)) + WHERE + b"s"),
    "dtype of a shard": index(
        b"}" + text("w") + kept(pairs(40)) + b"s", b"}" + shard(text("w")) + WHERE + b"s"
    ),
    "keys of names": many_keys(5_000, 800_000),
    "negative size": index(
        b"}" + text("w.weight") + kept(shape=integers(-4, -1, 1, 1)) + b"s",
        b"}" + shard(text("w.weight")) + WHERE + b"s",
    ),
}

NO_FILES: dict[str, Maker] = {
    "index is a device": linked("/dev/zero", ".metadata"),
    "index is a pipe": pipe(".metadata"),
    "index of lists": in_folder("model.safetensors.index.json", b"[" + b"[]," * 3_900_000 + b"[]]"),
    "shard is a pipe": piped_shard,
    "pipe": pipe(),
    "device": linked("/dev/zero"),
    "socket": listening,
    "folder without a checkpoint": lambda path: path.mkdir(),
}

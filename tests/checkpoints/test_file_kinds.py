"""A file that is no checkpoint is called by its name, with the next step."""

import bz2
import gzip
import json
import lzma
import pickle
import shutil
import sqlite3
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from kernelviz_callback.checkpoints.checkpoint import load_weights, open_checkpoint

WEIGHT = np.arange(8 * 3 * 5 * 5, dtype=np.float32).reshape(8, 3, 5, 5)


def checkpoint_bytes(folder: Path) -> bytes:
    torch.save({"conv.weight": torch.from_numpy(WEIGHT)}, folder / "source.pt")
    return (folder / "source.pt").read_bytes()


def in_tar(path: Path) -> None:
    checkpoint_bytes(path.parent)
    with tarfile.open(path, "w") as archive:
        archive.add(path.parent / "source.pt", "source.pt")


def in_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README", "x")
        archive.writestr("weights/best.pt", checkpoint_bytes(path.parent))


def exported(path: Path) -> None:
    program = torch.export.export(nn.Conv2d(3, 8, 5), (torch.rand(1, 3, 8, 8),))
    torch.export.save(program, path.with_suffix(".pt2"))
    shutil.move(path.with_suffix(".pt2"), path)


def scripted(path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Conv2d(3, 8, 5)), str(path))


def database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("create table runs (id int)")
    connection.close()


def half_of_safetensors(path: Path) -> None:
    save_file({"conv.weight": torch.from_numpy(WEIGHT)}, path)
    path.write_bytes(path.read_bytes()[:-500])


def packed_again(path: Path) -> None:
    checkpoint_bytes(path.parent)
    with (
        zipfile.ZipFile(path.parent / "source.pt") as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))


def bytes_of(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def packed(pack: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: bytes_of(pack(checkpoint_bytes(path.parent)))(path)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 102530333\n"
KINDS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "git lfs": (bytes_of(LFS), "pointer of Git LFS.* run `git lfs pull`"),
    "html": (bytes_of(b"\n<!DOCTYPE html><html></html>"), "a web page.* download the file again"),
    "html without doctype": (bytes_of(b"<HTML><body>404"), "a web page"),
    "xml": (bytes_of(b"<?xml version='1.0'?><Error>AccessDenied"), "an XML file.* again"),
    "gzip": (packed(gzip.compress), "compressed with gzip; unpack it first: gunzip"),
    "bzip2": (packed(bz2.compress), "compressed with bzip2; unpack it first"),
    "xz": (packed(lzma.compress), "compressed with xz; unpack it first"),
    "zlib": (packed(zlib.compress), "compressed with zlib"),
    "tar": (in_tar, "a tar archive; unpack it first"),
    "zip": (in_zip, "a zip file that holds 'weights/best.pt'; unpack it first"),
    "npz": (lambda p: np.savez(p.open("wb"), a=WEIGHT, b=WEIGHT), "numpy.savez; save its arrays"),
    "npz, compressed": (lambda p: np.savez_compressed(p.open("wb"), a=WEIGHT), "numpy.savez"),
    "npy": (lambda p: np.save(p.open("wb"), WEIGHT), "one array of numpy.save; save its weights"),
    "torch.export": (exported, "a program of torch.export; save .*state_dict"),
    "TorchScript": (scripted, "a TorchScript archive, a program; save its state_dict"),
    "HDF5": (bytes_of(b"\x89HDF\r\n\x1a\n" + bytes(40)), "an HDF5 file, as Keras writes it"),
    "ONNX": (bytes_of(b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:"), "an ONNX model; save"),
    "TensorFlow": (bytes_of(b"\x08\x01\x12\xe4\x0f\n"), "a SavedModel of TensorFlow"),
    "TensorFlow Lite": (bytes_of(b"\x1c\0\0\0TFL3\x14\0"), "a TensorFlow Lite model"),
    "MXNet": (bytes_of(b"\x12\x01\0\0\0\0\0\0" + bytes(40)), "a file of MXNet"),
    "encrypted": (bytes_of(b"Salted__" + bytes(40)), "encrypted with OpenSSL; decrypt it first"),
    "picture": (lambda p: Image.new("RGB", (2, 2)).save(p, "PNG"), "a picture"),
    "database": (database, "a database of SQLite"),
    "zeros": (bytes_of(bytes(9999)), "begins with zeros, so it was not written whole.* again"),
    "empty": (bytes_of(b""), "it is empty; save, download or copy it again"),
    "json": (lambda p: p.write_text(json.dumps({"a": 1})), "a text file, perhaps JSON"),
    "text": (lambda p: p.write_text("hello, world"), "a text file, not a checkpoint"),
    "pickle": (bytes_of(pickle.dumps({"a": [1, 2]})), "a plain pickle.* and none of its arrays"),
    "half a checkpoint": (
        packed(lambda content: content[: len(content) // 2]),
        "cut short.* again",
    ),
    "half of a safetensors file": (
        half_of_safetensors,
        "damaged: it ends before the weights do; download",
    ),
    "packed again": (packed_again, "'data.pkl' is compressed.* zip -0 -r"),
    "half of nothing known": (bytes_of(b"\xfe\xfd" * 99), "neither a file of torch.save nor"),
}


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_is_named_in_one_line(kind: str, tmp_path: Path) -> None:
    write, message = KINDS[kind]
    path = tmp_path / "a.pt"
    write(path)
    with pytest.raises(ValueError, match=rf"^{path}: [^\n]*{message}[^\n]*$"):
        open_checkpoint(path)


def test_a_hostile_pickle_stays_hostile(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x02cjoblib.numpy_pickle\nX\n0cos\nsystem\nX\1\0\0\0x\x85R.")
    with pytest.raises(ValueError, match=r"hostile: it calls 'os\.system'"):
        open_checkpoint(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", ">f4"])
def test_the_arrays_of_a_plain_pickle_are_weights(
    protocol: int, dtype: str, tmp_path: Path
) -> None:
    weight = WEIGHT.astype(dtype)
    content = {"epoch": 3, "model": {"stem.conv1.weight": weight, "stem.bias": np.ones(8)}}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    checkpoint = open_checkpoint(tmp_path / "a.pkl")
    assert list(checkpoint.layers) == ["stem.conv1"]
    assert checkpoint.epoch == 3
    assert np.array_equal(checkpoint.read().numpy(), weight.astype(np.float32))


def test_arrays_in_the_order_of_fortran_are_weights(tmp_path: Path) -> None:
    for protocol in (2, 5):
        content = {"conv.weight": np.asfortranarray(WEIGHT)}
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
        assert np.array_equal(load_weights(tmp_path / "a.pkl").numpy(), WEIGHT)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_tensors_of_a_plain_pickle_are_weights(protocol: int, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 5), nn.Conv2d(8, 4, 3))
    for content in (net.state_dict(), net):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
        checkpoint = open_checkpoint(tmp_path / "a.pkl")
        assert list(checkpoint.layers) == ["0", "1"]
        for name, layer in zip(checkpoint.layers, net, strict=True):
            assert torch.equal(checkpoint.read(name), layer.weight)


def test_storages_of_a_pickle_cannot_be_larger_than_the_file(tmp_path: Path) -> None:
    inner = BytesIO()
    torch.save(torch.zeros(9).untyped_storage(), inner, _use_new_zipfile_serialization=False)
    stored = inner.getvalue() + bytes(100_000)
    load = b"ctorch.storage\n_load_from_bytes\nq\x01"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\nq\x03"
    content = b"\x80\x03" + load + b"0B" + struct.pack("<I", len(stored)) + stored + b"q\x020"
    content += tensor + b"0]("  # 50,000 tensors, each with a storage of its own from the same bytes
    began = time.process_time()
    call = b"h\x03(h\x01h\x02\x85RK\x00(K\x01K\x01K\x01K\x01t(K\x01K\x01K\x01K\x01t\x89}tR"
    (tmp_path / "a.pkl").write_bytes(content + call * 50_000 + b"e.")
    with pytest.raises(ValueError, match=r"storages are larger than the file"):
        open_checkpoint(tmp_path / "a.pkl")
    assert time.process_time() - began < 10


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_old_format_is_read_in_every_protocol(protocol: int, tmp_path: Path) -> None:
    torch.save(
        {"conv.weight": torch.from_numpy(WEIGHT)},
        tmp_path / "a.pt",
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=False,
    )
    assert np.array_equal(load_weights(tmp_path / "a.pt").numpy(), WEIGHT)


def test_an_array_that_does_not_fit_its_bytes_is_an_error(tmp_path: Path) -> None:
    content = pickle.dumps({"conv.weight": WEIGHT}, 2)
    old = b"(K\x08K\x03K\x05K\x05t"
    assert content.count(old) == 1
    (tmp_path / "a.pkl").write_bytes(content.replace(old, b"(K\x08K\x03K\x05K\x06t"))
    with pytest.raises(ValueError, match=r"a\.pkl: damaged: the size of an array does not match"):
        load_weights(tmp_path / "a.pkl")

"""Files of ``torch.save``: opened without executing anything, and without any class in them."""

import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO

import torch

from kernelviz_callback.checkpoints.byte_ranges import (
    FLOATS,
    Numbers,
    Region,
    Source,
    open_source,
    size_of,
)
from kernelviz_callback.checkpoints.pickle_tree import find_nodes
from kernelviz_callback.checkpoints.safe_pickle import StandIn, quoted, read_pickle, whole_numbers
from kernelviz_callback.checkpoints.stored_layers import StoredTensor

# What a file of torch 1.5 or earlier begins with: a magic number, a protocol version, a description
# of the machine; then come the objects, the keys of the storages, and the storages.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_HEADER = 3
_LONGEST_LINE = 1 << 16
_LARGEST_DIRECTORY = 16 << 20  # of a zip file with more than 100,000 tensors
_RECORD_MAGIC = b"PK\3\4"
_RECORD_HEADER = struct.Struct("<4s22xHH")  # then come its name, and an extra field
# How a storage is named in a pickle, to the dtype. Only those of floating point are looked at.
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "QInt8Storage": torch.qint8,
    "QUInt8Storage": torch.quint8,
    "QInt32Storage": torch.qint32,
    "UntypedStorage": torch.uint8,
}
_TENSORS = (
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_qtensor",
)
# Calls that return their first argument as another kind of tensor.
_WRAPPERS = (
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor",
)
_SUBCLASS = "torch._tensor._rebuild_from_type_v2"
_MOST_WRAPPERS = 4


@dataclass(frozen=True, eq=False)
class TorchFile:
    """What a file of ``torch.save`` holds.

    Attributes:
        content: As it was given to ``torch.save``, with a `StandIn` for every object and tensor.
    """

    content: Any
    _storage: Callable[[str], Region]

    def tensors(self) -> dict[str, StoredTensor]:
        """List its tensors, without reading any: the keys that lead to each, with dots, to it.

        Raises:
            ValueError: If the description of one is damaged.
        """
        return find_nodes(self.content, self.tensor)

    def tensor(self, node: Any) -> StoredTensor | None:
        """The tensor that a part of the content is, None if it is something else."""
        name, arguments = _unwrapped(node)
        if name not in _TENSORS:
            return None
        try:
            storage, offset, shape, strides = arguments[:4]
            _, kind, key, _, _, *view = storage.arguments[0]
            dtype = _STORAGES.get(kind.rpartition(".")[2], torch.uint8)
            if name.endswith("v3"):
                dtype = FLOATS.get(arguments[6], torch.uint8)
            if view and view[0] is not None:  # files of torch 0.x
                offset += view[0][1]
            shape, strides = whole_numbers(shape), whole_numbers(strides)
            reason = _refusal(dtype)
            if reason is not None:
                return StoredTensor(shape, refusal=reason)
            (offset,) = whole_numbers([offset])
            place = self._storage(str(key))
            return StoredTensor(shape, Numbers(place, dtype, shape, strides, offset).read)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise ValueError("damaged: what it says of a tensor makes no sense") from error


def open_torch_file(source: Source) -> TorchFile:
    """Open a file of ``torch.save``, or the bytes of one.

    Raises:
        ValueError: If it is damaged, hostile, or none of ``torch.save``; the message is the reason.
        OSError: If it cannot be read.
    """
    with open_source(source) as file:
        beginning = file.read(4)
        if beginning[:2] == b"\x80\x02":
            return _open_legacy(source, file)
        if beginning == _RECORD_MAGIC:
            return _open_zip(source, file)
    raise ValueError("neither a file of torch.save nor of safetensors")


def _open_zip(source: Source, file: BinaryIO) -> TorchFile:
    regions = _records(source, file)
    if "data.pkl" not in regions:
        raise ValueError("a zip file, but none of torch.save: it holds no data.pkl")
    if "byteorder" in regions and regions["byteorder"].read() != b"little":
        raise ValueError("its numbers are in the byte order of another kind of machine")
    content, _ = read_pickle(BytesIO(regions["data.pkl"].read()))
    return TorchFile(content, lambda key: regions[f"data/{key}"])


def _records(source: Source, file: BinaryIO) -> dict[str, Region]:
    """The records of a zip file, by their names without the folder that they all are in."""
    try:
        reluctant: Any = _Reluctant(file, _LARGEST_DIRECTORY)
        with zipfile.ZipFile(reluctant) as archive:
            records = archive.infolist()
        starts = [_start(file, record) for record in records]
    except (OSError, ValueError, NotImplementedError, struct.error, zipfile.BadZipFile) as error:
        raise ValueError("damaged or cut short: the list of its records is not whole") from error
    checked = any(record.CRC for record in records)  # torch can be told to write none: all are 0
    regions: dict[str, Region] = {}
    for record, start in zip(records, starts, strict=True):
        name = record.filename.partition("/")[2]
        if name == "constants.pkl" or name.startswith("code/"):
            raise ValueError("a TorchScript archive, a program; save its state_dict() instead")
        if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
            raise ValueError(f"its record {quoted(name)} is compressed, as torch writes none")
        if name in regions:
            raise ValueError(f"damaged: it has two records {quoted(name)}")
        regions[name] = Region(source, start, record.file_size, record.CRC if checked else None)
    return regions


def _start(file: BinaryIO, record: zipfile.ZipInfo) -> int:
    """Where the content of a record begins: after a header, which must be of this record."""
    file.seek(record.header_offset)
    magic, name_length, extra_length = _RECORD_HEADER.unpack(file.read(_RECORD_HEADER.size))
    name = file.read(name_length)
    if magic != _RECORD_MAGIC or name != record.orig_filename.encode():
        raise ValueError("a record is not where it should be")
    return file.tell() + int(extra_length)


def _open_legacy(source: Source, file: BinaryIO) -> TorchFile:
    file.seek(0)
    pickles: Any = _Reluctant(file, size_of(source))
    magic, *_ = [read_pickle(pickles)[0] for _ in range(_LEGACY_HEADER)]
    if magic != _LEGACY_MAGIC:
        raise ValueError("a pickle, but none of torch.save")
    content, persistent = read_pickle(pickles)
    keys, _ = read_pickle(pickles)
    regions: dict[str, Region] = {}
    try:
        sizes = {
            str(key): _STORAGES[kind.rpartition(".")[2]].itemsize
            for what, kind, key, *_ in persistent
            if what == "storage"
        }
        at = file.tell()
        for key in keys:
            file.seek(at)
            (count,) = struct.unpack("<q", file.read(8))
            regions[str(key)] = Region(source, at + 8, count * sizes[str(key)])
            at += 8 + count * sizes[str(key)]
    except (AttributeError, LookupError, TypeError, ValueError, struct.error, OSError) as error:
        raise ValueError("damaged or cut short: its storages are not what it says") from error
    return TorchFile(content, lambda key: regions[key])


class _Reluctant:
    """A file that gives no more than so many bytes at once, however many it is asked for."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file = file
        self._most = most
        self.seek = file.seek
        self.tell = file.tell

    def read(self, length: int = -1) -> bytes:
        if length > self._most:
            raise ValueError(f"there are no {length:,} bytes to read")
        return self._file.read(length)

    def readline(self) -> bytes:
        return self._file.readline(_LONGEST_LINE)


def _unwrapped(node: Any) -> tuple[str, Any]:
    """The call that makes a tensor: its name and arguments; nothing if the node is no tensor."""
    for _ in range(_MOST_WRAPPERS):
        if not isinstance(node, StandIn):
            break
        if node.name == _SUBCLASS and len(node.arguments) > 2:
            return str(node.arguments[0]), node.arguments[2]
        if node.name not in _WRAPPERS or not node.arguments:
            return node.name, node.arguments
        node = node.arguments[0]
    return "", ()


def _refusal(dtype: torch.dtype) -> str | None:
    if dtype in FLOATS.values():
        return None
    name = str(dtype).removeprefix("torch.")
    return "complex" if dtype.is_complex else f"made of whole numbers ({name})"

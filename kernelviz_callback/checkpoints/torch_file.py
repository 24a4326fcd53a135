"""Open files of ``torch.save`` without executing them and without importing their classes."""

import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO

import torch

from kernelviz_callback.checkpoints.byte_ranges import (
    FLOATS,
    ByteRange,
    Source,
    TensorBytes,
    check_tensor_count,
    open_source,
    size_on_disk,
    why_no_floats,
)
from kernelviz_callback.checkpoints.other_tensors import describe_other
from kernelviz_callback.checkpoints.pickle_budget import Budget
from kernelviz_callback.checkpoints.pickle_tree import find_tensors
from kernelviz_callback.checkpoints.safe_pickle import (
    Placeholder,
    quoted,
    read_pickle,
    text,
    whole_numbers,
)
from kernelviz_callback.checkpoints.stored_layers import StoredTensor

# A file of torch 1.5 or earlier has three pickles as its header: a magic number, a protocol version
# and a description of the machine. Then follow the objects, the keys of the storages, and the
# storages.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_HEADER = 3
LARGEST_DIRECTORY = 8 << 20  # bytes: enough for a zip file with 80,000 tensors
_LARGEST_PICKLE = 256 << 20  # bytes
_MOST_ABOUT_STORAGE = 8  # values that describe a storage; torch writes five or six
_RECORD_MAGIC = b"PK\3\4"
_RECORD_HEADER = struct.Struct("<4s22xHH")  # the name and an extra field follow
# Name of a storage class in a pickle to dtype.
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
# Functions that return their first argument as another kind of tensor.
_WRAPPERS = (
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor",
)
_SUBCLASS = "torch._tensor._rebuild_from_type_v2"
_MOST_WRAPPERS = 4


@dataclass(frozen=True, eq=False)
class TorchFile:
    """The content of a file of ``torch.save``.

    Attributes:
        content: The object that was saved, with a `Placeholder` for every object and tensor in it.
    """

    content: Any
    _storage: Callable[[str], ByteRange]

    def tensors(self) -> dict[str, StoredTensor]:
        """List the tensors without reading them, see `find_tensors`.

        Raises:
            ValueError: If the description of a tensor is damaged.
        """
        return find_tensors(self.content, self.tensor)

    def tensor(self, node: Any) -> StoredTensor | None:
        """Return the tensor that a node of the content describes, None if it is not a tensor.

        Raises:
            ValueError: If the description of the tensor is damaged.
        """
        name, arguments = rebuild_call(node)
        if name not in _TENSORS:
            return describe_other(node, name, arguments) if isinstance(node, Placeholder) else None
        try:
            return self._make_tensor(name, arguments)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise ValueError("damaged: the description of a tensor is not valid") from error

    def _make_tensor(self, name: str, arguments: Any) -> StoredTensor:
        storage, offset, shape, strides = arguments[:4]
        (identity,) = storage.arguments
        kind, key, view = _about_storage(identity)
        dtype = _STORAGES.get(kind.rpartition(".")[2], torch.uint8)
        kept = str(dtype)
        if name.endswith("v3"):
            kept = text(arguments[6])
            dtype = FLOATS.get(kept, torch.uint8)
        # Only files of torch 0.x have views of a storage.
        offsets = whole_numbers([offset, *(view[1:2] if view else ())])
        shape, strides = whole_numbers(shape), whole_numbers(strides)
        reason = why_no_floats(kept)
        if reason is not None:
            return StoredTensor(shape, refusal=reason)
        place = self._storage(key)
        return StoredTensor(shape, TensorBytes(place, dtype, shape, strides, sum(offsets)).read)


def open_torch_file(source: Source, budget: Budget | None = None) -> TorchFile:
    """Open a file of ``torch.save``.

    Args:
        source: The path or the content of the file.
        budget: What reading its pickles may cost; None for the usual limits.

    Raises:
        ValueError: If the file is damaged, hostile, or not a file of ``torch.save``. The message is
            the reason, without the name of the file.
        OSError: If the file cannot be read.
    """
    with open_source(source) as file:
        beginning = file.read(4)
        if beginning[:1] == b"\x80":
            return _open_legacy(source, file, budget or _budget_of(source, _LARGEST_PICKLE))
        if beginning == _RECORD_MAGIC:
            return _open_zip(source, file, budget)
    raise ValueError("neither a file of torch.save nor a safetensors file")


def _budget_of(source: Source, size: int) -> Budget:
    """Make the budget for pickles of a size. Holes in the file do not count: they cost nothing."""
    return Budget(min(size, size_on_disk(source)))


def _open_zip(source: Source, file: BinaryIO, budget: Budget | None) -> TorchFile:
    records = _list_records(source, file)
    if "data.pkl" not in records:
        raise ValueError("a zip file, but not one of torch.save: it has no data.pkl")
    if "byteorder" in records and records["byteorder"].length != len(b"little"):
        raise ValueError("its numbers are big-endian; only little-endian files can be read")
    size = records["data.pkl"].length
    if size > _LARGEST_PICKLE:
        raise ValueError(
            f"its pickle has {size:,} bytes besides its tensors; at most {_LARGEST_PICKLE:,} can "
            "be read"
        )
    pickled = BytesIO(records["data.pkl"].read())
    content, _ = read_pickle(pickled, budget or _budget_of(source, size))
    return TorchFile(content, lambda key: records[f"data/{key}"])


def _list_records(source: Source, file: BinaryIO) -> dict[str, ByteRange]:
    """List the records of a zip file by name, without the folder that all of them are in."""
    limited: Any = LimitedReads(file, LARGEST_DIRECTORY)
    with _complete_list(), zipfile.ZipFile(limited) as archive:
        records = archive.infolist()
    check_tensor_count(len(records))
    with _complete_list():
        starts = [_content_start(file, record) for record in records]
    # torch can save without checksums; all of them are 0 then.
    has_checksums = any(record.CRC for record in records)
    ranges: dict[str, ByteRange] = {}
    for record, start in zip(records, starts, strict=True):
        name = record.filename.partition("/")[2]
        if name == "constants.pkl" or name.startswith("code/"):
            raise ValueError("a TorchScript archive, a program; save its state_dict() instead")
        if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
            raise ValueError(
                f"its record {quoted(name)} is compressed, which torch.save never does; unpack it "
                "and pack it without compression: zip -0 -r"
            )
        if name in ranges:
            raise ValueError(f"damaged: it has two records {quoted(name)}")
        checksum = record.CRC if has_checksums else None
        ranges[name] = ByteRange(source, start, record.file_size, checksum)
    return ranges


@contextmanager
def _complete_list() -> Iterator[None]:
    """Say in the words of the user that the list of records cannot be read."""
    try:
        yield
    except (OSError, ValueError, NotImplementedError, struct.error, zipfile.BadZipFile) as error:
        raise ValueError(
            "damaged or cut short: its list of records is not complete; download or copy it again"
        ) from error


def _content_start(file: BinaryIO, record: zipfile.ZipInfo) -> int:
    """Find the first byte of the content of a record, and check the header before it."""
    file.seek(record.header_offset)
    magic, name_length, extra_length = _RECORD_HEADER.unpack(file.read(_RECORD_HEADER.size))
    name = file.read(name_length)
    if magic != _RECORD_MAGIC or name != record.orig_filename.encode():
        raise ValueError("a record is not at its place")
    return file.tell() + int(extra_length)


def _open_legacy(source: Source, file: BinaryIO, budget: Budget) -> TorchFile:
    file.seek(0)
    magic, *_ = [read_pickle(file, budget)[0] for _ in range(_LEGACY_HEADER)]
    if magic != _LEGACY_MAGIC:
        raise ValueError("a pickle, but not a file of torch.save")
    content, persistent = read_pickle(file, budget)
    keys, _ = read_pickle(file, budget)
    ranges: dict[str, ByteRange] = {}
    try:
        sizes: dict[str, int] = {}
        for identity in persistent:
            if identity[0] == "storage":  # else it is the source text of a module
                kind, key, _ = _about_storage(identity)
                sizes[key] = _STORAGES[kind.rpartition(".")[2]].itemsize
        at = file.tell()
        for key in map(text, keys):
            file.seek(at)
            (count,) = struct.unpack("<q", file.read(8))
            ranges[key] = ByteRange(source, at + 8, count * sizes[key])
            at += 8 + count * sizes[key]
    except (AttributeError, LookupError, TypeError, ValueError, struct.error, OSError) as error:
        raise ValueError(
            "damaged or cut short: its storages do not match its list of storages"
        ) from error
    return TorchFile(content, lambda key: ranges[key])


class LimitedReads:
    """A file that refuses to read more than a given number of bytes at once."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file = file
        self._most = most
        self.seek = file.seek
        self.tell = file.tell

    def read(self, length: int = -1) -> bytes:
        """Read bytes, or raise a `ValueError` if there are too many."""
        if length > self._most:
            raise ValueError(f"there are no {length:,} bytes to read")
        return self._file.read(length)


def _about_storage(identity: Any) -> tuple[str, str, tuple[Any, ...]]:
    """Return the class of a storage, its key, and the view of it; () without a view.

    Raises:
        TypeError: If the persistent id is not that of a storage.
    """
    if not isinstance(identity, tuple) or len(identity) > _MOST_ABOUT_STORAGE:
        raise TypeError("expected the id of a storage")
    what, kind, key, _, _, *view = identity
    if what != "storage" or (view and not isinstance(view[0], tuple | None)):
        raise TypeError("expected the id of a storage")
    return text(kind), text(key), (view[0] if view else None) or ()


def rebuild_call(node: Any) -> tuple[str, Any]:
    """Return the function that rebuilds a tensor and its arguments; empty for other nodes."""
    for _ in range(_MOST_WRAPPERS):
        if not isinstance(node, Placeholder):
            break
        if node.name == _SUBCLASS and len(node.arguments) > 2:
            called, arguments = node.arguments[0], node.arguments[2]
            return called if isinstance(called, str) else "", arguments
        if node.name not in _WRAPPERS or not node.arguments:
            return node.name, node.arguments
        node = node.arguments[0]
    return "", ()

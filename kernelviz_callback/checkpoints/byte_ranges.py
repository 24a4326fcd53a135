"""Ranges of bytes in a file: read one tensor without reading the rest of the file."""

import gc
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import BinaryIO, TypeAlias

import torch
from torch import Tensor

from kernelviz_callback.checkpoints.pickle_budget import RefusedError
from kernelviz_callback.storage import Folder, check_regular, open_to_read

Source: TypeAlias = Folder | bytes

CUT_SHORT = "damaged: it ends before the weights do; download or copy it again"
_CHUNK = 1 << 20  # bytes that are read at once to compute a checksum
_BLOCK = 512  # bytes in which the operating system counts the size on the disk
_MOST_TENSORS = 100_000  # in a file; the largest networks have 15,000

# The dtypes that weights may have in a file: name to dtype.
FLOATS: dict[str, torch.dtype] = {
    str(dtype): dtype
    for dtype in (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.float8_e4m3fn,
        torch.float8_e4m3fnuz,
        torch.float8_e5m2,
        torch.float8_e5m2fnuz,
    )
}


def why_no_floats(dtype: str) -> str | None:
    """Return why weights of a dtype cannot be shown; None if they can.

    Args:
        dtype: Name of the dtype in torch, with or without ``torch.``, or any other name.

    Example:
        >>> why_no_floats("torch.int8"), why_no_floats("float32")
        ('its weights are made of whole numbers (int8)', None)
    """
    name = dtype.removeprefix("torch.")
    if f"torch.{name}" in FLOATS:
        return None
    if name.startswith("complex"):
        return "its weights are complex"
    if name.startswith(("int", "uint", "bool", "qint", "quint")):
        return f"its weights are made of whole numbers ({name})"
    return f"its weights are numbers of the type {name[:40]!a}, which cannot be read"


@dataclass(frozen=True)
class ByteRange:
    """A range of bytes in a file.

    Attributes:
        source: Path of the file, which may be remote, or the content of the file.
        start: Position of the first byte.
        length: Number of bytes.
        checksum: CRC-32 of the bytes, None if the file stores no checksum.
    """

    source: Source
    start: int
    length: int
    checksum: int | None = None

    def read(self, first: int = 0, length: int | None = None) -> bytes:
        """Read a part of the range. If there is a checksum, read and check the whole range.

        Args:
            first: Position of the first byte to return, from the start of the range.
            length: Number of bytes to return; None for all from ``first`` on.

        Raises:
            ValueError: If the file is too short, or the checksum does not match.
            OSError: If the file cannot be read.
        """
        length = self.length - first if length is None else length
        if first < 0 or length < 0 or first + length > self.length:
            raise ValueError("damaged: its weights reach beyond the place where they are stored")
        if self.start < 0 or self.start + self.length > size_of(self.source):
            raise ValueError(CUT_SHORT)
        with open_source(self.source) as file:
            if self.checksum is None:
                file.seek(self.start + first)
                return _read_exactly(file, length)
            file.seek(self.start)
            return self._read_checked(file, first, length)

    def _read_checked(self, file: BinaryIO, first: int, length: int) -> bytes:
        kept = bytearray()
        checksum = 0
        for at in range(0, self.length, _CHUNK):
            chunk = _read_exactly(file, min(_CHUNK, self.length - at))
            checksum = zlib.crc32(chunk, checksum)
            kept += chunk[max(0, first - at) : max(0, first + length - at)]
        if checksum != self.checksum:
            raise ValueError("damaged: its weights do not have the checksum they were written with")
        return bytes(kept)


@dataclass(frozen=True)
class TensorBytes:
    """The bytes of a tensor in a file.

    Attributes:
        storage: Range of bytes that holds the storage of the tensor.
        dtype: A floating-point dtype.
        shape: Shape of the tensor.
        strides: Strides of the tensor, in elements; None if the tensor is contiguous.
        offset: Position of the first element in the storage, in elements.
    """

    storage: ByteRange
    dtype: torch.dtype
    shape: Sequence[int]
    strides: Sequence[int] | None = None
    offset: int = 0

    def read(self) -> Tensor:
        """Read the tensor as float32. It is contiguous and shares no memory.

        Raises:
            ValueError: If the file is damaged.
            OSError: If the file cannot be read.
        """
        strides = contiguous_strides(self.shape) if self.strides is None else self.strides
        if len(strides) != len(self.shape) or min((0, *strides, *self.shape, self.offset)) < 0:
            raise ValueError("damaged: its weights have an impossible shape")
        count = prod(self.shape)
        if count > size_of(self.storage.source):
            raise ValueError(f"damaged: it claims {count:,} weights, more than it has bytes")
        if count == 0:
            return torch.empty(tuple(self.shape), dtype=torch.float32, device="cpu")
        extent = 1 + sum((n - 1) * stride for n, stride in zip(self.shape, strides, strict=True))
        size = self.dtype.itemsize
        content = bytearray(self.storage.read(self.offset * size, extent * size))
        flat = torch.frombuffer(content, dtype=self.dtype)
        return flat.as_strided(tuple(self.shape), tuple(strides)).to(torch.float32).contiguous()


def contiguous_strides(shape: Sequence[int]) -> list[int]:
    """Compute the strides of a contiguous tensor, in elements.

    Example:
        >>> contiguous_strides((8, 3, 5, 5))
        [75, 25, 5, 1]
    """
    return [prod(shape[i + 1 :]) for i in range(len(shape))]


def open_source(source: Source) -> BinaryIO:
    """Open a file, or its content, for reading.

    Raises:
        ValueError: If it is not a file, see `open_to_read`.
        OSError: If it cannot be opened.
    """
    return BytesIO(source) if isinstance(source, bytes) else open_to_read(source)


def size_of(source: Source) -> int:
    """Return the size of a file in bytes.

    Raises:
        ValueError: If it is not a file, see `open_to_read`.
        OSError: If it does not exist.
    """
    if isinstance(source, bytes):
        return len(source)
    status = source.stat()
    if isinstance(source, Path):
        check_regular(status.st_mode)
    return status.st_size


def size_on_disk(source: Source) -> int:
    """Return the bytes that a file takes on its disk: a file with holes has a larger size.

    Raises:
        OSError: If it does not exist.
    """
    blocks = None if isinstance(source, bytes) else getattr(source.stat(), "st_blocks", None)
    return size_of(source) if blocks is None else min(size_of(source), _BLOCK * int(blocks))


@contextmanager
def without_collection() -> Iterator[None]:
    """Pause Python's garbage collector while many objects without cycles are made.

    It would go through all of them again and again: three times the work for some pickles.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def check_tensor_count(count: int) -> None:
    """Refuse a file with too many tensors: to list them would take minutes.

    Raises:
        RefusedError: If there are more than 100,000.
    """
    if count > _MOST_TENSORS:
        raise RefusedError(f"it has more than {_MOST_TENSORS:,} tensors")


def seekable_source(path: Folder) -> Source:
    """Return the path if parts of the file can be read, else read the whole file.

    Some servers can only send whole files.
    """
    if isinstance(path, Path):
        return path
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            file.read(1)
        return path
    except ValueError:
        return path.read_bytes()


def _read_exactly(file: BinaryIO, length: int) -> bytes:
    content = file.read(length)
    if len(content) != length:
        raise ValueError(CUT_SHORT)
    return content

"""Numbers where they lie in a file: found without reading them, read without the rest."""

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import torch
from torch import Tensor

from kernelviz_callback.storage import Folder

Source: TypeAlias = Folder | bytes

_CHUNK = 1 << 20

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


@dataclass(frozen=True)
class Region:
    """A part of a file.

    Attributes:
        source: The file: a path, a remote one too, or its bytes.
        start: The first byte.
        length: In bytes.
        checksum: CRC-32 of them, None if they have none.
    """

    source: Source
    start: int
    length: int
    checksum: int | None = None

    def read(self, first: int = 0, length: int | None = None) -> bytes:
        """Read a part of the region; what has a checksum is read whole to compare it.

        Raises:
            ValueError: If the file ends before, or the bytes do not have their checksum.
            OSError: If they cannot be read.
        """
        length = self.length - first if length is None else length
        if first < 0 or length < 0 or first + length > self.length:
            raise ValueError("damaged: its weights reach beyond the place where they are stored")
        if self.start < 0 or self.start + self.length > size_of(self.source):
            raise ValueError("damaged: it ends before the weights do")
        with open_source(self.source) as file:
            if self.checksum is None:
                file.seek(self.start + first)
                return _exactly(file, length)
            file.seek(self.start)
            return self._checked(file, first, length)

    def _checked(self, file: BinaryIO, first: int, length: int) -> bytes:
        kept = bytearray()
        checksum = 0
        for at in range(0, self.length, _CHUNK):
            chunk = _exactly(file, min(_CHUNK, self.length - at))
            checksum = zlib.crc32(chunk, checksum)
            kept += chunk[max(0, first - at) : max(0, first + length - at)]
        if checksum != self.checksum:
            raise ValueError("damaged: its weights do not have the checksum they were written with")
        return bytes(kept)


@dataclass(frozen=True)
class Numbers:
    """A tensor in a file.

    Attributes:
        region: Where its storage is.
        dtype: Of floating point.
        shape: Of the tensor.
        strides: Between its elements, in elements; None if it is contiguous.
        offset: Of its first element, in elements.
    """

    region: Region
    dtype: torch.dtype
    shape: Sequence[int]
    strides: Sequence[int] | None = None
    offset: int = 0

    def read(self) -> Tensor:
        """Read the tensor: float32, contiguous, in memory of its own.

        Raises:
            ValueError: If it is damaged.
            OSError: If it cannot be read.
        """
        strides = contiguous(self.shape) if self.strides is None else self.strides
        if len(strides) != len(self.shape) or min((*strides, *self.shape, self.offset)) < 0:
            raise ValueError("damaged: its weights have an impossible shape")
        count = prod(self.shape)
        if count > size_of(self.region.source):
            raise ValueError(f"damaged: it claims {count:,} weights, more than it has bytes")
        if count == 0:
            return torch.empty(tuple(self.shape))
        extent = 1 + sum((n - 1) * stride for n, stride in zip(self.shape, strides, strict=True))
        size = self.dtype.itemsize
        content = bytearray(self.region.read(self.offset * size, extent * size))
        flat = torch.frombuffer(content, dtype=self.dtype)
        return flat.as_strided(tuple(self.shape), tuple(strides)).to(torch.float32).contiguous()


def contiguous(shape: Sequence[int]) -> list[int]:
    """The strides of a contiguous tensor.

    Example:
        >>> contiguous((8, 3, 5, 5))
        [75, 25, 5, 1]
    """
    return [prod(shape[i + 1 :]) for i in range(len(shape))]


def open_source(source: Source) -> Any:
    """Open a file, or its bytes, for reading."""
    return BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def size_of(source: Source) -> int:
    """Tell the size of a file in bytes."""
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def readable_in_parts(path: Folder) -> Source:
    """The file itself; if its server sends nothing but the whole, that."""
    if isinstance(path, Path):
        return path
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            file.read(1)
        return path
    except ValueError:
        return path.read_bytes()


def _exactly(file: BinaryIO, length: int) -> bytes:
    content = file.read(length)
    if len(content) != length:
        raise ValueError("damaged: it ends before the weights do")
    return content

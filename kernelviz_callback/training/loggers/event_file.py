"""Write records to the event file of a TensorBoard writer, so that no failure reaches the writer.

TensorBoard writes records in a thread of its own. If one of them cannot be written, the writer is
broken: the next scalar that the training logs ends the training. So the records of this package do
not go through the thread. `EventFile.append` writes them into the same file, and raises what goes
wrong.
"""

import os
import struct
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from tensorboard.compat.tensorflow_stub.io.gfile import GFile, LocalFileSystem
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.summary.writer.record_writer import RecordWriter

from kernelviz_callback.storage import reserve

# TensorBoard computes a checksum of each record in Python: 0.2 microseconds a byte, 30 ms for the
# pictures of one snapshot. During that time the training competes for the interpreter. The
# `google-crc32c` package computes the same number in C, in microseconds.
try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without its C library it warns
        import google_crc32c
    HAS_C = google_crc32c.implementation == "c"
except ImportError:
    HAS_C = False

# TensorBoard's records do not hold the CRC-32C itself, but this rotation of it plus a constant, see
# https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
_MASK = 0xA282EAD8

_FRAME_BYTES = 16  # length, its checksum, and the checksum of the content
# Room that is reserved behind our records. If the disk is full for a moment, the training can still
# log hundreds of scalars, as it could without our records.
SPARE_BYTES = 2**16


class EventFile:
    """A local event file, to which both TensorBoard's thread and this package write.

    After a failed write, the file is cut to its last whole record. Otherwise a reader would find no
    later record.

    Args:
        file: The file of TensorBoard.
    """

    def __init__(self, file: GFile) -> None:
        self._file = file
        self._path = Path(os.fsdecode(file.filename))
        self._lock = threading.Lock()
        self._whole: int | None = None  # bytes of whole records, if a part of another follows

    def write(self, content: bytes) -> None:
        """Write a record of the training, in the place of ``RecordWriter.write``.

        Raises:
            Exception: Any exception of TensorBoard's file.
        """
        with self._lock:
            self._write(content)

    def append(self, records: Sequence[bytes]) -> None:
        """Write records of this package.

        Room for them is reserved first, so that they do not fill the disk for the training.

        Args:
            records: The contents of the records.

        Raises:
            OSError: If there is no room, or if the file cannot be written.
        """
        needed = sum(len(content) + _FRAME_BYTES for content in records)
        with self._lock:
            try:
                reserve(self._path, needed + SPARE_BYTES)
            except OSError:
                with suppress(OSError):
                    reserve(self._path, SPARE_BYTES)
                raise
        for content in records:  # the training may write between two records
            with self._lock:
                self._write(content)

    def _write(self, content: bytes) -> None:
        self._cut()
        size = self._size()
        try:
            write_record(self._file, content)
        except BaseException:
            self._whole = size
            with suppress(OSError):
                self._cut()
            raise

    def _cut(self) -> None:
        if self._whole is not None:
            if self._size() > self._whole:
                os.truncate(self._path, self._whole)
            self._whole = None

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0


def event_file_of(event_writer: Any) -> EventFile | None:
    """Return the file of a writer. From now on, the writer writes to it by way of this object.

    Args:
        event_writer: An ``EventFileWriter`` of TensorBoard.

    Returns:
        The same object at each call. None if the writer is of an unknown kind, or if its file is
        not local. Then at most the checksums of the writer are computed in C from now on.

    Raises:
        OSError: If the writer has failed before.
    """
    records: Any = getattr(getattr(event_writer, "_async_writer", None), "_writer", None)
    if type(records) is not RecordWriter:
        return None
    file = records._writer
    if type(file) is not GFile or type(file.fs) is not LocalFileSystem:
        if HAS_C:
            records.write = partial(write_record, file)
        return None
    found = getattr(vars(records).get("write"), "__self__", None)
    if not isinstance(found, EventFile):
        found = EventFile(file)
        records.write = found.write
        event_writer.flush()  # until its thread has left the method that was replaced
    return found


def write_record(file: Any, content: bytes) -> None:
    """Write a record as TensorBoard frames it: length, its checksum, the content, their checksum.

    Args:
        file: A binary file.
        content: The content of the record.
    """
    length = struct.pack("<Q", len(content))
    file.write(b"".join((length, _checksum(length), content, _checksum(content))))


def _checksum(content: bytes) -> bytes:
    if not HAS_C:
        return struct.pack("<I", masked_crc32c(content))
    crc = google_crc32c.value(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF)

"""Compute the checksums of TensorBoard's records in C.

TensorBoard writes a checksum after each record. Its own function is written in Python, and takes
about 0.2 microseconds a byte: 30 ms for the pictures of one snapshot. During that time the thread
of its writer competes with the training for the interpreter. The `google-crc32c` package computes
the same number in C, in microseconds.
"""

import struct
import warnings
from functools import partial
from typing import Any

from tensorboard.summary.writer.record_writer import RecordWriter

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without its C library it warns
        import google_crc32c
    _HAS_C = google_crc32c.implementation == "c"
except ImportError:
    _HAS_C = False

# TensorBoard's records do not hold the CRC-32C itself, but this rotation of it plus a constant, see
# https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
_MASK = 0xA282EAD8


def use_fast_checksums(event_writer: Any) -> None:
    """Let one writer compute its checksums in C from now on. Its file has the same bytes.

    Without the C library of `google-crc32c`, or if the writer is of an unknown kind, nothing
    changes. A second call changes nothing.

    Args:
        event_writer: An ``EventFileWriter`` of TensorBoard. Other writers are not changed.
    """
    records: Any = getattr(getattr(event_writer, "_async_writer", None), "_writer", None)
    if _HAS_C and type(records) is RecordWriter and "write" not in vars(records):
        records.write = partial(write_record, records._writer)


def write_record(file: Any, data: bytes) -> None:
    """Write a record as TensorBoard frames it: length, its checksum, the data, their checksum.

    Args:
        file: A binary file.
        data: The content of the record.
    """
    length = struct.pack("<Q", len(data))
    file.write(b"".join((length, _checksum(length), data, _checksum(data))))


def _checksum(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF)

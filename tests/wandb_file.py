"""Read the offline file of Weights & Biases, as ``wandb sync`` does."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK = 32768
_FRAME = struct.Struct("<IHB")  # checksum, length, kind of the part of a record
_WHOLE, _LAST = 1, 4  # kinds: the whole record, the last part of a record


def history(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of the only offline run below ``folder`` in order, with nested keys.

    The client writes in a process of its own, which may still be writing when the run is finished.
    Its last record says that the run has ended.
    """
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.rglob("*.wandb")
    end = time.monotonic() + 30
    while True:
        records = []
        for content in _records(path.read_bytes()):
            records.append(wandb_internal_pb2.Record())
            records[-1].ParseFromString(content)
        if any(record.HasField("exit") for record in records) or time.monotonic() > end:
            break
        time.sleep(0.1)
    rows = []
    for record in records:
        if record.HasField("history"):
            row: dict[str, Any] = {}
            for item in record.history.item:
                *outer, key = item.nested_key or [item.key]
                inner = row
                for name in outer:
                    inner = inner.setdefault(name, {})
                inner[key] = json.loads(item.value_json)
            rows.append(row)
    return rows


def _records(data: bytes) -> Iterator[bytes]:
    at, record = 7, b""  # the header of the file has 7 bytes
    while at + _FRAME.size <= len(data):
        if _BLOCK - at % _BLOCK < _FRAME.size:
            at += _BLOCK - at % _BLOCK
            continue
        _, length, part = _FRAME.unpack_from(data, at)
        at += _FRAME.size
        record += data[at : at + length]
        at += length
        if part in (_WHOLE, _LAST):
            yield record
            record = b""

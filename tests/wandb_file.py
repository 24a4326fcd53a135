"""Read what Weights & Biases has written offline, as its own `wandb sync` does."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK = 32768
_FRAME = struct.Struct("<IHB")  # checksum, length, whether a record begins, goes on or ends
_WHOLE, _LAST = 1, 4


def history(folder: Path) -> list[dict[str, Any]]:
    """The rows of the one offline run below ``folder``, in their order, nested keys as they are."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.rglob("*.wandb")
    rows = []
    for content in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
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
    at, record = 7, b""  # after the file's own header
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

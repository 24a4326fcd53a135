"""Safetensors files: ours, and any other."""

import json
from collections.abc import Mapping
from math import prod
from typing import Any

from kernelviz_callback.checkpoints.byte_ranges import (
    FLOATS,
    Numbers,
    Region,
    Source,
    open_source,
    size_of,
)
from kernelviz_callback.checkpoints.safe_pickle import quoted, whole_numbers
from kernelviz_callback.checkpoints.stored_layers import (
    Layers,
    StoredLayer,
    StoredTensor,
    find_layers,
)
from kernelviz_callback.model.convolutions import Geometry

_SENSELESS = "damaged: its header makes no sense"
_LENGTH_BYTES = 8  # of the header, before it
# As the safetensors library has it.
_LONGEST_HEADER = 100_000_000
_LARGEST_STEP = 1 << 16  # of a kernel, in pixels
_DTYPES = {
    "F64": "torch.float64",
    "F32": "torch.float32",
    "F16": "torch.float16",
    "BF16": "torch.bfloat16",
    "F8_E4M3": "torch.float8_e4m3fn",
    "F8_E5M2": "torch.float8_e5m2",
}


def is_safetensors(source: Source) -> bool:
    """Tell a safetensors file by its beginning: the length of a JSON object, and the object."""
    with open_source(source) as file:
        beginning = file.read(_LENGTH_BYTES + 1)
    return bool(beginning[_LENGTH_BYTES:] == b"{")


def open_safetensors(source: Source) -> tuple[Layers, Mapping[str, Any]]:
    """Find the layers of a safetensors file, and what a snapshot of ours tells of itself.

    Raises:
        ValueError: If the file is damaged.
        OSError: If it cannot be read.
    """
    stored, described = open_tensors(source)
    try:
        layers = described.get("layers")
        if not layers:
            return find_layers(stored), described
        found = {name: _of_snapshot(stored[f"{name}/weight"], layers[name]) for name in layers}
        return Layers(found, {}), described
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(_SENSELESS) from error


def open_tensors(source: Source) -> tuple[Mapping[str, StoredTensor], Mapping[str, Any]]:
    """Find the tensors of a safetensors file, and what a snapshot of ours tells of itself.

    Raises:
        ValueError: If the file is damaged.
        OSError: If it cannot be read.
    """
    size = size_of(source)
    with open_source(source) as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        start = _LENGTH_BYTES + length
        if start > size or length > _LONGEST_HEADER:
            raise ValueError(f"damaged: its header claims {length:,} of its {size:,} bytes")
        header = file.read(length)
    try:
        entries = json.loads(header.decode())  # not in any other encoding than UTF-8
        described = json.loads((entries.pop("__metadata__", None) or {}).get("kernelviz", "{}"))
        stored = {
            name: _stored(entry, Region(source, start, size - start))
            for name, entry in entries.items()
            if name.isprintable()
        }
        return stored, described
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(_SENSELESS) from error


def _of_snapshot(weights: StoredTensor, fields: Mapping[str, Any]) -> StoredLayer:
    if weights.refusal:
        raise ValueError("its weights are no real numbers")
    geometry = Geometry.from_dict(fields)
    count, _, *kernel = weights.shape
    each = len(kernel)
    steps = whole_numbers((*geometry.stride, *geometry.dilation, geometry.groups))
    # Responses take memory by these.
    if (
        not 1 <= each <= 3
        or (len(geometry.stride), len(geometry.dilation)) != (each, each)
        or min(steps) < 1
        or max(steps) > _LARGEST_STEP
        or count % geometry.groups
    ):
        raise ValueError("its geometry is impossible")
    return StoredLayer(weights.shape, weights.read, geometry)


def _stored(entry: Mapping[str, Any], numbers: Region) -> StoredTensor:
    shape = whole_numbers(entry["shape"])
    first, end = whole_numbers(entry["data_offsets"])
    dtype = FLOATS.get(_DTYPES.get(entry["dtype"], ""))
    if dtype is None:
        return StoredTensor(shape, refusal=f"{quoted(entry['dtype'])} numbers")
    if not 0 <= first <= end <= numbers.length or end - first != prod(shape) * dtype.itemsize:
        raise ValueError("its tensors have other sizes than their numbers")
    region = Region(numbers.source, numbers.start + first, end - first)
    return StoredTensor(shape, Numbers(region, dtype, shape).read)

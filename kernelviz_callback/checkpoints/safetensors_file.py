"""Open safetensors files: the snapshots of this package, and other files."""

import json
from collections.abc import Mapping
from math import prod
from typing import Any

from kernelviz_callback.checkpoints.byte_ranges import (
    CUT_SHORT,
    FLOATS,
    ByteRange,
    Source,
    TensorBytes,
    check_tensor_count,
    open_source,
    size_of,
    why_no_floats,
    without_collection,
)
from kernelviz_callback.checkpoints.safe_pickle import text, whole_numbers
from kernelviz_callback.checkpoints.stored_layers import (
    Layers,
    Shape,
    StoredLayer,
    StoredTensor,
    find_layers,
)
from kernelviz_callback.drawable import why_not_drawable
from kernelviz_callback.model.convolutions import Geometry
from kernelviz_callback.model.layer_names import printable
from kernelviz_callback.snapshots.format import read_description, read_record, weight_key

_BAD_HEADER = "damaged: its header is not valid"
_LENGTH_BYTES = 8  # the file begins with the length of the header
_LONGEST_HEADER = 8 << 20  # bytes; that of a file with 10,000 tensors has one megabyte
_LONGEST_NAME = 500  # characters
_LARGEST_NUMBER = 1 << 16  # largest stride, dilation and number of groups that is accepted
_DTYPES = {
    "F64": "torch.float64",
    "F32": "torch.float32",
    "F16": "torch.float16",
    "BF16": "torch.bfloat16",
    "F8_E4M3": "torch.float8_e4m3fn",
    "F8_E5M2": "torch.float8_e5m2",
    "F8_E8M0": "torch.float8_e8m0fnu",
    "C64": "torch.complex64",
    **{f"I{bits}": f"torch.int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"torch.uint{bits}" for bits in (8, 16, 32, 64)},
    "BOOL": "torch.bool",
}


def is_safetensors(source: Source) -> bool:
    """Check whether a file begins like a safetensors file: a length, then a JSON object."""
    with open_source(source) as file:
        beginning = file.read(_LENGTH_BYTES + 1)
    return bool(beginning[_LENGTH_BYTES:] == b"{")


def open_safetensors(source: Source) -> tuple[Layers, Mapping[str, Any]]:
    """Find the layers of a safetensors file without reading their weights.

    Returns:
        The layers and the description, see `kernelviz_callback.snapshots.format`. The description
        is empty if the file is not a snapshot.

    Raises:
        ValueError: If the file is damaged.
        OSError: If the file cannot be read.
    """
    stored, description = open_tensors(source)
    try:
        if not description.get("layers"):
            return find_layers(stored), description
        layers = {
            name: _snapshot_layer(name, stored, description) for name in description["layers"]
        }
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(_BAD_HEADER) from error
    reasons = {name: why_not_drawable(layer.shape) for name, layer in layers.items()}
    return (
        Layers(
            {printable(name): layer for name, layer in layers.items() if reasons[name] is None},
            {printable(name): reason for name, reason in reasons.items() if reason is not None},
            list(map(printable, layers)),
        ),
        description,
    )


def open_tensors(source: Source) -> tuple[dict[str, StoredTensor], Mapping[str, Any]]:
    """List all tensors of a safetensors file, and the description, see `open_safetensors`."""
    size = size_of(source)
    with open_source(source) as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        start = _LENGTH_BYTES + length
        if start > size:
            raise ValueError(
                f"damaged: its header cannot have {length:,} bytes; the file has {size:,} bytes"
            )
        if length > _LONGEST_HEADER:
            raise ValueError(
                f"its header has {length:,} bytes; at most {_LONGEST_HEADER:,} can be read"
            )
        header = file.read(length)
    try:
        with without_collection():
            # json.loads alone accepts other encodings.
            entries = json.loads(header.decode(), object_pairs_hook=_without_repeats)
        description = read_description(entries.pop("__metadata__", None))
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(_BAD_HEADER) from error
    check_tensor_count(len(entries))
    try:
        stored = {
            name: _stored_tensor(entry, ByteRange(source, start, size - start))
            for name, entry in entries.items()
            if len(name) <= _LONGEST_NAME
        }
        return stored, {} if description is None else description
    except EOFError as error:
        raise ValueError(CUT_SHORT) from error
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(_BAD_HEADER) from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict of an object of JSON. A name that it has twice would hide a tensor."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("an object has two values of the same name")
    return made


def _snapshot_layer(
    name: str, stored: Mapping[str, StoredTensor], description: Mapping[str, Any]
) -> StoredLayer:
    weights = stored[weight_key(name)]
    if weights.refusal:
        raise ValueError("its weights are not floating-point numbers")
    geometry = Geometry.from_dict(description["layers"][name])
    _check_geometry(geometry, weights.shape)
    reason = description.get("stored_only", {}).get(name)
    return StoredLayer(
        weights.shape,
        weights.read,
        geometry,
        lambda: read_record(description, name, lambda key: stored[key].read(), weights.shape),
        unknown=None if reason is None else printable(text(reason)),
    )


def _check_geometry(geometry: Geometry, shape: Shape) -> None:
    """Refuse a geometry that does not fit the weights, or that has an implausibly large number."""
    count, _, *kernel = shape
    dimensions = len(kernel)
    numbers = whole_numbers((*geometry.stride, *geometry.dilation, geometry.groups))
    padding = geometry.padding
    paddings = (0,) * dimensions if isinstance(padding, str) else whole_numbers(padding)
    if (
        not 1 <= dimensions <= 3
        or {*map(len, (geometry.stride, geometry.dilation, paddings))} != {dimensions}
        or len(text(geometry.kind)) > _LONGEST_NAME
        or min(numbers) < 1
        or max(numbers) > _LARGEST_NUMBER
        or count % geometry.groups
    ):
        raise ValueError("its geometry is impossible")


def _stored_tensor(entry: Mapping[str, Any], data: ByteRange) -> StoredTensor:
    shape = whole_numbers(entry["shape"])
    first, end = whole_numbers(entry["data_offsets"])
    name = text(entry["dtype"])
    name = _DTYPES.get(name, name)
    dtype = FLOATS.get(name)
    if dtype is None:
        return StoredTensor(shape, refusal=why_no_floats(name))
    if not 0 <= first <= end or end - first != prod(shape) * dtype.itemsize:
        raise ValueError("the size of a tensor does not match its bytes")
    if end > data.length:
        raise EOFError(CUT_SHORT)
    storage = ByteRange(data.source, data.start + first, end - first)
    return StoredTensor(shape, TensorBytes(storage, dtype, shape).read)

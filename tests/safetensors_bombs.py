"""Small safetensors files that ask for much."""

import json
import os
import struct
from typing import Any

from pickle_bombs import Maker


def safetensors(header: bytes | dict[str, Any], data: bytes = bytes(64)) -> Maker:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return lambda path: path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)


def layer(*shape: int, dtype: str = "F32") -> Maker:
    size = {"F32": 4, "F8_E4M3": 1}[dtype]
    for side in shape:
        size *= side
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}
    return safetensors({"conv.weight": entry}, os.urandom(size) if dtype == "F32" else bytes(size))


def snapshot(**changes: Any) -> Maker:
    """A snapshot of one layer whose description has been changed."""
    geometry = {
        "kind": "Conv2d",
        "stride": [1, 1],
        "padding": [0, 0],
        "dilation": [1, 1],
        "groups": 1,
    }
    described = {
        "schema_version": 1,
        "step": 1,
        "epoch": 0,
        "wall_time": 1.0,
        "layers": {"conv": geometry},
        "probe": None,
        "versions": {},
        "health": {},
        **changes,
    }
    entry = {"dtype": "F32", "shape": [4, 1, 1, 4], "data_offsets": [0, 64]}
    return safetensors({"__metadata__": {"kernelviz": json.dumps(described)}, "conv/weight": entry})


def parts(**shapes: tuple[int, ...]) -> Maker:
    """Tensors of zeros, all in one storage."""
    size, header = 1 << 20, {}
    for key, shape in shapes.items():
        count = 1
        for side in shape:
            count *= side
        header[f"conv.{key}"] = {"dtype": "F8_E4M3", "shape": shape, "data_offsets": [0, count]}
    return safetensors(header, bytes(size))


SAFETENSORS: dict[str, Maker] = {
    "dimensions": safetensors(
        {"conv.weight": {"dtype": "F32", "shape": [2**61] * 400_000, "data_offsets": [0, 64]}}
    ),
    "header of lists": safetensors(b'{"a":[' + b"[]," * 4_000_000 + b"[]]}"),
    "header of lists, as long as allowed": safetensors(b'{"a":[' + b"[]," * 2_700_000 + b"[]]}"),
    "header of tensors": safetensors(
        b"{"
        + b",".join(
            b'"%d":{"dtype":"F32","shape":[],"data_offsets":[0,4]}' % i for i in range(140_000)
        )
        + b"}"
    ),
    "deep header": safetensors(b'{"a":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}"),
    "long name": safetensors(
        {"x" * 7_000_000: {"dtype": "F32", "shape": [4, 1, 1, 4], "data_offsets": [0, 64]}}
    ),
    "list as dtype": safetensors(
        {"conv.weight": {"dtype": [], "shape": [4, 1, 1, 4], "data_offsets": [0, 64]}}
    ),
    "number as probe": snapshot(probe=7),
    "number as time": snapshot(wall_time=10**4000),
    "list in padding": snapshot(
        layers={
            "conv": {
                "kind": "Conv2d",
                "stride": [1, 1],
                "padding": [[], {}],
                "dilation": [1, 1],
                "groups": 1,
            }
        }
    ),
    "deep description": safetensors({"__metadata__": {"kernelviz": "[" * 1_000_000}}),
    "mask that broadcasts": parts(weight_orig=(1, 1000, 1, 1), weight_mask=(1000, 1, 1, 1000)),
    "length that broadcasts": parts(weight_v=(1, 1000, 1, 1), weight_g=(1000, 1, 1, 1000)),
    "vectors of another size": parts(weight_orig=(8, 3, 5, 5), weight_u=(9,), weight_v=(74,)),
    "200,000 filters": layer(200_000, 1, 1, 1),
    "a million channels": layer(1, 1_000_000, 1, 1, dtype="F8_E4M3"),
    "a million taps": layer(1, 1, 1_000_000, dtype="F8_E4M3"),
    "kernels of 1,000 x 1,000": layer(4, 1, 1000, 1000, dtype="F8_E4M3"),
}

"""Safetensors files: ours, and any other."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kernelviz_callback.filters import Geometry
from kernelviz_callback.opening.layers import Layers, StoredLayer, StoredTensor, find_layers

_LENGTH_BYTES = 8  # of the header, before it


def is_safetensors(path: Path) -> bool:
    """Tell a safetensors file by its beginning: the length of a JSON object, and the object."""
    with path.open("rb") as file:
        head = file.read(_LENGTH_BYTES + 1)
    length = int.from_bytes(head[:_LENGTH_BYTES], "little")
    return head[_LENGTH_BYTES:] == b"{" and length < path.stat().st_size


def open_safetensors(path: Path) -> tuple[Layers, Mapping[str, Any]]:
    """Find the layers of a safetensors file, and what a snapshot of ours tells of itself.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        file = safe_open(path, framework="pt")
        stored = {}
        for name in file.keys():  # noqa: SIM118 - it is no mapping
            entry = file.get_slice(name)
            if "F" in entry.get_dtype():  # F32, F16, BF16, F8_E4M3, ...; not I64, U8, BOOL
                shape = tuple(entry.get_shape())
                stored[name] = StoredTensor(shape, partial(_read, file, name))
        described = json.loads((file.metadata() or {}).get("kernelviz", "{}"))
        geometry = {n: Geometry.from_dict(g) for n, g in described.get("layers", {}).items()}
    except (SafetensorError, json.JSONDecodeError, TypeError, AttributeError) as error:
        raise ValueError(f"damaged: {error}") from error
    if not geometry:
        return find_layers(stored), described
    try:
        weights = {name: stored[f"{name}/weight"] for name in geometry}
    except KeyError as error:
        raise ValueError(f"damaged: it has no tensor {error}") from error
    found = {n: StoredLayer(w.shape, w.read, geometry[n]) for n, w in weights.items()}  # type: ignore[arg-type]
    return Layers(found, {}), described


def _read(file: Any, name: str) -> Tensor:
    try:
        tensor: Tensor = file.get_tensor(name)
    except SafetensorError as error:
        raise ValueError(f"damaged: {error}") from error
    return tensor.to(torch.float32, copy=True)

"""The file of a snapshot."""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors, save as to_safetensors
from torch import Tensor

from kernelviz_callback._version import __version__
from kernelviz_callback.health.kernel_health import FilterMeasures, KernelHealth
from kernelviz_callback.model.convolutions import Geometry
from kernelviz_callback.model.host import to_host
from kernelviz_callback.snapshots.names import snapshot_name
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.storage import Folder, Location, as_folder, write_whole

SCHEMA_VERSION = 1
_METADATA_KEY = "kernelviz"


def save_snapshot(snapshot: Snapshot, folder: Location) -> Folder:
    """Write a snapshot into a folder, whole or not at all, and return its path.

    The folder is a path or a URL, and is made if need be. A file of the same step is replaced.

    Raises:
        OSError: If it cannot be written; nothing is left behind then.
    """
    path = as_folder(folder) / snapshot_name(snapshot.step)
    described = {
        "schema_version": SCHEMA_VERSION,
        "step": snapshot.step,
        "epoch": snapshot.epoch,
        "wall_time": snapshot.wall_time,
        "layers": {name: geometry.to_dict() for name, geometry in snapshot.geometry.items()},
        "probe": {"name": snapshot.probe_name, "digest": snapshot.probe_digest}
        if snapshot.probe_digest
        else None,
        "versions": dict(snapshot.versions),
        "health": {
            name: health.to_dict(with_filters=False) for name, health in snapshot.health.items()
        },
    }
    tensors = {
        f"{name}/weight": to_host(weight.detach().to(torch.float32)).contiguous()
        for name, weight in snapshot.weights.items()
    }
    for name, health in snapshot.health.items():
        for number in fields(FilterMeasures):
            tensors[f"{name}/health/{number.name}"] = getattr(health.filters, number.name)
    write_whole(path, to_safetensors(tensors, {_METADATA_KEY: json.dumps(described)}))
    return path


def load_snapshot(path: Location) -> Snapshot:
    """Read a snapshot back, bit for bit. Nothing in the file is executed.

    Args:
        path: Of the file, or its URL.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no snapshot, is damaged, or was written by a newer version.
    """
    content = as_folder(path).read_bytes()
    try:
        tensors = from_safetensors(content)
        metadata = read_metadata(content).get(_METADATA_KEY)
        if metadata is None:
            raise ValueError(f"{path} is a safetensors file but no kernelviz snapshot")
        described = json.loads(metadata)
        if described["schema_version"] > SCHEMA_VERSION:
            raise ValueError(
                f"{path} has snapshot format {described['schema_version']}; this "
                f"kernelviz_callback {__version__} reads up to {SCHEMA_VERSION}: upgrade it"
            )
        probe = described["probe"] or {}
        return Snapshot(
            step=described["step"],
            epoch=described["epoch"],
            wall_time=described["wall_time"],
            weights={n: tensors[f"{n}/weight"] for n in described["layers"]},
            geometry={n: Geometry.from_dict(g) for n, g in described["layers"].items()},
            probe_name=probe.get("name"),
            probe_digest=probe.get("digest"),
            versions=described["versions"],
            health={
                name: _with_filters(name, health, tensors)
                for name, health in described.get("health", {}).items()
            },
        )
    except (SafetensorError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no whole kernelviz snapshot: {error}") from error


def _with_filters(
    layer: str, described: dict[str, Any], tensors: Mapping[str, Tensor]
) -> KernelHealth:
    numbers = {f.name: tensors[f"{layer}/health/{f.name}"] for f in fields(FilterMeasures)}
    return KernelHealth.from_dict(described, FilterMeasures(**numbers))


def read_metadata(content: bytes) -> dict[str, Any]:
    """The metadata of a safetensors file whose tensors have been read without complaint."""
    length = int.from_bytes(content[:8], "little")
    found: dict[str, Any] = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    return found

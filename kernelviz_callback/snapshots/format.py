"""The file format of a snapshot. No other module reads or writes the names in it.

A snapshot is one safetensors file, for example ``step-00000128.safetensors``. It holds a float32
tensor ``<layer>/weight`` for each layer, and one metadata entry ``kernelviz``. That entry is a JSON
object, here called the description, with the keys

* ``schema_version``: version of this format; files with a newer version are refused,
* ``step``, ``epoch`` and ``wall_time`` (seconds since 1970),
* ``layers``: layer name to geometry (``kind``, ``stride``, ``padding``, ``dilation``, ``groups``),
* ``probe``: ``name`` and SHA-256 ``digest``, or null,
* ``versions``: package name to version,
* ``stored_only``: layer name to reason, for layers whose weights could not be measured,
* ``health``: layer name to ``totals``, ``verdicts``, ``absent`` and ``false_alarm_rate``, as in
  `KernelHealth.to_dict`, for the layers that were examined.

A layer that was examined also has float32 tensors ``<layer>/health/<measure>``, with one number for
each filter.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
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
from kernelviz_callback.storage import Folder, Location, as_folder, open_to_read, write_whole

SCHEMA_VERSION = 1
_METADATA_KEY = "kernelviz"
_LARGEST_STEP = 1 << 62
# What reading raises if a description has other keys or types than those that were written.
_NOT_AS_WRITTEN = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError)


@dataclass(frozen=True, eq=False)
class LayerRecord:
    """What a snapshot file records about one layer, besides its weights.

    Attributes:
        wall_time: Time when the snapshot was taken, in seconds since 1970.
        probe_digest: `Probe.digest` of the probe at that time, None if there was no probe.
        health: Health of the layer at that time, None if the layer was not examined.
    """

    wall_time: float
    probe_digest: str | None
    health: KernelHealth | None


def save_snapshot(snapshot: Snapshot, folder: Location) -> Folder:
    """Write a snapshot into a folder, completely or not at all.

    A file of the same step is replaced.

    Args:
        snapshot: The snapshot to write.
        folder: Path or URL of the folder. It is created if it does not exist.

    Returns:
        The path of the file.

    Raises:
        OSError: If the file cannot be written. No partial file is left then.
    """
    path = as_folder(folder) / snapshot_name(snapshot.step)
    description = {
        "schema_version": SCHEMA_VERSION,
        "step": snapshot.step,
        "epoch": snapshot.epoch,
        "wall_time": snapshot.wall_time,
        "layers": {name: geometry.to_dict() for name, geometry in snapshot.geometry.items()},
        "probe": {"name": snapshot.probe_name, "digest": snapshot.probe_digest}
        if snapshot.probe_digest
        else None,
        "versions": dict(snapshot.versions),
        "stored_only": dict(snapshot.stored_only),
        "health": {
            name: health.to_dict(with_filters=False) for name, health in snapshot.health.items()
        },
    }
    tensors = {
        weight_key(name): to_host(weight.detach().to(torch.float32)).contiguous()
        for name, weight in snapshot.weights.items()
    }
    for name, health in snapshot.health.items():
        for measure in fields(FilterMeasures):
            tensors[_measure_key(name, measure.name)] = getattr(health.filters, measure.name)
    write_whole(path, to_safetensors(tensors, {_METADATA_KEY: json.dumps(description)}))
    return path


def load_snapshot(path: Location) -> Snapshot:
    """Read a snapshot back, bit for bit. Nothing in the file is executed.

    Args:
        path: Path or URL of the file.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not a snapshot, is damaged, or was written by a newer version.
    """
    try:
        with open_to_read(as_folder(path)) as file:
            content = file.read()
        tensors = from_safetensors(content)
        description = read_description(read_metadata(content))
        if description is None:
            raise ValueError("it is a safetensors file, but not a kernelviz snapshot")
        _check_version(description)
        probe_name, probe_digest = _probe_of(description)
        return Snapshot(
            step=_whole_number(description["step"]),
            epoch=_whole_number(description["epoch"]),
            wall_time=float(description["wall_time"]),
            weights={name: tensors[weight_key(name)] for name in description["layers"]},
            geometry={
                name: Geometry.from_dict(geometry)
                for name, geometry in description["layers"].items()
            },
            probe_name=probe_name,
            probe_digest=probe_digest,
            versions=description["versions"],
            health={
                name: _read_health(
                    description, name, tensors.__getitem__, tensors[weight_key(name)].shape
                )
                for name in description.get("health", {})
            },
            stored_only=dict(description.get("stored_only", {})),
        )
    except (SafetensorError, json.JSONDecodeError, *_NOT_AS_WRITTEN) as error:
        raise ValueError(f"{path} is not a complete kernelviz snapshot: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_description(metadata: Mapping[str, str] | None) -> dict[str, Any] | None:
    """Parse the description of a snapshot.

    Args:
        metadata: The metadata of a safetensors file, None if the file has none.

    Returns:
        The description as in the JSON object, not checked; None if the file is not a snapshot.

    Raises:
        ValueError: If the description is not valid JSON.
    """
    text = None if metadata is None else metadata.get(_METADATA_KEY)
    if text is None:
        return None
    description: dict[str, Any] = json.loads(text)
    return description


def read_record(
    description: Mapping[str, Any],
    layer: str,
    read_tensor: Callable[[str], Tensor],
    shape: Sequence[int],
) -> LayerRecord:
    """Read what a snapshot file records about one layer, besides its weights.

    Args:
        description: The description in the file, see `read_description`.
        layer: Name of the layer in the file.
        read_tensor: Reads the tensor of a name from the file; raises `KeyError` if it is missing.
        shape: Shape of the weights of the layer.

    Raises:
        ValueError: If the file is damaged or was written by a newer version.
        OSError: If the file cannot be read.
    """
    try:
        _check_version(description)
        return LayerRecord(
            wall_time=float(description["wall_time"]),
            probe_digest=_probe_of(description)[1],
            health=None
            if description.get("health", {}).get(layer) is None
            else _read_health(description, layer, read_tensor, shape),
        )
    except _NOT_AS_WRITTEN as error:
        raise ValueError(f"it is not a complete kernelviz snapshot: {error}") from error


def weight_key(layer: str) -> str:
    """Return the name of the tensor that holds the weights of a layer."""
    return f"{layer}/weight"


def read_metadata(content: bytes) -> dict[str, Any]:
    """Return the metadata of a safetensors file.

    Args:
        content: The whole file. The safetensors library must have accepted it before.
    """
    length = int.from_bytes(content[:8], "little")
    metadata: dict[str, Any] = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    return metadata


def _measure_key(layer: str, measure: str) -> str:
    return f"{layer}/health/{measure}"


def _check_version(description: Mapping[str, Any]) -> None:
    if description["schema_version"] > SCHEMA_VERSION:
        raise ValueError(
            f"it has snapshot format {description['schema_version']}; this "
            f"kernelviz_callback {__version__} reads up to {SCHEMA_VERSION}: upgrade it"
        )


def _probe_of(description: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the name and the digest of the probe, two times None without a probe."""
    probe = description["probe"]
    if probe is None:
        return None, None
    name, digest = (probe.get(k) if isinstance(probe, dict) else 0 for k in ("name", "digest"))
    if not isinstance(name, str | None) or not isinstance(digest, str):
        raise TypeError("the probe needs a name and a digest")
    return name, digest


def _whole_number(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < _LARGEST_STEP:
        raise TypeError("the step and the epoch must be whole numbers")
    return value


def _read_health(
    description: Mapping[str, Any],
    layer: str,
    read_tensor: Callable[[str], Tensor],
    shape: Sequence[int],
) -> KernelHealth:
    measures = {f.name: read_tensor(_measure_key(layer, f.name)) for f in fields(FilterMeasures)}
    health = KernelHealth.from_dict(description["health"][layer], FilterMeasures(**measures))
    if health.shape != tuple(shape):
        raise ValueError(f"damaged: the health of {layer} is that of another shape")
    return health

"""Snapshots: the exact weights of the watched layers at one step, and the file they live in.

One safetensors file a step, ``step-00000128.safetensors``: a float32 tensor ``<layer>/weight`` for
every layer, and one metadata entry, ``kernelviz``, a JSON object with the keys ``schema_version``,
``step``, ``epoch``, ``wall_time`` (seconds since 1970), ``layers`` (name to geometry: ``kind``,
``stride``, ``padding``, ``dilation``, ``groups``), ``probe`` (``name`` and SHA-256 ``digest``, or
null) and ``versions`` (package to version). Files with a newer ``schema_version`` are refused.
"""

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from kernelviz_callback import __version__
from kernelviz_callback.filters import Geometry
from kernelviz_callback.probe import Probe

SCHEMA_VERSION = 1
_METADATA_KEY = "kernelviz"
_PROBE_NAME = "probe.safetensors"
_FILE_NAME = re.compile(r"step-(\d{8,})\.safetensors")


@dataclass(frozen=True)
class Snapshot:
    """The watched layers at one step of a training.

    Attributes:
        step: Optimizer steps taken, ``trainer.global_step``.
        epoch: ``trainer.current_epoch``, from 0.
        wall_time: When it was taken, seconds since 1970.
        weights: Layer name to filters, shape (N, C, kH, kW), float32.
        geometry: Layer name to geometry, for the same layers.
        probe_name: Where the probe of this run came from, None if there was none.
        probe_digest: `Probe.digest`; equal digests mean comparable responses.
        versions: Package name to version, of the process that took the snapshot.
    """

    step: int
    epoch: int
    wall_time: float
    weights: Mapping[str, Tensor]
    geometry: Mapping[str, Geometry]
    probe_name: str | None = None
    probe_digest: str | None = None
    versions: Mapping[str, str] = field(
        default_factory=lambda: {
            "kernelviz_callback": __version__,
            "torch": str(torch.__version__),
        }
    )


def save_snapshot(snapshot: Snapshot, folder: str | Path) -> Path:
    """Write a snapshot into a folder, whole or not at all, and return its path.

    The folder is made if need be. A file of the same step is replaced.

    Raises:
        OSError: If it cannot be written; nothing is left behind then.
    """
    folder = Path(folder)
    path = folder / snapshot_name(snapshot.step)
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
    }
    tensors = {
        f"{name}/weight": weight.detach().to("cpu", torch.float32).contiguous()
        for name, weight in snapshot.weights.items()
    }
    write_whole(path, to_safetensors(tensors, {_METADATA_KEY: json.dumps(described)}))
    return path


def load_snapshot(path: str | Path) -> Snapshot:
    """Read a snapshot back, bit for bit. Nothing in the file is executed.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no snapshot, is damaged, or was written by a newer version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = (file.metadata() or {}).get(_METADATA_KEY)
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
                weights={n: file.get_tensor(f"{n}/weight") for n in described["layers"]},
                geometry={n: Geometry.from_dict(g) for n, g in described["layers"].items()},
                probe_name=probe.get("name"),
                probe_digest=probe.get("digest"),
                versions=described["versions"],
            )
    except (SafetensorError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no whole kernelviz snapshot: {error}") from error


def list_snapshots(folder: str | Path) -> dict[int, Path]:
    """Find the snapshots of a run: step to path, in the order of the steps.

    Returns:
        Empty if the folder has none or does not exist.
    """
    folder = Path(folder)
    names = (_FILE_NAME.fullmatch(p.name) for p in (folder.iterdir() if folder.is_dir() else ()))
    return dict(sorted((int(match[1]), folder / match[0]) for match in names if match))


def run_folder(log_dir: str | Path, *, fresh: bool) -> Path:
    """Choose where the snapshots of a training go: ``<log_dir>/kernelviz``.

    A training that starts anew where another has left snapshots gets ``kernelviz-2``, ``-3``, ...,
    so that two runs are never mixed.
    """
    folder = first = Path(log_dir) / "kernelviz"
    number = 1
    while fresh and list_snapshots(folder):
        number += 1
        folder = first.with_name(f"{first.name}-{number}")
    return folder


def save_probe(probe: Probe, folder: str | Path) -> None:
    """Write the exact probe of a run into its folder, as ``probe.safetensors``.

    The tensor ``probe`` is (C, H, W): uint8 where every value is a whole 255th, else float32.

    Raises:
        OSError: If it cannot be written.
    """
    levels = (probe.image * 255).round().clamp(0, 255).to(torch.uint8)
    exact = levels if torch.equal(levels.float() / 255, probe.image) else probe.image
    content = to_safetensors({"probe": exact}, {"name": probe.name, "digest": probe.digest})
    write_whole(Path(folder) / _PROBE_NAME, content)


def load_saved_probe(folder: str | Path) -> Probe | None:
    """Read the probe of a run back, or None if the folder has no readable one."""
    try:
        with safe_open(Path(folder) / _PROBE_NAME, framework="pt") as file:
            image = file.get_tensor("probe")
            image = image.float() / 255 if image.dtype == torch.uint8 else image
            return Probe(image, (file.metadata() or {}).get("name", "image"))
    except (OSError, SafetensorError):
        return None


def snapshot_name(step: int) -> str:
    """File name of the snapshot of a step.

    Example:
        >>> snapshot_name(128)
        'step-00000128.safetensors'
    """
    return f"step-{step:08d}.safetensors"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it: readers never see half of it.

    Raises:
        OSError: If it cannot be written; the temporary file is removed then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise

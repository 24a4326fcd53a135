"""Snapshots: the exact weights of the watched layers at one step, and the file they live in.

One safetensors file a step, ``step-00000128.safetensors``: a float32 tensor ``<layer>/weight`` for
every layer, and one metadata entry, ``kernelviz``, a JSON object with the keys ``schema_version``,
``step``, ``epoch``, ``wall_time`` (seconds since 1970), ``layers`` (name to geometry: ``kind``,
``stride``, ``padding``, ``dilation``, ``groups``), ``probe`` (``name`` and SHA-256 ``digest``, or
null) and ``versions`` (package to version). Files with a newer ``schema_version`` are refused.

A snapshot whose layers were examined also has, for each, float32 tensors
``<layer>/health/<number>`` of one number a filter, and the entry ``health`` in that object: layer
to ``totals``, ``verdicts``, ``absent`` and ``false_alarm_rate``, as in `KernelHealth.to_dict`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from kernelviz_callback import __version__
from kernelviz_callback.drawing.layer_pictures import kernel_picture
from kernelviz_callback.drawing.picture import EncodedImage
from kernelviz_callback.health.kernel_health import FilterMeasures, KernelHealth
from kernelviz_callback.model.convolutions import Geometry
from kernelviz_callback.model.feature_maps import FeatureMaps
from kernelviz_callback.probe.probe import Probe
from kernelviz_callback.storage import Folder, Location, as_folder, move, write_whole
from kernelviz_callback.training.cuda_stream import to_host

SCHEMA_VERSION = 1
_METADATA_KEY = "kernelviz"
_PROBE_NAME = "probe.safetensors"
_FILE_NAME = re.compile(r"step-(\d{8,})\.safetensors")
_OF_A_STEP = re.compile(r".*step-(\d{8,})\.(safetensors|png|jpg)")
_MOST_SHOWN = 4  # layers, where a snapshot shows itself


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
        health: Layer name to health, of the layers that were examined.
        feature_maps: Of the layers that do not read the image itself, at the size that they are
            drawn. They are in no file.
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
    health: Mapping[str, KernelHealth] = field(default_factory=dict)
    feature_maps: FeatureMaps = field(default_factory=FeatureMaps)

    @property
    def tensors(self) -> list[Tensor]:
        """What it keeps on the device of the training."""
        maps = self.feature_maps.maps.values()
        return [*self.weights.values(), *(each.values for each in maps)]

    def _repr_html_(self) -> str:
        """The kernels of its layers, for a notebook."""
        when = f"step {self.step} · epoch {self.epoch}"
        pictures = {
            layer: kernel_picture(
                weights,
                layer=layer,
                groups=self.geometry[layer].groups,
                when=when,
                health=self.health.get(layer),
            )
            for layer, weights in list(self.weights.items())[:_MOST_SHOWN]
        }
        more = len(self.weights) - len(pictures)
        rest = f"<p>and {more} more layers</p>" if more else ""
        return rest + "".join(
            EncodedImage.png(picture.pixels).to_html(f"kernels of {layer}, {when}")
            for layer, picture in pictures.items()
        )


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
        metadata = _metadata(content).get(_METADATA_KEY)
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


def list_snapshots(folder: Location) -> dict[int, Folder]:
    """Find the snapshots of a run: step to path, in the order of the steps.

    Returns:
        Empty if the folder has none or does not exist.
    """
    folder = as_folder(folder)
    names = (_FILE_NAME.fullmatch(p.name) for p in (folder.iterdir() if folder.is_dir() else ()))
    return dict(sorted((int(match[1]), folder / match[0]) for match in names if match))


def set_aside(folder: Location, *, after: int) -> list[int]:
    """Move what was written after a step into ``cut-off-1`` (``-2``, ...) below the folder.

    A training that resumes at a step takes the later ones again; those of the attempt that was cut
    off would stand between its own.

    Returns:
        The steps whose snapshots were moved.
    """
    folder = as_folder(folder)
    found = [(path, _OF_A_STEP.fullmatch(path.name)) for path in folder.iterdir()]
    later = [path for path, match in found if match and int(match[1]) > after]
    number = 1
    while (folder / f"cut-off-{number}").exists():
        number += 1
    for path in later:
        move(path, folder / f"cut-off-{number}" / path.name)
    steps = (_FILE_NAME.fullmatch(path.name) for path in later)
    return sorted(int(match[1]) for match in steps if match)


def save_probe(probe: Probe, folder: Location) -> None:
    """Write the exact probe of a run into its folder, as ``probe.safetensors``.

    The tensor ``probe`` is (C, H, W): uint8 where every value is a whole 255th, else float32. If
    the run had another probe before, that one is kept and this is ``probe-<digest>.safetensors``,
    with the first eight digits.

    Raises:
        OSError: If it cannot be written.
    """
    folder = as_folder(folder)
    known = load_saved_probe(folder)
    if known is not None and known.digest != probe.digest:
        path = folder / f"probe-{probe.digest[:8]}.safetensors"
    else:
        path = folder / _PROBE_NAME
    levels = (probe.image * 255).round().clamp(0, 255).to(torch.uint8)
    exact = levels if torch.equal(levels.float() / 255, probe.image) else probe.image
    content = to_safetensors({"probe": exact}, {"name": probe.name, "digest": probe.digest})
    write_whole(path, content)


def load_saved_probe(folder: Location, digest: str | None = None) -> Probe | None:
    """Read a probe of a run back, or None if the folder has no readable one.

    Args:
        folder: Of the run.
        digest: `Snapshot.probe_digest`, where a run had more than one; None for its first.
    """
    folder = as_folder(folder)
    names = [_PROBE_NAME] + ([f"probe-{digest[:8]}.safetensors"] if digest else [])
    for name in names:
        try:
            content = (folder / name).read_bytes()
            image = from_safetensors(content)["probe"]
        except (OSError, SafetensorError, KeyError):
            continue
        image = image.float() / 255 if image.dtype == torch.uint8 else image
        probe = Probe(image, _metadata(content).get("name", "image"))
        if digest in (None, probe.digest):
            return probe
    return None


def snapshot_name(step: int) -> str:
    """File name of the snapshot of a step.

    Example:
        >>> snapshot_name(128)
        'step-00000128.safetensors'
    """
    return f"step-{step:08d}.safetensors"


def _with_filters(
    layer: str, described: dict[str, Any], tensors: Mapping[str, Tensor]
) -> KernelHealth:
    numbers = {f.name: tensors[f"{layer}/health/{f.name}"] for f in fields(FilterMeasures)}
    return KernelHealth.from_dict(described, FilterMeasures(**numbers))


def _metadata(content: bytes) -> dict[str, Any]:
    """The metadata of a safetensors file whose tensors have been read without complaint."""
    length = int.from_bytes(content[:8], "little")
    found: dict[str, Any] = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    return found

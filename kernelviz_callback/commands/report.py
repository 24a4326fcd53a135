"""A run as one HTML page: the viewer of the Kernels tab with its data inside, to attach and send.

The page needs nothing else: no network, no other file. Its script is the tab's modules in one.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from string import Template

import torch
from torch import Tensor

from kernelviz_callback.checkpoints.byte_ranges import readable_in_parts
from kernelviz_callback.checkpoints.safetensors_file import open_tensors
from kernelviz_callback.commands.history import LayerHistory
from kernelviz_callback.health.examine import kernel_health, measured_from
from kernelviz_callback.health.kernel_health import FilterMeasures, KernelHealth
from kernelviz_callback.html_page import (
    as_base64,
    as_html_text,
    as_script_data,
    bundled_modules,
    package_text,
    script_digest,
)
from kernelviz_callback.probe.probe import Probe, load_probe
from kernelviz_callback.snapshots.event import Attempt, pack_image, pack_layer
from kernelviz_callback.snapshots.format import SCHEMA_VERSION
from kernelviz_callback.snapshots.probe_file import load_saved_probe
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.storage import Folder, as_folder, write_whole
from kernelviz_callback.tensorboard_plugin.header import id_of
from kernelviz_callback.tensorboard_plugin.timeline import RunTimeline, timeline_of

# Of all weights in a page, as base64: with the viewer and a photograph it stays below 6 MB.
MOST_BYTES = 5_200_000

_TAB = "tensorboard_plugin/static"
_ATTEMPT = Attempt("", 0, 0)  # there is one


def report_page(
    snapshots: Sequence[Snapshot], layer: str, *, probe: Probe, name: str, notes: Sequence[str] = ()
) -> str:
    """Show a layer through a training as a page to scrub through and to send.

    Args:
        snapshots: In the order of their steps, no step twice. Health is shown where they have it.
        layer: One that all of them have, of one shape.
        probe: What the filters respond to.
        name: Of the run.
        notes: What a reader should know, a sentence each.

    Returns:
        HTML. As many snapshots as `most_snapshots` says are 5.2 MB of it.

    Raises:
        ValueError: If a kernel is too large for the viewer.
    """
    packed = [pack_layer(snapshot, layer, _ATTEMPT) for snapshot in snapshots]
    image = pack_image(probe, _ATTEMPT)
    run = RunTimeline.of([image[0], *(header for header, _ in packed)])
    _, timeline = timeline_of({name: run})
    script = (
        bundled_modules(f"{_TAB}/source.js", f"{_TAB}/app.js")
        + "\nstart(document.body, new EmbeddedSource());\n"
    )
    return Template(package_text("commands/report.html")).substitute(
        title=as_html_text(f"{layer} of {name}"),
        style=package_text(f"{_TAB}/style.css"),
        script=script,
        worker=bundled_modules(f"{_TAB}/worker.js"),
        digest=script_digest(script),
        data=as_script_data(
            {
                "timeline": json.loads(timeline),
                "payloads": {name: {layer: {id_of(h): as_base64(p) for h, p in packed}}},
                "probes": {name: {probe.digest: as_base64(image[1])}},
                "notes": list(notes),
            }
        ),
    )


def most_snapshots(snapshot: Snapshot, layer: str) -> int:
    """How many snapshots of a layer a page has room for: no fewer than the first and the last.

    Args:
        snapshot: One of them.
        layer: Its name.

    Example:
        >>> from torch.nn import Conv2d
        >>> from kernelviz_callback import geometry_of
        >>> conv = Conv2d(3, 64, 7)
        >>> snapshot = Snapshot(0, 0, 0.0, {"conv": conv.weight}, {"conv": geometry_of(conv)})
        >>> most_snapshots(snapshot, "conv")
        203
    """
    _, payload = pack_layer(snapshot, layer, _ATTEMPT)
    return max(2, MOST_BYTES * 3 // 4 // len(payload))


def save_report(
    history: LayerHistory,
    path: Path,
    *,
    probe: Probe | None = None,
    notes: Sequence[str] = (),
    on_unread: Callable[[Exception], None] = lambda error: None,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> None:
    """Write the page of a layer of a run, or of other checkpoints of one training.

    Args:
        history: Of the layer.
        path: Of the page.
        probe: What the filters respond to; None for what the run recorded, else the test chart.
        notes: What a reader should know, a sentence each.
        on_unread: Told why one that was chosen could not be read; the others are shown.
        progress: Yields the steps it is given, while they are read.

    Raises:
        ValueError: If none can be read.
        OSError: If the page cannot be written.
    """
    said = list(notes)
    taken: list[Snapshot] = []
    chosen = _spread(history, said)
    for step in progress(chosen):
        for instead in _instead(step, list(history.names), chosen):
            try:
                taken.append(_taken(history, instead, taken))
                break
            except (OSError, ValueError) as error:
                said.append(f"A snapshot is missing: {error}")
                on_unread(error)
    if not taken:
        raise ValueError(f"none of {len(history.names)} checkpoints could be read")
    folder = as_folder(next(iter(history.names.values()))).parent
    seen = probe or load_saved_probe(folder, taken[0].probe_digest) or load_probe()
    shown = [replace(snapshot, probe_digest=seen.digest) for snapshot in taken]
    page = report_page(shown, history.layer, probe=seen, name=_run_name(folder), notes=said)
    write_whole(path, page.encode("utf-8", "replace"))


def _spread(history: LayerHistory, notes: list[str]) -> Sequence[int]:
    """As many steps as the page has room for, evenly spread, the first and the last among them."""
    steps = list(history.names)
    size = _snapshot(history, steps[0], 0, torch.zeros(history.shape))
    most = most_snapshots(size, history.layer)
    if len(steps) <= most:
        return steps
    notes.append(f"{most} of {len(steps)} snapshots are in this page, evenly spread.")
    return [steps[round(k * (len(steps) - 1) / (most - 1))] for k in range(most)]


def _instead(step: int, steps: Sequence[int], chosen: Sequence[int]) -> Sequence[int]:
    """A chosen step and those up to the next one, which take its place if it cannot be read.

    Of the last one they lie before it.
    """
    place, at = chosen.index(step), steps.index(step)
    if step != chosen[-1]:
        return steps[at : steps.index(chosen[place + 1])]
    return steps[at : steps.index(chosen[-2]) if place else None : -1]


def _taken(history: LayerHistory, step: int, before: Sequence[Snapshot]) -> Snapshot:
    """The layer at a step, with the health it was recorded with, or what it is found to be now."""
    layer = history.layer
    reading = history.read(step)
    weights = reading.weights[layer]
    snapshot = _snapshot(history, step, reading.epoch or 0, weights)
    recorded = _recorded(history.names[step], reading.name or layer)
    if recorded is not None:
        wall_time, digest, health = recorded
        if health is not None and before and _is_resumed(history, step, before[0].step):
            health = measured_from(before[0].weights[layer], weights, health)
        examined = {} if health is None else {layer: health}
        return replace(snapshot, wall_time=wall_time, probe_digest=digest, health=examined)
    first, previous = (before[i].weights[layer] if before else None for i in (0, -1))
    groups = history.geometry.groups
    health = kernel_health(weights, layer, first=first, previous=previous, groups=groups)
    return replace(snapshot, health={layer: health})


def _is_resumed(history: LayerHistory, step: int, first: int) -> bool:
    """Whether a snapshot is in another folder, whose first one it was measured from."""
    folder, earlier = (as_folder(history.names[at]).parent for at in (step, first))
    return folder != earlier


def _snapshot(history: LayerHistory, step: int, epoch: int, weights: Tensor) -> Snapshot:
    layer = history.layer
    return Snapshot(step, epoch, 0.0, {layer: weights}, {layer: history.geometry})


def _recorded(name: str, layer: str) -> tuple[float, str | None, KernelHealth | None] | None:
    """When a snapshot of ours was taken, its probe, and the health of a layer: only that is read.

    None if the file is none of ours.
    """
    if not name.endswith(".safetensors"):
        return None
    try:
        stored, described = open_tensors(readable_in_parts(as_folder(name)))
        if described["schema_version"] > SCHEMA_VERSION:
            return None
        wall_time = float(described["wall_time"])
        digest = (described["probe"] or {}).get("digest")
        told = described.get("health", {}).get(layer)
        if told is None:
            return wall_time, digest, None
        numbers = {
            f.name: stored[f"{layer}/health/{f.name}"].read() for f in fields(FilterMeasures)
        }
        return wall_time, digest, KernelHealth.from_dict(told, FilterMeasures(**numbers))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _run_name(folder: Folder) -> str:
    """The last two folders above the snapshots: ``lightning_logs/version_0``."""
    above = folder.parent if folder.name.startswith("kernelviz") else folder
    return "/".join(part.strip("/") for part in above.absolute().parts[-2:])

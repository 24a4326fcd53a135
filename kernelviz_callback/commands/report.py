"""A run as one HTML page: the viewer of the Kernels tab together with its data, in one file.

The page needs no network and no other file. Its script consists of the modules of the tab.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from string import Template

import torch
from torch import Tensor

from kernelviz_callback.commands.history import LayerHistory
from kernelviz_callback.filters.planes import why_no_image
from kernelviz_callback.health.examine import kernel_health, remeasure_drift
from kernelviz_callback.html_page import (
    as_base64,
    as_script_data,
    bundled_modules,
    package_text,
    whole_page,
)
from kernelviz_callback.probe.probe import Probe, load_probe
from kernelviz_callback.snapshots.event import pack_image, pack_layer
from kernelviz_callback.snapshots.probe_file import load_saved_probe
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.storage import Folder, as_folder, write_whole
from kernelviz_callback.tensorboard_plugin.header import id_of
from kernelviz_callback.tensorboard_plugin.timeline import RunTimeline, timeline_of

# Bytes of all weights in a page, as base64. With the viewer and a photograph a page has up to 6 MB.
MOST_BYTES = 5_200_000

_TAB = "tensorboard_plugin/static"


def report_page(
    snapshots: Sequence[Snapshot], layer: str, *, probe: Probe, name: str, notes: Sequence[str] = ()
) -> str:
    """Make a page that shows a layer at all steps of a training.

    Args:
        snapshots: Snapshots in the order of their steps, no step twice. Health is shown where a
            snapshot has it.
        layer: Name of a layer that all snapshots have, with the same shape.
        probe: The image that responses are computed from.
        name: Name of the run.
        notes: Notes for the reader, a sentence each.

    Returns:
        HTML. As many snapshots as `most_snapshots` returns take 5.2 MB of it.

    Raises:
        ValueError: If a kernel is too large for the viewer.
    """
    packed = [pack_layer(snapshot, layer) for snapshot in snapshots]
    image = pack_image(probe)
    run = RunTimeline.of([image[0], *(header for header, _ in packed)])
    _, timeline = timeline_of({name: run})
    body = Template(package_text("commands/report.html")).substitute(
        worker=bundled_modules(f"{_TAB}/worker.js"),
        data=as_script_data(
            {
                "timeline": json.loads(timeline),
                "payloads": {name: {layer: {id_of(h): as_base64(p) for h, p in packed}}},
                "probes": {name: {probe.digest: as_base64(image[1])}},
                "notes": list(notes),
            }
        ),
    )
    return whole_page(
        body,
        title=f"{layer} of {name}",
        style=package_text(f"{_TAB}/theme.css") + package_text(f"{_TAB}/style.css"),
        script=bundled_modules(f"{_TAB}/source.js", f"{_TAB}/app.js")
        + "\nstart(document.body, new EmbeddedSource());\n",
        sources="worker-src blob:; img-src data: blob:",
    )


def most_snapshots(snapshot: Snapshot, layer: str) -> int:
    """Return how many snapshots of a layer fit into a page: at least two, the first and the last.

    Args:
        snapshot: Any snapshot of the training.
        layer: Name of the layer.

    Example:
        >>> from torch.nn import Conv2d
        >>> from kernelviz_callback import geometry_of
        >>> conv = Conv2d(3, 64, 7)
        >>> snapshot = Snapshot(0, 0, 0.0, {"conv": conv.weight}, {"conv": geometry_of(conv)})
        >>> most_snapshots(snapshot, "conv")
        203
    """
    _, payload = pack_layer(snapshot, layer)
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
    """Write the page of a layer, from the snapshots or the checkpoints of a training.

    Args:
        history: History of the layer.
        path: Path of the page.
        probe: The image that responses are computed from. None for the probe that the run recorded,
            or, without one, the test chart.
        notes: Notes for the reader, a sentence each.
        on_unread: Called with the error if a chosen checkpoint cannot be read. Others are shown.
        progress: Receives the steps and yields them again, while they are read.

    Raises:
        ValueError: If no checkpoint can be read.
        OSError: If the page cannot be written.
    """
    all_notes = list(notes)
    taken: list[Snapshot] = []
    chosen = _choose_steps(history, all_notes)
    for step in progress(chosen):
        for candidate in _candidates(step, list(history.names), chosen):
            try:
                taken.append(_read_snapshot(history, candidate, taken))
                break
            except (OSError, ValueError) as error:
                all_notes.append(f"A snapshot is missing: {error}")
                on_unread(error)
    if not taken:
        raise ValueError(f"none of {len(history.names)} checkpoints could be read")
    folder = as_folder(next(iter(history.names.values()))).parent
    image = probe or load_saved_probe(folder, taken[0].probe_digest) or load_probe()
    if why_no_image(history.shape) is None:
        height, width = history.shape[2:]
        image = image.covering((height, width), history.geometry.plane_dilation)
    shown = [replace(snapshot, probe_digest=image.digest) for snapshot in taken]
    page = report_page(shown, history.layer, probe=image, name=_run_name(folder), notes=all_notes)
    write_whole(path, page.encode("utf-8", "replace"))


def _choose_steps(history: LayerHistory, notes: list[str]) -> Sequence[int]:
    """Choose as many steps as fit into the page, evenly spread, from the first to the last."""
    steps = list(history.names)
    example = _snapshot(
        history, steps[0], 0, torch.zeros(history.shape, dtype=torch.float32, device="cpu")
    )
    most = most_snapshots(example, history.layer)
    if len(steps) <= most:
        return steps
    notes.append(f"{most} of {len(steps)} snapshots are in this page, evenly spread.")
    return [steps[round(k * (len(steps) - 1) / (most - 1))] for k in range(most)]


def _candidates(step: int, steps: Sequence[int], chosen: Sequence[int]) -> Sequence[int]:
    """Return a chosen step, then the steps that may replace it if it cannot be read.

    They lie between the chosen step and the next one; for the last one, before it.
    """
    place, at = chosen.index(step), steps.index(step)
    if step != chosen[-1]:
        return steps[at : steps.index(chosen[place + 1])]
    return steps[at : steps.index(chosen[-2]) if place else None : -1]


def _read_snapshot(history: LayerHistory, step: int, before: Sequence[Snapshot]) -> Snapshot:
    """Read the layer at a step, with its recorded health. Without one, examine it now."""
    layer = history.layer
    reading, recorded = history.read_with_record(step)
    weights = reading.weights[layer]
    snapshot = _snapshot(history, step, reading.epoch or 0, weights)
    snapshot = replace(snapshot, stored_only=reading.unknown)
    if recorded is not None:
        health = recorded.health
        if health is not None and before and _is_resumed(history, step, before[0].step):
            health = remeasure_drift(before[0].weights[layer], weights, health)
        examined = {} if health is None else {layer: health}
        return replace(
            snapshot,
            wall_time=recorded.wall_time,
            probe_digest=recorded.probe_digest,
            health=examined,
        )
    first, previous = (before[i].weights[layer] if before else None for i in (0, -1))
    groups = history.geometry.groups
    health = kernel_health(weights, layer, first=first, previous=previous, groups=groups)
    return replace(snapshot, health={layer: health})


def _is_resumed(history: LayerHistory, step: int, first: int) -> bool:
    """Return whether a snapshot is in another folder, so that its health has another reference."""
    folder, first_folder = (as_folder(history.names[at]).parent for at in (step, first))
    return folder != first_folder


def _snapshot(history: LayerHistory, step: int, epoch: int, weights: Tensor) -> Snapshot:
    layer = history.layer
    return Snapshot(step, epoch, 0.0, {layer: weights}, {layer: history.geometry})


def _run_name(folder: Folder) -> str:
    """Return the last two folders above the snapshots, such as ``lightning_logs/version_0``."""
    above = folder.parent if folder.name.startswith("kernelviz") else folder
    return "/".join(part.strip("/") for part in above.absolute().parts[-2:])

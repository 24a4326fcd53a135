"""What there is to see: runs, layers, snapshots, from the headers of their events alone."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kernelviz_callback.tensorboard_plugin.header import (
    VERSION,
    Header,
    ProbeHeader,
    SnapshotHeader,
    id_of,
    tag_of,
)
from kernelviz_callback.verdict_names import VERDICT_COLOURS, VERDICT_NAMES


@dataclass(frozen=True)
class Fault:
    """An event that cannot be shown, and a sentence that says why."""

    tag: str
    reason: str


@dataclass(frozen=True)
class RunTimeline:
    """What is shown of one run.

    Attributes:
        layers: Name to snapshots by id, in the order of their steps, no step twice, all of one
            form.
        probes: Digest to header.
        superseded: How many snapshots a later attempt has replaced.
        damaged: What cannot be shown.
    """

    layers: dict[str, dict[str, SnapshotHeader]]
    probes: dict[str, ProbeHeader]
    superseded: int
    damaged: list[Fault]

    @classmethod
    def of(cls, headers: Iterable[Header], damaged: Iterable[Fault] = ()) -> "RunTimeline":
        """Sort the events of one run, given in the order in which its layers are to appear.

        Where a training was resumed, it repeats steps: what an earlier attempt recorded at or after
        the first step of a later one is left out.
        """
        found: dict[str, list[SnapshotHeader]] = {}
        probes: dict[str, ProbeHeader] = {}
        for header in headers:
            if header["kind"] == "snapshot":
                found.setdefault(header["layer"], []).append(header)
            elif header["attempt"] >= probes.get(header["digest"], header)["attempt"]:
                probes[header["digest"]] = header
        layers, superseded, faults = {}, 0, [*damaged]
        for layer, snapshots in found.items():
            current = _current(snapshots)
            superseded += len(snapshots) - len(current)
            form = _last_form(current)
            layers[layer] = {id_of(each): each for each in current if _form(each) == form}
            reason = f"it does not fit a layer that is {form}"
            faults += [Fault(tag_of(each), reason) for each in current if _form(each) != form]
        return cls(layers, probes, superseded, faults)

    def to_dict(self, name: str) -> dict[str, Any]:
        """Return what the page is told of the run, as JSON-able values."""
        return {
            "name": name,
            "layers": [_layer_entry([*layer.values()]) for layer in self.layers.values()],
            "probes": [_probe_entry(probe) for probe in self.probes.values()],
            "superseded": self.superseded,
            "damaged": [{"tag": each.tag, "reason": each.reason} for each in self.damaged],
        }


def describe_run(
    name: str, headers: Iterable[Header], damaged: Iterable[Fault] = ()
) -> dict[str, Any]:
    """Describe a run to the page, as JSON-able values; the arguments are those of `RunTimeline.of`.

    The snapshots of a layer stand in the order of their steps. What a later attempt has replaced is
    counted under "superseded" and otherwise left out.
    """
    return RunTimeline.of(headers, damaged).to_dict(name)


def timeline_of(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Describe several runs of `describe_run`: all that the page knows before it loads weights."""
    in_order = sorted(runs, key=lambda run: str(run["name"]))
    digest = hashlib.blake2b(json.dumps(in_order).encode(), digest_size=16)
    return {
        "version": VERSION,
        "revision": digest.hexdigest(),
        "verdict_names": [*VERDICT_NAMES],
        "verdict_colours": {name: [*colour] for name, colour in VERDICT_COLOURS.items()},
        "runs": in_order,
    }


def _current(snapshots: Sequence[SnapshotHeader]) -> list[SnapshotHeader]:
    first: dict[int, int] = {}
    for each in snapshots:
        first[each["attempt"]] = min(each["step"], first.get(each["attempt"], each["step"]))
    until, end = {}, math.inf
    for attempt in sorted(first, reverse=True):
        until[attempt] = end
        end = min(end, first[attempt])
    kept = [each for each in snapshots if each["step"] < until[each["attempt"]]]
    return sorted(kept, key=lambda each: each["step"])


def _last_form(snapshots: Sequence[SnapshotHeader]) -> str:
    """What the layer was like in the last attempt, by majority: one header may lie."""
    attempt = snapshots[-1]["attempt"]
    forms = Counter(_form(each) for each in snapshots if each["attempt"] == attempt)
    return forms.most_common(1)[0][0]


def _form(header: SnapshotHeader) -> str:
    """What no two snapshots of a layer may differ in."""
    height, width = header["shape"][2:]
    stored = f"{header['shape'][0]}x{header['shape'][1]} stored"
    kernels = f"{header['filters']}x{header['channels']}x{height}x{width}"
    return f"{kernels}, {stored}, {header['geometry']}"


def _layer_entry(snapshots: Sequence[SnapshotHeader]) -> dict[str, Any]:
    last = snapshots[-1]
    return {
        "name": last["layer"],
        "shape": last["shape"],
        "filters": last["filters"],
        "channels": last["channels"],
        "geometry": last["geometry"],
        "snapshots": [_snapshot_entry(each) for each in snapshots],
    }


def _snapshot_entry(header: SnapshotHeader) -> dict[str, Any]:
    return {
        "id": id_of(header),
        "step": header["step"],
        "epoch": header["epoch"],
        "time": header["wall_time"],
        "dtype": header["dtype"],
        "probe": header["probe"],
        "verdicts": header["verdicts"],
    }


def _probe_entry(header: ProbeHeader) -> dict[str, Any]:
    return {name: header[name] for name in ("digest", "name", "shape", "dtype")}

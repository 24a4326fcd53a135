"""The timeline: runs, layers and snapshots, from the headers of events alone."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kernelviz_callback.health.verdict_names import VERDICT_COLOURS, VERDICT_NAMES
from kernelviz_callback.tensorboard_plugin.header import (
    VERSION,
    Header,
    ProbeHeader,
    SnapshotHeader,
    id_of,
    tag_of,
)


@dataclass(frozen=True)
class Fault:
    """An event that cannot be shown, and the reason as a sentence."""

    tag: str
    reason: str


@dataclass(frozen=True)
class RunTimeline:
    """What the page shows of one run.

    Attributes:
        layers: Layer name to snapshots by id. They are in the order of their steps, each step
            occurs once, and all have the same shape and geometry.
        probes: Digest to header.
        superseded: How many snapshots a later attempt has replaced.
        damaged: The events that cannot be shown.
    """

    layers: dict[str, dict[str, SnapshotHeader]]
    probes: dict[str, ProbeHeader]
    superseded: int
    damaged: list[Fault]

    @classmethod
    def of(cls, headers: Iterable[Header], damaged: Iterable[Fault] = ()) -> "RunTimeline":
        """Make the timeline of one training. Its layers are in the order of their first headers.

        A resumed training repeats steps. The snapshots of an earlier attempt after the step at
        which a later attempt began are left out.
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
            valid = _not_superseded(snapshots)
            superseded += len(snapshots) - len(valid)
            current = _latest_of_each_step(valid)
            form = _newest_form(current)
            layers[layer] = {id_of(each): each for each in current if _form(each) == form}
            reason = f"it does not fit the other snapshots of the layer, which have {form}"
            faults += [Fault(tag_of(each), reason) for each in current if _form(each) != form]
        return cls(layers, probes, superseded, faults)

    @classmethod
    def of_trainings(
        cls, headers: Sequence[Header], damaged: Iterable[Fault]
    ) -> "list[RunTimeline]":
        """Make a timeline for each training that was recorded into one run, the earliest first.

        Damaged events are of unknown origin, and are listed under the first training.
        """
        snapshots = [header for header in headers if header["kind"] == "snapshot"]
        probes = [header for header in headers if header["kind"] == "probe"]
        began = {
            each["training"]: each["attempt"]
            for each in sorted(snapshots, key=lambda each: each["attempt"], reverse=True)
        }
        first, *others = sorted(began, key=began.__getitem__) or [""]
        by_training = {training: list[Header](probes) for training in (first, *others)}
        for each in snapshots:
            by_training[each["training"]].append(each)
        return [
            cls.of(by_training[first], damaged),
            *(cls.of(by_training[each]) for each in others),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the run as JSON-able values, without its name.

        The snapshots of a layer are in the order of their steps. Those that a later attempt has
        replaced are left out; "superseded" is their number.
        """
        return {
            "layers": [_layer_entry([*layer.values()]) for layer in self.layers.values()],
            "probes": [_probe_entry(probe) for probe in self.probes.values()],
            "superseded": self.superseded,
            "damaged": [{"tag": each.tag, "reason": each.reason} for each in self.damaged],
        }

    @cached_property
    def text(self) -> str:
        """`to_dict` as JSON."""
        return _json(self.to_dict())


def timeline_of(runs: Mapping[str, RunTimeline]) -> tuple[str, str]:
    """Make the timeline of all runs, given by name: what the page receives before any weights.

    Returns:
        The revision, which differs from that of any other timeline, and the timeline as JSON.
    """
    described = ",".join(f'{{"name":{_json(name)},{runs[name].text[1:]}' for name in sorted(runs))
    revision = hashlib.blake2b(described.encode("utf-8", "replace"), digest_size=16).hexdigest()
    about = {
        "version": VERSION,
        "revision": revision,
        "verdict_names": [*VERDICT_NAMES],
        "verdict_colours": {name: [*colour] for name, colour in VERDICT_COLOURS.items()},
    }
    return revision, f'{_json(about)[:-1]},"runs":[{described}]}}'


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _not_superseded(snapshots: Sequence[SnapshotHeader]) -> list[SnapshotHeader]:
    began_at = {each["attempt"]: each["began_at"] for each in snapshots}
    last, end = {}, math.inf
    for attempt in sorted(began_at, reverse=True):
        last[attempt] = end
        end = min(end, began_at[attempt])
    return [each for each in snapshots if each["step"] <= last[each["attempt"]]]


def _latest_of_each_step(snapshots: Sequence[SnapshotHeader]) -> list[SnapshotHeader]:
    """Sort by step; of snapshots of the same step, keep the one of the latest attempt.

    A training that was resumed after a crash records the step again from which it resumed.
    """
    in_order = sorted(snapshots, key=lambda each: (each["step"], each["attempt"]))
    return [*{each["step"]: each for each in in_order}.values()]


def _newest_form(snapshots: Sequence[SnapshotHeader]) -> str:
    """Return the newest form in the last attempt, as the films of the training show it.

    If possible, it is one that several snapshots have, because single headers may be wrong.
    """
    attempt = snapshots[-1]["attempt"]
    forms = [_form(each) for each in snapshots if each["attempt"] == attempt]
    counts = Counter(forms)
    return next((form for form in reversed(forms) if counts[form] > 1), forms[-1])


def _form(header: SnapshotHeader) -> str:
    """Describe what all snapshots of a layer must share."""
    kernel = "x".join(map(str, header["shape"][2:]))
    stored = f"{header['shape'][0]}x{header['shape'][1]} stored"
    kernels = f"{header['filters']}x{header['channels']}x{kernel}"
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
    entry = {
        "id": id_of(header),
        "step": header["step"],
        "epoch": header["epoch"],
        "time": header["wall_time"],
        "dtype": header["dtype"],
        "probe": header["probe"],
        "drift": header["drift"],
        "verdicts": header["verdicts"],
    }
    return entry | ({"stored_only": True} if header.get("stored_only") else {})


def _probe_entry(header: ProbeHeader) -> dict[str, Any]:
    return {name: header[name] for name in ("digest", "name", "shape", "dtype")}

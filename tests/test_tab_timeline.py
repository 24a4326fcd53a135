"""The timeline of the Kernels tab, of headers alone: what counts, in which order, what does not."""

import json
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tab_runs import ATTEMPT, DIGEST, GEOMETRY

from kernelviz_callback.tensorboard_plugin.catalogue import Catalogue
from kernelviz_callback.tensorboard_plugin.codec import pack_probe, pack_snapshot
from kernelviz_callback.tensorboard_plugin.header import Header, tag_of, to_content
from kernelviz_callback.tensorboard_plugin.timeline import Fault, describe_run, timeline_of
from kernelviz_callback.verdict_names import VERDICT_NAMES


def snapshot(
    step: int, attempt: int = ATTEMPT, layer: str = "conv1", filters: int = 2, **about: Any
) -> Header:
    fields = {"epoch": 0, "wall_time": 1.5, "geometry": GEOMETRY}
    weights = np.ones((filters, 3, 5, 5), np.float32)
    return pack_snapshot(weights, layer=layer, step=step, attempt=attempt, **{**fields, **about})[0]


def probe(attempt: int = ATTEMPT, name: str = "a.png") -> Header:
    return pack_probe(np.ones((1, 4, 4)), name=name, digest=DIGEST, attempt=attempt)[0]


def ids_of(run: Any, layer: int = 0) -> list[str]:
    return [each["id"] for each in run["layers"][layer]["snapshots"]]


def contents_of(**runs: list[Header]) -> dict[str, dict[str, bytes]]:
    return {
        run: {tag_of(each): to_content(each) for each in headers} for run, headers in runs.items()
    }


def test_a_run_is_described_for_the_page() -> None:
    bits = np.array([1, 3], np.uint8)
    first = snapshot(7, epoch=2, verdict_bits=bits, probe=DIGEST)
    run = describe_run("a", [probe(), first, snapshot(12)], [Fault("k/x", "its header is gone")])
    assert json.loads(json.dumps(run)) == {
        "name": "a",
        "layers": [
            {
                "name": "conv1",
                "shape": [2, 3, 5, 5],
                "filters": 2,
                "channels": 3,
                "geometry": {
                    "kind": "Conv2d",
                    "stride": [1, 1],
                    "padding": [0, 0],
                    "dilation": [1, 1],
                    "groups": 1,
                },
                "snapshots": [
                    {
                        "id": f"7-{ATTEMPT}",
                        "step": 7,
                        "epoch": 2,
                        "time": 1.5,
                        "dtype": "float16",
                        "probe": DIGEST,
                        "verdicts": {"non-finite": 2, "near-zero": 1},
                    },
                    {
                        "id": f"12-{ATTEMPT}",
                        "step": 12,
                        "epoch": 0,
                        "time": 1.5,
                        "dtype": "float16",
                        "probe": None,
                        "verdicts": None,
                    },
                ],
            }
        ],
        "probes": [{"digest": DIGEST, "name": "a.png", "shape": [1, 4, 4], "dtype": "uint8"}],
        "superseded": 0,
        "damaged": [{"tag": "k/x", "reason": "its header is gone"}],
    }


def test_layers_stand_in_the_order_of_their_appearance_and_snapshots_by_step() -> None:
    headers = [snapshot(step, layer=layer) for step in (10, 9, 100) for layer in ("stem", "conv")]
    run = describe_run("a", headers)
    assert [layer["name"] for layer in run["layers"]] == ["stem", "conv"]
    assert ids_of(run, 1) == [f"9-{ATTEMPT}", f"10-{ATTEMPT}", f"100-{ATTEMPT}"]


def test_a_resumed_training_takes_the_place_of_what_it_repeats() -> None:
    first = [snapshot(step, 1) for step in (0, 10, 20, 30)]
    second = [snapshot(step, 2) for step in (15, 20)]
    run = describe_run("a", [*first, *second])
    assert ids_of(run) == ["0-1", "10-1", "15-2", "20-2"]
    assert run["superseded"] == 2


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 12)), min_size=1, unique=True))
def test_what_is_superseded_is_what_a_later_attempt_has_reached(events: Any) -> None:
    kept = [
        (step, attempt)
        for attempt, step in events
        if not any(
            later > attempt and min(s for a, s in events if a == later) <= step
            for later, _ in events
        )
    ]
    run = describe_run("a", [snapshot(step, attempt) for attempt, step in events])
    assert ids_of(run) == [f"{step}-{attempt}" for step, attempt in sorted(kept)]
    assert run["superseded"] == len(events) - len(kept)
    assert len({step for step, _ in kept}) == len(kept)


def test_a_layer_has_one_form_that_of_its_last_attempt() -> None:
    other = {**GEOMETRY, "dilation": (2, 2)}
    headers = [snapshot(0, 1), snapshot(1, 1, geometry=other), snapshot(2, 2, filters=4)]
    run = describe_run("a", [*headers, snapshot(3, 2, filters=4)])
    assert ids_of(run) == ["2-2", "3-2"]
    assert run["layers"][0]["filters"] == 4
    assert [each["tag"] for each in run["damaged"]] == [tag_of(header) for header in headers[:2]]
    assert "does not fit a layer that is 4x3x5x5" in run["damaged"][0]["reason"]


def test_one_odd_snapshot_does_not_discredit_the_others() -> None:
    odd = snapshot(3, filters=4)
    run = describe_run("a", [snapshot(0), snapshot(1), snapshot(2), odd])
    assert ids_of(run) == [f"{step}-{ATTEMPT}" for step in range(3)]
    assert [each["tag"] for each in run["damaged"]] == [tag_of(odd)]


def test_a_probe_is_told_once_as_it_was_last() -> None:
    run = describe_run("a", [probe(2, "new.png"), probe(1, "old.png")])
    assert [each["name"] for each in run["probes"]] == ["new.png"]


def test_the_timeline_has_runs_by_name_and_what_verdicts_are_called() -> None:
    runs = [describe_run(name, [snapshot(0)]) for name in ("b", "a", "c")]
    timeline = timeline_of(runs)
    assert timeline["version"] == 1
    assert [run["name"] for run in timeline["runs"]] == ["a", "b", "c"]
    assert timeline["verdict_names"] == list(VERDICT_NAMES)
    assert timeline["verdict_colours"].keys() == set(VERDICT_NAMES)
    assert timeline["verdict_colours"]["non-finite"] == [255, 0, 255]
    assert timeline_of(runs[::-1]) == timeline
    assert timeline_of(runs[:2])["revision"] != timeline["revision"]


def test_a_catalogue_parses_a_header_once() -> None:
    early = Catalogue().updated(contents_of(a=[snapshot(0)], b=[snapshot(0)]))
    assert early.updated(contents_of(a=[snapshot(0)], b=[snapshot(0)])) is early
    late = early.updated(contents_of(a=[snapshot(0), snapshot(1)]))
    assert [*late.runs] == ["a"]
    assert late.runs["a"].layers["conv1"][f"0-{ATTEMPT}"] is early.parsed["a", tag_of(snapshot(0))]
    assert late.revision != early.revision
    assert json.loads(late.text)["revision"] == late.revision
    changed = contents_of(a=[snapshot(0, filters=4)])
    assert early.updated(changed).runs["a"].layers["conv1"][f"0-{ATTEMPT}"]["filters"] == 4


def test_a_catalogue_lists_what_is_damaged_until_it_is_gone() -> None:
    headers = [snapshot(0), snapshot(1)]
    tags = [tag_of(header) for header in headers]
    contents = contents_of(a=headers, b=headers)
    contents["b"]["k/x"] = b"{"
    whole = Catalogue().updated(contents)
    assert [fault.tag for fault in whole.runs["b"].damaged] == ["k/x"]
    part = whole.without("a", {tags[0]: "it is cut off"})
    assert part.revision != whole.revision
    assert [*part.runs["a"].layers["conv1"]] == [f"1-{ATTEMPT}"]
    assert part.runs["a"].damaged == [Fault(tags[0], "it is cut off")]
    assert [*part.runs["b"].layers["conv1"]] == [*whole.runs["b"].layers["conv1"]]
    more = part.updated(contents_of(a=[*headers, snapshot(2)]))
    assert [*more.runs["a"].layers["conv1"]] == [f"1-{ATTEMPT}", f"2-{ATTEMPT}"]
    assert part.updated({}).updated(contents).revision == whole.revision


def test_a_layer_without_a_readable_snapshot_is_no_layer() -> None:
    contents = contents_of(a=[snapshot(0)])
    run = Catalogue().updated(contents).without("a", {tag_of(snapshot(0)): "no"}).runs["a"]
    assert run.layers == {}
    assert len(run.damaged) == 1

"""The timeline, from headers alone: which snapshots are listed, and in which order."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given, strategies as st
from tab_runs import ATTEMPT, DIGEST, GEOMETRY

from kernelviz_callback.health.verdict_names import VERDICT_NAMES
from kernelviz_callback.tensorboard_plugin.catalogue import Catalogue
from kernelviz_callback.tensorboard_plugin.codec import pack_probe, pack_snapshot
from kernelviz_callback.tensorboard_plugin.header import Header, tag_of, to_content
from kernelviz_callback.tensorboard_plugin.timeline import Fault, RunTimeline, timeline_of


def snapshot(
    step: int, attempt: int = ATTEMPT, layer: str = "conv1", filters: int = 2, **about: Any
) -> Header:
    fields = {"epoch": 0, "wall_time": 1.5, "geometry": GEOMETRY}
    weights = np.ones((filters, 3, 5, 5), np.float32)
    return pack_snapshot(weights, layer=layer, step=step, attempt=attempt, **{**fields, **about})[0]


def probe(attempt: int = ATTEMPT, name: str = "a.png") -> Header:
    return pack_probe(np.ones((1, 4, 4)), name=name, digest=DIGEST, attempt=attempt)[0]


def described(headers: Sequence[Header], damaged: Sequence[Fault] = ()) -> dict[str, Any]:
    return RunTimeline.of(headers, damaged).to_dict()


def ids_of(run: Any, layer: int = 0) -> list[str]:
    return [each["id"] for each in run["layers"][layer]["snapshots"]]


def contents_of(**runs: list[Header]) -> dict[str, dict[str, bytes]]:
    return {
        run: {tag_of(each): to_content(each) for each in headers} for run, headers in runs.items()
    }


def test_weights_that_are_only_stored_are_marked_in_the_timeline() -> None:
    [layer] = described([snapshot(1), snapshot(2, stored_only=True)])["layers"]
    assert [each.get("stored_only") for each in layer["snapshots"]] == [None, True]


def test_a_run_is_described_for_the_page() -> None:
    bits = np.array([1, 3], np.uint8)
    first = snapshot(7, epoch=2, verdict_bits=bits, probe=DIGEST, drift=0.25)
    run = described([probe(), first, snapshot(12)], [Fault("k/x", "its header is gone")])
    assert json.loads(json.dumps(run)) == {
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
                        "drift": 0.25,
                        "verdicts": {"non-finite": 2, "near-zero": 1},
                    },
                    {
                        "id": f"12-{ATTEMPT}",
                        "step": 12,
                        "epoch": 0,
                        "time": 1.5,
                        "dtype": "float16",
                        "probe": None,
                        "drift": None,
                        "verdicts": None,
                    },
                ],
            }
        ],
        "probes": [{"digest": DIGEST, "name": "a.png", "shape": [1, 4, 4], "dtype": "uint8"}],
        "superseded": 0,
        "damaged": [{"tag": "k/x", "reason": "its header is gone"}],
    }


def test_layers_are_in_order_of_appearance_and_snapshots_by_step() -> None:
    headers = [snapshot(step, layer=layer) for step in (10, 9, 100) for layer in ("stem", "conv")]
    run = described(headers)
    assert [layer["name"] for layer in run["layers"]] == ["stem", "conv"]
    assert ids_of(run, 1) == [f"9-{ATTEMPT}", f"10-{ATTEMPT}", f"100-{ATTEMPT}"]


def test_a_resumed_training_replaces_the_steps_that_it_repeats() -> None:
    first = [snapshot(step, 1) for step in (0, 10, 20, 30)]
    second = [snapshot(step, 2, began_at=15) for step in (15, 20)]
    run = described([*first, *second])
    assert ids_of(run) == ["0-1", "10-1", "15-2", "20-2"]
    assert run["superseded"] == 2


def test_a_snapshot_logged_again_replaces_only_itself() -> None:
    """After a crash, step 20 is shown as it was logged before, because it was not logged again."""
    first = [snapshot(step, 1) for step in (0, 10, 20, 30, 40)]
    second = [snapshot(step, 2, began_at=30) for step in (10, 30, 35)]
    run = described([*first, *second])
    assert ids_of(run) == ["0-1", "10-2", "20-1", "30-2", "35-2"]
    assert run["superseded"] == 1


@given(
    st.lists(st.integers(0, 12), min_size=4, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=1, unique=True),
)
def test_the_latest_snapshot_of_each_step_is_shown(began_at: list[int], events: Any) -> None:
    valid = [
        (step, attempt)
        for attempt, step in events
        if not any(later > attempt and began_at[later] < step for later, _ in events)
    ]
    shown = sorted({step: (step, attempt) for step, attempt in sorted(valid)}.values())
    headers = [snapshot(step, each, began_at=began_at[each]) for each, step in events]
    run = described(headers)
    assert ids_of(run) == [f"{step}-{attempt}" for step, attempt in shown]
    assert run["superseded"] == len(events) - len(valid)


def test_a_layer_has_the_form_of_its_last_attempt() -> None:
    other = {**GEOMETRY, "dilation": (2, 2)}
    late = {"filters": 4, "began_at": 2}
    headers = [snapshot(0, 1), snapshot(1, 1, geometry=other), snapshot(2, 2, **late)]
    run = described([*headers, snapshot(3, 2, **late)])
    assert ids_of(run) == ["2-2", "3-2"]
    assert run["layers"][0]["filters"] == 4
    assert [each["tag"] for each in run["damaged"]] == [tag_of(header) for header in headers[:2]]
    assert "other snapshots of the layer, which have 4x3x5x5" in run["damaged"][0]["reason"]


def test_a_layer_that_changed_in_the_training_has_its_newest_form() -> None:
    filters = (8, 8, 8, 8, 8, 6, 6, 12, 12)
    run = described([snapshot(step, filters=count) for step, count in enumerate(filters)])
    assert ids_of(run) == [f"7-{ATTEMPT}", f"8-{ATTEMPT}"]
    assert run["layers"][0]["filters"] == 12
    assert len(run["damaged"]) == 7
    assert "which have 12x3x5x5" in run["damaged"][0]["reason"]


def test_one_different_snapshot_does_not_exclude_the_others() -> None:
    odd = snapshot(3, filters=4)
    run = described([snapshot(0), snapshot(1), snapshot(2), odd])
    assert ids_of(run) == [f"{step}-{ATTEMPT}" for step in range(3)]
    assert [each["tag"] for each in run["damaged"]] == [tag_of(odd)]


def test_a_probe_is_listed_once_in_its_last_version() -> None:
    run = described([probe(2, "new.png"), probe(1, "old.png")])
    assert [each["name"] for each in run["probes"]] == ["new.png"]


def test_the_timeline_has_runs_by_name_and_the_names_of_verdicts() -> None:
    runs = {name: RunTimeline.of([snapshot(0)]) for name in ("b", 'a"\udcff', "c")}
    revision, text = timeline_of(runs)
    timeline = json.loads(text)
    assert timeline["version"] == 1
    assert timeline["revision"] == revision
    assert [run.pop("name") for run in timeline["runs"]] == ['a"\udcff', "b", "c"]
    assert timeline["runs"] == [described([snapshot(0)])] * 3
    assert timeline["verdict_names"] == list(VERDICT_NAMES)
    assert timeline["verdict_colours"].keys() == set(VERDICT_NAMES)
    assert timeline["verdict_colours"]["non-finite"] == [255, 0, 255]
    assert timeline_of(dict(reversed(runs.items()))) == (revision, text)
    del runs["c"]
    assert timeline_of(runs)[0] != revision


def test_a_catalogue_parses_each_header_once() -> None:
    early = Catalogue().updated(contents_of(a=[snapshot(0)], b=[snapshot(0)]))
    assert early.updated(contents_of(a=[snapshot(0)], b=[snapshot(0)])) is early
    late = early.updated(contents_of(a=[snapshot(0), snapshot(1)], b=[snapshot(0)]))
    first = late.runs["a"].timeline.layers["conv1"][f"0-{ATTEMPT}"]
    assert first is early.runs["a"].timeline.layers["conv1"][f"0-{ATTEMPT}"]
    assert late.runs["b"].timeline is early.runs["b"].timeline
    assert late.revision != early.revision
    assert json.loads(late.text)["revision"] == late.revision
    changed = contents_of(a=[snapshot(0, filters=4)])
    layers = early.updated(changed).runs["a"].timeline.layers
    assert layers["conv1"][f"0-{ATTEMPT}"]["filters"] == 4
    assert [*early.updated(changed).runs] == ["a"]


def test_two_trainings_in_one_folder_are_two_runs() -> None:
    """No snapshot replaces one of the other training, in whichever order they are read."""
    old = [snapshot(step, 1, training="x") for step in (0, 10, 20)]
    new = [snapshot(step, 2, training="y") for step in (0, 10)]
    again = [snapshot(step, 3, training="x", began_at=10) for step in (10, 15)]
    catalogue = Catalogue().updated(contents_of(a=[*again, *new, probe(), *old], b=[snapshot(0)]))
    assert [*catalogue.runs] == ["a", "a (2)", "b"]
    assert {listed.origin for listed in catalogue.runs.values()} == {"a", "b"}
    one, other = (catalogue.runs[name].timeline for name in ("a", "a (2)"))
    assert [*one.layers["conv1"]] == ["0-1", "10-3", "15-3"]
    assert one.superseded == 1
    assert [*other.layers["conv1"]] == ["0-2", "10-2"]
    assert other.superseded == 0
    assert [*one.probes] == [*other.probes] == [DIGEST]


def test_a_used_run_name_is_not_given_to_another_training() -> None:
    both = [snapshot(0, 1, training="x"), snapshot(0, 2, training="y")]
    contents = {"a": both, "a (2)": both, "a (2) (2)": both}
    catalogue = Catalogue().updated(contents_of(**contents))
    origins = {name: listed.origin for name, listed in catalogue.runs.items()}
    assert origins == {
        "a": "a",
        "a (3)": "a",
        "a (2)": "a (2)",
        "a (2) (3)": "a (2)",
        "a (2) (2)": "a (2) (2)",
        "a (2) (2) (2)": "a (2) (2)",
    }


def test_a_catalogue_lists_damaged_events_while_they_exist() -> None:
    headers = [snapshot(0), snapshot(1)]
    tags = [tag_of(header) for header in headers]
    contents = contents_of(a=headers, b=headers)
    contents["b"]["k/x"] = b"{"
    whole = Catalogue().updated(contents)
    assert [fault.tag for fault in whole.runs["b"].timeline.damaged] == ["k/x"]
    part = whole.without("a", {tags[0]: "it is cut off"})
    assert part.revision != whole.revision
    assert [*part.runs["a"].timeline.layers["conv1"]] == [f"1-{ATTEMPT}"]
    assert part.runs["a"].timeline.damaged == [Fault(tags[0], "it is cut off")]
    assert [*part.runs["b"].timeline.layers["conv1"]] == [*whole.runs["b"].timeline.layers["conv1"]]
    more = part.updated(contents_of(a=[*headers, snapshot(2)]))
    assert [*more.runs["a"].timeline.layers["conv1"]] == [f"1-{ATTEMPT}", f"2-{ATTEMPT}"]
    assert part.updated({}).updated(contents).revision == whole.revision
    assert part.without("gone", {tags[0]: "no"}) is part.without("a", {"k/gone": "no"}) is part


def test_a_layer_without_a_readable_snapshot_is_not_listed() -> None:
    contents = contents_of(a=[snapshot(0)])
    run = Catalogue().updated(contents).without("a", {tag_of(snapshot(0)): "no"}).runs["a"].timeline
    assert run.layers == {}
    assert len(run.damaged) == 1

"""The answers of the server in a real TensorBoard, with both of its data loaders."""

import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from tab_boards import ROUTE, Board, served
from tab_runs import DIGEST, random_weights
from tab_server_runs import (
    CHART,
    LONG,
    MANY,
    SCRIPT,
    SMALL,
    id_of,
    ids_of,
    is_complete,
    payload_of,
    write_all,
    write_damaged_run,
)

import kernelviz_callback.tensorboard_plugin as package
from kernelviz_callback.tensorboard_plugin.codec import unpack_probe, unpack_snapshot

STATIC = Path(package.__file__).parent / "static"
# Faults that the timeline lists before any weights are requested.
AT_ONCE = {"not JSON", "the version 2", "belongs to the tag", "other snapshots of the layer"}


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    write_all(folder)
    return folder


@pytest.fixture(scope="module", params=["fast", "python", "spec"])
def board(request: pytest.FixtureRequest, logs: Path, tmp_path_factory: Any) -> Iterator[Board]:
    """A server, started as users start it, that has read everything."""
    flags = {
        "fast": [f"--logdir={logs}", "--load_fast=true"],
        "python": [f"--logdir={logs}", "--load_fast=false"],
        "spec": [f"--logdir_spec=all:{logs}"],
    }[request.param]
    with served(*flags, log=tmp_path_factory.mktemp("board") / "log") as board:
        board.prefix = "all/" if request.param == "spec" else ""
        board.until(lambda timeline: is_complete(timeline, board.prefix))
        yield board


def test_every_snapshot_is_served_bit_for_bit(board: Board) -> None:
    name = board.prefix + "long"
    run = board.run(name)
    assert ids_of(run) == [id_of(step) for step in LONG]
    assert [layer["name"] for layer in run["layers"]] == ["conv1"]
    payloads = board.payloads(name, "conv1", ids_of(run))
    bits = {10: np.array([0, 2, 6, 0], np.uint8)}
    for (step, weights), payload in zip(LONG.items(), payloads, strict=True):
        assert payload == payload_of(weights, verdict_bits=bits.get(step)), step
    counts = [each["verdicts"] for each in run["layers"][0]["snapshots"][:3]]
    assert counts == [{}, {"near-zero": 2, "silent": 1}, None]


def test_served_weights_equal_those_of_the_layer(board: Board) -> None:
    run = board.run(board.prefix + "long")
    layer = run["layers"][0]
    [payload] = board.payloads(run["name"], "conv1", [id_of(1230)])
    header: Any = {"kind": "snapshot", "shape": layer["shape"], "dtype": "float16"}
    stored = unpack_snapshot(header, payload)
    assert np.allclose(stored.weights(), LONG[1230], atol=2.0**-11 * np.abs(LONG[1230]).max())


def test_all_of_ten_thousand_snapshots_are_served(board: Board) -> None:
    name = board.prefix + "many"
    ids = ids_of(board.run(name))
    assert ids == [id_of(step) for step in MANY]
    some = [*range(64), *range(64, 9936, 157), *range(9936, 10_000)]
    for step, payload in zip(
        some, board.payloads(name, "conv1", [ids[s] for s in some]), strict=True
    ):
        assert payload == payload_of(MANY[step]), step


def test_the_probe_is_served(board: Board) -> None:
    name = board.prefix + "long"
    run = board.run(name)
    [probe] = run["probes"]
    assert {each["probe"] for each in run["layers"][0]["snapshots"]} == {probe["digest"]}
    answer = board.ask("probe", run=name, digest=probe["digest"])
    assert (answer.status, answer.mime_type) == (200, "application/octet-stream")
    assert np.array_equal(unpack_probe(probe, answer.content), CHART)


def test_only_runs_with_kernels_are_listed(board: Board) -> None:
    names = [run["name"] for run in board.timeline()["runs"]]
    expected = ["cut", "damaged", "layers/version_0", "long", "many", "resumed", SCRIPT]
    assert names == sorted(board.prefix + name for name in expected)


def test_layers_are_in_the_order_in_which_they_were_written(board: Board) -> None:
    run = board.run(board.prefix + "layers/version_0")
    assert [layer["name"] for layer in run["layers"]] == ["stem", "a.conv", ""]
    assert [layer["shape"] for layer in run["layers"]] == [[*SMALL], [2, 4, 3, 3], [*SMALL]]
    [payload] = board.payloads(run["name"], "", [id_of(2990)])
    assert payload == payload_of(LONG[2990])


def test_names_are_served_unchanged(board: Board) -> None:
    name = board.prefix + SCRIPT
    run = board.run(name)
    assert [layer["name"] for layer in run["layers"]] == [SCRIPT]
    assert board.payloads(name, SCRIPT, [id_of(0)]) == [payload_of(LONG[0])]
    assert board.ask("timeline").mime_type == "application/json"


def test_the_later_attempt_of_a_resumed_run_is_shown(board: Board) -> None:
    run = board.run(board.prefix + "resumed")
    steps = [(0, 1000), (10, 1000), (15, 2000), (20, 2000)]
    assert ids_of(run) == [id_of(*each) for each in steps]
    assert run["superseded"] == 2
    later = random_weights([15, 20], SMALL, seed=2)
    payloads = board.payloads(run["name"], "conv1", [id_of(20, 2000), id_of(20, 1000)])
    assert payloads == [payload_of(later[20]), b""]


def test_damaged_events_are_reported_and_the_others_shown(board: Board, tmp_path: Path) -> None:
    reasons = write_damaged_run(tmp_path)
    name = board.prefix + "damaged"
    before = board.run(name)
    at_once = {tag for tag, why in reasons.items() if why in AT_ONCE}
    assert at_once <= {each["tag"] for each in before["damaged"]}
    ids = ids_of(before)
    payloads = board.payloads(name, "conv1", ids)
    weights = random_weights(range(3), SMALL)
    assert payloads[:3] == [payload_of(each) for each in weights.values()]
    assert set(payloads[3:]) == {b""}
    assert board.ask("probe", run=name, digest="e" * 64).status == 404
    after = board.run(name)
    assert ids_of(after) == [id_of(step) for step in range(3)]
    found = {each["tag"]: each["reason"] for each in after["damaged"]}
    assert found.keys() == reasons.keys()
    for tag, why in reasons.items():
        assert why in found[tag]
    assert board.ask("probe", run=name, digest="e" * 64).status == 404
    assert len(board.payloads(board.prefix + "long", "conv1", [id_of(0)])[0]) > 0


def test_the_readable_part_of_a_truncated_file_is_shown(board: Board) -> None:
    run = board.run(board.prefix + "cut")
    steps = [each["step"] for each in run["layers"][0]["snapshots"]]
    assert 140 <= len(steps) <= 160
    assert steps == [*LONG][: len(steps)]
    payloads = board.payloads(run["name"], "conv1", ids_of(run))
    assert payloads == [payload_of(LONG[step]) for step in steps]


def test_an_unchanged_timeline_is_not_sent_again(board: Board) -> None:
    revision = board.timeline()["revision"]
    assert board.timeline(revision=revision) == {"revision": revision, "unchanged": True}
    assert len(board.timeline(revision="another")["runs"]) == 7


@pytest.mark.parametrize(
    ("name", "query", "status", "reason"),
    [
        ("snapshots", {}, 400, "lacks"),
        ("snapshots", {"run": "long", "layer": "conv1"}, 400, "lacks ids="),
        ("snapshots", {"run": "long", "ids": "0"}, 400, "lacks layer="),
        (
            "snapshots",
            {"run": "long", "layer": "conv1", "ids": ",".join("0" * 65)},
            400,
            "found 65",
        ),
        ("snapshots", {"run": "none", "layer": "conv1", "ids": "0"}, 404, "no run 'none'"),
        ("snapshots", {"run": "long", "layer": "conv2", "ids": "0"}, 404, "no layer 'conv2'"),
        ("snapshots", {"run": "../long", "layer": "conv1", "ids": "0"}, 404, "no run"),
        ("probe", {}, 400, "lacks run="),
        ("probe", {"run": "long"}, 400, "lacks digest="),
        ("probe", {"run": "long", "digest": "f"}, 404, "no probe 'f'"),
        ("probe", {"run": "none", "digest": DIGEST}, 404, "no run 'none'"),
    ],
)
def test_invalid_requests_are_answered_with_the_reason(
    board: Board, name: str, query: dict[str, str], status: int, reason: str
) -> None:
    run = query.get("run", "none")
    query = {**query, "run": board.prefix + run} if run == "long" else query
    answer = board.ask(name, **query)
    assert (answer.status, answer.mime_type) == (status, "application/json")
    assert reason in answer.json()["error"]


def test_an_unknown_id_has_an_empty_payload_and_ids_may_repeat(board: Board) -> None:
    ids = [id_of(0), "0", "", "../0", id_of(1), id_of(0)]
    whole = payload_of(LONG[0], verdict_bits=np.zeros(4, np.uint8))
    found = board.payloads(board.prefix + "long", "conv1", ids)
    assert found == [whole, b"", b"", b"", b"", whole]


def test_the_page_is_served_from_a_fixed_set_of_files(board: Board) -> None:
    assert (STATIC / "index.js").exists()
    for path in STATIC.iterdir():
        answer = board.get(f"{ROUTE}/{path.name}")
        mime_type = {".js": "text/javascript", ".css": "text/css"}[path.suffix]
        assert (answer.status, answer.mime_type) == (200, mime_type)
        assert answer.content == path.read_bytes()


def test_no_other_file_is_served(board: Board) -> None:
    for path in (
        "/../plugin.py",
        "/../../plugin.py",
        "/%2e%2e/plugin.py",
        "/..%2fplugin.py",
        "/..%5cplugin.py",
        "/static/index.js",
        "/./index.js/../../plugin.py",
        "//index.js",
        "/index.js%00.py",
        "/plugin.py",
        "/__init__.py",
        f"/{STATIC}/../plugin.py",
        f"//{STATIC}/index.js",
        "/",
        "/nothing.js",
    ):
        connection = http.client.HTTPConnection(urlsplit(board.url).netloc)
        connection.request("GET", ROUTE + path)
        reply = connection.getresponse()
        assert (reply.status, reply.read()) == (404, b"Not found"), path
        connection.close()

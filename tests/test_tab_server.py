"""The server of the Kernels tab in a real TensorBoard, with either loader, whatever the data is."""

import argparse
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np
import pytest
from tab_boards import ROUTE, Board, in_process, served
from tab_runs import ATTEMPT, DIGEST, GEOMETRY, RunWriter, random_weights, raw_value, write_run
from tensorboard import errors
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT

import kernelviz_callback.tensorboard_plugin as package
from kernelviz_callback.tensorboard_plugin.codec import (
    pack_probe,
    pack_snapshot,
    unpack_probe,
    unpack_snapshot,
)
from kernelviz_callback.tensorboard_plugin.header import tag_of, to_content
from kernelviz_callback.tensorboard_plugin.loader import KernelsLoader

SCRIPT = "<script>alert(1)</script>"
SMALL = (4, 3, 3, 3)
LONG = random_weights(range(0, 3000, 10), SMALL)  # 300 snapshots
MANY = random_weights(range(10_000), (2, 1, 2, 2))
CHART = np.random.default_rng(4).random((3, 12, 10), dtype=np.float32)
STATIC = Path(package.__file__).parent / "static"
# Of what is damaged the page is told this before it asks for weights.
AT_ONCE = {"no JSON", "the version 2", "belongs to the tag", "a layer that is"}


def payload_of(weights: np.ndarray, **about: Any) -> bytes:
    fields = {"layer": "", "step": 0, "epoch": 0, "wall_time": 0.0, "attempt": 0}
    return pack_snapshot(weights, **{**fields, "geometry": GEOMETRY, **about})[1]


def id_of(step: int, attempt: int = ATTEMPT) -> str:
    return f"{step}-{attempt}"


def ids_of(run: Any, layer: int = 0) -> list[str]:
    return [each["id"] for each in run["layers"][layer]["snapshots"]]


def write_damaged_run(folder: Path) -> dict[str, str]:
    """Three good snapshots among whatever can be wrong: tag to what the page is told of it."""
    weights = random_weights(range(3), SMALL)
    reasons = {}

    def spoilt(
        step: int, reason: str, lie: Any = (), content: bytes = b"", payload: bytes = b""
    ) -> Summary.Value:
        fields = {"layer": "conv1", "step": step, "epoch": 0, "wall_time": 1.0, "attempt": ATTEMPT}
        header, right = pack_snapshot(weights[0], **fields, geometry=GEOMETRY)
        reasons[tag_of(header)] = reason
        content = content or to_content({**header, **dict(lie)})
        return raw_value(tag_of(header), content, payload or right)

    cut = spoilt(14, "holds 1 bytes", payload=b"x")
    number = spoilt(15, "no packed bytes but float")
    number.tensor.CopyFrom(TensorProto(dtype=DT_FLOAT, float_val=[1.0]))
    nonsense = spoilt(16, "TensorBoard cannot unpack it")
    nonsense.tensor.tensor_shape.dim.add(size=-1)
    probe, image = pack_probe(CHART, name="", digest="e" * 64, attempt=ATTEMPT)
    reasons[tag_of(probe)] = "does not unpack"
    with RunWriter(folder) as run:
        for step, each in weights.items():
            run.snapshot(each, step)
        run.value(spoilt(10, "no JSON", content=b'{"version":1,"kind":"snap'))
        run.value(spoilt(11, "no JSON", content=b"\x08\x01\x12\x04junk"))
        run.value(spoilt(12, "the version 2", {"version": 2}))
        run.value(spoilt(13, "belongs to the tag", {"step": 17}))
        run.value(spoilt(18, "holds 100 bytes, and 236 are", payload=bytes(100)))
        run.value(spoilt(19, "a layer that is", {"shape": [4, 3, 3, 2]}))
        for value in (
            cut,
            number,
            nonsense,
            raw_value(tag_of(probe), to_content(probe), image[:9]),
        ):
            run.value(value)
    return reasons


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that a log directory may hold, next to a run without kernels."""
    folder = tmp_path_factory.mktemp("logs")
    verdicts = {0: {}, 10: {1: ["near-zero"], 2: ["near-zero", "silent"]}}
    write_run(folder / "long", LONG, probe=CHART, verdicts=verdicts)
    write_run(folder / "many", MANY)
    layers = {"stem": LONG, "a.conv": {0: np.ones((2, 4, 3, 3), np.float32)}, "": LONG}
    write_run(folder / "layers" / "version_0", layers)
    write_run(folder / SCRIPT, {0: LONG[0]}, layer=SCRIPT)
    earlier = random_weights([0, 10, 20, 30], SMALL, seed=1)
    write_run(folder / "resumed", earlier, attempt=1000)
    write_run(folder / "resumed", random_weights([15, 20], SMALL, seed=2), attempt=2000)
    write_damaged_run(folder / "damaged")
    write_run(folder / "cut", LONG)
    [file] = (folder / "cut").iterdir()
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with RunWriter(folder / "plain") as run:
        run.scalar("loss", 1.0, 0)
    return folder


@pytest.fixture(scope="module", params=["fast", "python", "spec"])
def board(request: pytest.FixtureRequest, logs: Path, tmp_path_factory: Any) -> Iterator[Board]:
    """A server, started as users do, that has read everything."""
    flags = {
        "fast": [f"--logdir={logs}", "--load_fast=true"],
        "python": [f"--logdir={logs}", "--load_fast=false"],
        "spec": [f"--logdir_spec=all:{logs}"],
    }[request.param]
    with served(*flags, log=tmp_path_factory.mktemp("board") / "log") as board:
        board.prefix = "all/" if request.param == "spec" else ""
        board.until(lambda timeline: is_complete(timeline, board.prefix))
        yield board


def is_complete(timeline: Any, prefix: str) -> bool:
    counts = {
        run["name"]: sum(len(layer["snapshots"]) for layer in run["layers"])
        for run in timeline["runs"]
    }
    expected = {"long": 300, "many": 10_000, "layers/version_0": 601, "resumed": 4, "damaged": 7}
    return expected.items() <= {name.removeprefix(prefix): n for name, n in counts.items()}.items()


def test_every_snapshot_comes_back_bit_for_bit(board: Board) -> None:
    name = board.prefix + "long"
    run = board.run(name)
    assert ids_of(run) == [id_of(step) for step in LONG]
    assert [layer["name"] for layer in run["layers"]] == ["conv1"]
    payloads = board.payloads(name, "conv1", ids_of(run))
    bits = {10: np.array([0, 2, 6, 0], np.uint8)}
    for (step, weights), payload in zip(LONG.items(), payloads, strict=True):
        assert payload == payload_of(weights, verdict_bits=bits.get(step)), step
    told = [each["verdicts"] for each in run["layers"][0]["snapshots"][:3]]
    assert told == [{}, {"near-zero": 2, "silent": 1}, None]


def test_stored_weights_are_those_of_the_layer(board: Board) -> None:
    run = board.run(board.prefix + "long")
    layer = run["layers"][0]
    [payload] = board.payloads(run["name"], "conv1", [id_of(1230)])
    header: Any = {"kind": "snapshot", "shape": layer["shape"], "dtype": "float16"}
    stored = unpack_snapshot(header, payload)
    assert np.allclose(stored.weights(), LONG[1230], atol=2.0**-11 * np.abs(LONG[1230]).max())


def test_every_one_of_ten_thousand_is_there(board: Board) -> None:
    name = board.prefix + "many"
    ids = ids_of(board.run(name))
    assert ids == [id_of(step) for step in MANY]
    some = [*range(64), *range(64, 9936, 157), *range(9936, 10_000)]
    for step, payload in zip(
        some, board.payloads(name, "conv1", [ids[s] for s in some]), strict=True
    ):
        assert payload == payload_of(MANY[step]), step


def test_the_probe_comes_back(board: Board) -> None:
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


def test_layers_stand_in_the_order_in_which_they_were_written(board: Board) -> None:
    run = board.run(board.prefix + "layers/version_0")
    assert [layer["name"] for layer in run["layers"]] == ["stem", "a.conv", ""]
    assert [layer["shape"] for layer in run["layers"]] == [[*SMALL], [2, 4, 3, 3], [*SMALL]]
    [payload] = board.payloads(run["name"], "", [id_of(2990)])
    assert payload == payload_of(LONG[2990])


def test_names_come_back_verbatim(board: Board) -> None:
    name = board.prefix + SCRIPT
    run = board.run(name)
    assert [layer["name"] for layer in run["layers"]] == [SCRIPT]
    assert board.payloads(name, SCRIPT, [id_of(0)]) == [payload_of(LONG[0])]
    assert board.ask("timeline").mime_type == "application/json"


def test_of_a_resumed_run_the_later_attempt_counts(board: Board) -> None:
    run = board.run(board.prefix + "resumed")
    steps = [(0, 1000), (10, 1000), (15, 2000), (20, 2000)]
    assert ids_of(run) == [id_of(*each) for each in steps]
    assert run["superseded"] == 2
    later = random_weights([15, 20], SMALL, seed=2)
    payloads = board.payloads(run["name"], "conv1", [id_of(20, 2000), id_of(20, 1000)])
    assert payloads == [payload_of(later[20]), b""]


def test_damaged_events_are_told_and_the_rest_is_shown(board: Board, tmp_path: Path) -> None:
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


def test_what_a_file_that_is_cut_off_still_holds_is_shown(board: Board) -> None:
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
def test_what_cannot_be_answered_is_said_in_a_sentence(
    board: Board, name: str, query: dict[str, str], status: int, reason: str
) -> None:
    run = query.get("run", "none")
    query = {**query, "run": board.prefix + run} if run == "long" else query
    answer = board.ask(name, **query)
    assert (answer.status, answer.mime_type) == (status, "application/json")
    assert reason in answer.json()["error"]


def test_an_unknown_id_is_empty_and_repeated_ones_are_repeated(board: Board) -> None:
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


@pytest.mark.parametrize("loader", ["--load_fast=true", "--load_fast=false"])
def test_a_snapshot_appears_while_the_training_goes_on(loader: str, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    flags = [f"--logdir={logs}", loader, "--reload_interval=1"]
    with served(*flags, log=tmp_path / "log") as board, RunWriter(logs / "a") as run:
        assert board.timeline()["runs"] == []
        assert not is_enabled(board)
        for step, weights in random_weights(range(3), SMALL).items():
            run.snapshot(weights, step)
            run.scalar("loss", 1.0, step)
            run.flush()

            def shows(timeline: Any, expected: int = step + 1) -> bool:
                layers = timeline["runs"][0]["layers"] if timeline["runs"] else []
                return bool(layers) and len(layers[0]["snapshots"]) == expected

            timeline = board.until(shows)
            assert board.timeline(revision=timeline["revision"]).get("unchanged")
            assert board.payloads("a", "conv1", [id_of(step)]) == [payload_of(weights)]
        assert is_enabled(board)


def is_enabled(board: Board) -> bool:
    return bool(listing(board)["kernels"]["enabled"])


def listing(board: Board) -> Any:
    return board.get("/data/plugins_listing").json()


def test_the_tab_is_offered_where_there_is_data(tmp_path: Path) -> None:
    assert not is_enabled(in_process(f"--logdir={tmp_path}"))
    with RunWriter(tmp_path / "plain") as run:
        run.scalar("loss", 1.0, 0)
    assert not is_enabled(in_process(f"--logdir={tmp_path}"))
    with RunWriter(tmp_path / "damaged") as run:
        run.value(raw_value("k/x", b"{"))
    board = in_process(f"--logdir={tmp_path}")
    assert listing(board)["kernels"] == {
        "disable_reload": False,
        "enabled": True,
        "loading_mechanism": {"type": "IFRAME", "module_path": f"{ROUTE}/index.js"},
        "remove_dom": False,
        "tab_name": "Kernels",
    }
    assert board.get("/data/plugin_entry.html?name=kernels").status == 200
    assert board.run("damaged")["damaged"][0]["tag"] == "k/x"


def test_it_lives_below_a_prefix_and_in_an_experiment(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {0: LONG[0]})
    board = in_process(f"--logdir={tmp_path}", "--path_prefix=/tb")
    assert board.get(f"/tb{ROUTE}/timeline").json()["runs"][0]["name"] == "a"
    assert board.get(f"/tb/experiment/e1{ROUTE}/timeline").json()["runs"][0]["name"] == "a"
    assert board.get(f"{ROUTE}/timeline").status == 404


def test_the_users_own_flags_stay_and_change_nothing(tmp_path: Path) -> None:
    write_run(tmp_path / "a", LONG)
    board = in_process(f"--logdir={tmp_path}", "--samples_per_plugin=kernels=1,images=3")
    assert ids_of(board.run("a")) == [id_of(step) for step in LONG]


def test_every_event_is_asked_for_unless_the_user_has_said_otherwise() -> None:
    for given, wanted in (
        ({}, {"kernels": 0}),
        ({"images": 3}, {"images": 3, "kernels": 0}),
        ({"kernels": 5}, {"kernels": 5}),
    ):
        flags = argparse.Namespace(samples_per_plugin=given)
        KernelsLoader().fix_flags(flags)
        assert flags.samples_per_plugin == wanted


class Explosive:
    @property
    def samples_per_plugin(self) -> Any:
        raise RuntimeError("no flags")


@pytest.mark.parametrize(
    "flags",
    [
        None,
        object(),
        argparse.Namespace(),
        SimpleNamespace(samples_per_plugin=None),
        SimpleNamespace(samples_per_plugin="images=3"),
        SimpleNamespace(samples_per_plugin=MappingProxyType({})),
        Explosive(),
    ],
)
def test_no_flags_whatever_stop_tensorboard(flags: Any) -> None:
    KernelsLoader().fix_flags(flags)


class Through:
    """TensorBoard's data, with something in between."""

    def __init__(self, provider: Any) -> None:
        self.provider = provider
        self.asked: list[str] = []
        self.failing = 0
        self.error: Exception = RuntimeError("unavailable")

    def __getattr__(self, name: str) -> Any:
        def ask(*args: Any, **kwargs: Any) -> Any:
            self.asked.append(name)
            if name in ("list_tensors", "read_tensors") and self.failing:
                self.failing -= 1
                raise self.error
            return getattr(self.provider, name)(*args, **kwargs)

        return ask


@pytest.fixture
def tampered(tmp_path: Path) -> tuple[Board, Through]:
    """A board with a run ``a`` of three snapshots, and what stands between it and its data."""
    write_run(tmp_path / "a", random_weights(range(3), SMALL))
    made: list[Through] = []

    def wrap(provider: Any) -> Through:
        made.append(Through(provider))
        return made[0]

    return in_process(f"--logdir={tmp_path}", wrap=wrap), made[0]


def test_a_request_that_fails_once_is_made_again(tampered: tuple[Board, Through]) -> None:
    board, data = tampered
    data.failing = 1
    assert len(ids_of(board.run("a"))) == 3
    data.failing = 1
    assert all(board.payloads("a", "conv1", [id_of(0), id_of(1)]))


def test_a_fault_is_one_answer_and_no_more(tampered: tuple[Board, Through]) -> None:
    board, data = tampered
    data.failing = 2
    answer = board.ask("timeline")
    assert (answer.status, answer.mime_type) == (500, "application/json")
    assert "RuntimeError" in answer.json()["error"]
    assert len(ids_of(board.run("a"))) == 3
    data.failing = 100
    assert board.payloads("a", "conv1", [id_of(0), id_of(1)]) == [b"", b""]
    data.failing = 0
    assert all(board.payloads("a", "conv1", [id_of(0), id_of(1)]))
    assert board.run("a")["damaged"] == []


def test_who_may_not_read_is_told_so(tampered: tuple[Board, Through]) -> None:
    board, data = tampered
    assert board.run("a")
    data.failing, data.error = 100, errors.PermissionDeniedError("not yours")
    for answer in (
        board.ask("timeline"),
        board.ask("snapshots", run="a", layer="conv1", ids=id_of(0)),
    ):
        assert answer.status == 403
        assert "not yours" in answer.json()["error"]


def test_weights_are_read_without_listing_everything_again(
    tampered: tuple[Board, Through],
) -> None:
    board, data = tampered
    assert board.payloads("a", "conv1", [id_of(0)]) == [payload_of(random_weights([0], SMALL)[0])]
    ids = ids_of(board.run("a"))
    data.asked.clear()
    for each in ids:
        assert board.payloads("a", "conv1", [each])
    assert data.asked == ["read_tensors"] * 3


def test_experiments_are_kept_apart(tampered: tuple[Board, Through]) -> None:
    board, data = tampered
    plain = data.provider.list_tensors

    def list_tensors(context: Any, *, experiment_id: str, **about: Any) -> Any:
        return plain(context, experiment_id=experiment_id, **about) if experiment_id == "x" else {}

    data.provider = SimpleNamespace(
        list_tensors=list_tensors, read_tensors=data.provider.read_tensors
    )
    query = f"snapshots?{urlencode({'run': 'a', 'layer': 'conv1', 'ids': id_of(0)})}"
    for experiment, status in (("x", 200), ("y", 404), ("x", 200)):
        path = f"/experiment/{experiment}{ROUTE}"
        runs = board.get(f"{path}/timeline").json()["runs"]
        assert len(runs) == (1 if status == 200 else 0)
        assert board.get(f"{path}/{query}").status == status
    assert board.get(f"/experiment/y{ROUTE}/{query}").status == 404


def test_a_board_without_data_has_an_empty_timeline() -> None:
    from tensorboard.plugins.base_plugin import TBContext

    plugin = KernelsLoader().load(TBContext())
    assert plugin is not None
    assert not plugin.is_active()
    assert KernelsLoader().load(None) is None  # type: ignore[arg-type]


BREAKAGES = [
    "sys.modules['kernelviz_callback.tensorboard_plugin.plugin'] = None",
    "sys.modules['kernelviz_callback.tensorboard_plugin.codec'] = None",
    "sys.modules['kernelviz_callback.verdict_names'] = None",
    "import kernelviz_callback.tensorboard_plugin.plugin as p; del p.KernelsPlugin",
    "import kernelviz_callback.tensorboard_plugin.plugin as p; p.EventStore = None",
]
START = """
import sys
sys.path.insert(0, {tests!r})
{before}
from tab_boards import in_process
board = in_process("--logdir=" + {logs!r})
print(board.get("/data/plugins_listing").content.decode())
print(*sys.modules)
"""


def start(logs: Path, before: str = "") -> tuple[Any, list[str], str]:
    """Start TensorBoard in a process of its own: its plugins, all modules, what it says."""
    code = START.format(tests=str(Path(__file__).parent), before=before, logs=str(logs))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    plugins, modules = done.stdout.splitlines()[-2:]
    return json.loads(plugins), modules.split(), done.stderr


def test_tensorboard_starts_without_what_a_training_needs(tmp_path: Path) -> None:
    plugins, modules, _ = start(tmp_path)
    assert "kernels" in plugins
    assert "kernelviz_callback.tensorboard_plugin.plugin" in modules
    assert not {"torch", "torchvision", "lightning", "scipy", "matplotlib"} & set(modules)
    _, without, _ = start(tmp_path, BREAKAGES[0])
    assert {name.split(".")[0] for name in modules} == {name.split(".")[0] for name in without}


def test_what_tensorboard_imports_in_any_case_is_next_to_nothing() -> None:
    code = """
import sys, tensorboard.plugins.base_plugin, tensorboard.util.tb_logging
before = set(sys.modules)
import kernelviz_callback.tensorboard_plugin.loader
print(*set(sys.modules) - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if name.startswith("kernelviz_callback")}
    ours = "kernelviz_callback.tensorboard_plugin"
    assert loaded == {"kernelviz_callback", ours, f"{ours}.loader"}
    assert "numpy" not in done.stdout.split()


@pytest.mark.parametrize("broken", BREAKAGES)
def test_if_the_tab_does_not_load_tensorboard_starts_without_it(
    broken: str, tmp_path: Path
) -> None:
    plugins, _, said = start(tmp_path, broken)
    assert "kernels" not in plugins
    assert {"scalars", "images", "graphs", "timeseries"} <= set(plugins)
    assert "the Kernels tab is missing" in said

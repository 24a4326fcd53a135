"""When TensorBoard offers the Kernels tab, and what the tab does when reading data fails."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from tab_boards import ROUTE, Board, in_process, served
from tab_runs import RunWriter, random_weights, raw_value, write_run
from tab_server_runs import LONG, SMALL, id_of, ids_of, payload_of
from tensorboard import errors


@pytest.mark.parametrize("loader", ["--load_fast=true", "--load_fast=false"])
def test_a_snapshot_appears_during_the_training(loader: str, tmp_path: Path) -> None:
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


def test_the_tab_works_with_a_path_prefix_and_an_experiment(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {0: LONG[0]})
    board = in_process(f"--logdir={tmp_path}", "--path_prefix=/tb")
    assert board.get(f"/tb{ROUTE}/timeline").json()["runs"][0]["name"] == "a"
    assert board.get(f"/tb/experiment/e1{ROUTE}/timeline").json()["runs"][0]["name"] == "a"
    assert board.get(f"{ROUTE}/timeline").status == 404


class Through:
    """TensorBoard's data provider, with a hook that a test can set."""

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
    """A board with a run ``a`` of three snapshots, and the hook in its data provider."""
    write_run(tmp_path / "a", random_weights(range(3), SMALL))
    made: list[Through] = []

    def wrap(provider: Any) -> Through:
        made.append(Through(provider))
        return made[0]

    return in_process(f"--logdir={tmp_path}", wrap=wrap), made[0]


def test_a_request_that_fails_once_is_repeated(tampered: tuple[Board, Through]) -> None:
    board, data = tampered
    data.failing = 1
    assert len(ids_of(board.run("a"))) == 3
    data.failing = 1
    assert all(board.payloads("a", "conv1", [id_of(0), id_of(1)]))


def test_an_error_affects_one_answer_only(tampered: tuple[Board, Through]) -> None:
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


def test_a_refused_permission_is_reported(tampered: tuple[Board, Through]) -> None:
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


def test_experiments_are_separate(tampered: tuple[Board, Through]) -> None:
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

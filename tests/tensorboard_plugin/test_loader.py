"""TensorBoard's entry point: it imports almost nothing and never raises."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tab_boards import in_process
from tab_runs import write_run
from tab_server_runs import LONG, id_of, ids_of
from torch.utils.tensorboard import SummaryWriter

from kernelviz_callback.tensorboard_plugin.loader import KernelsLoader


def test_flags_of_the_user_are_kept(tmp_path: Path) -> None:
    write_run(tmp_path / "a", LONG)
    board = in_process(f"--logdir={tmp_path}", "--samples_per_plugin=kernels=1,images=3")
    assert ids_of(board.run("a")) == [id_of(step) for step in LONG]


def test_all_events_are_kept_unless_the_user_sets_a_limit() -> None:
    for given, wanted in (
        ({}, {"kernels": 0}),
        ({"images": 3}, {"images": 3, "kernels": 0}),
        ({"kernels": 5}, {"kernels": 5}),
    ):
        flags = argparse.Namespace(samples_per_plugin=given)
        KernelsLoader().fix_flags(flags)
        assert flags.samples_per_plugin == wanted


@pytest.mark.parametrize(("limit", "kept"), [("", 10), ("images=0", 0), ("images=1000", 30)])
def test_how_many_pictures_tensorboard_keeps(tmp_path: Path, limit: str, kept: int) -> None:
    """As README says it."""
    with SummaryWriter(str(tmp_path / "a")) as writer:
        for step in range(30):
            writer.add_image("kernels/conv", np.zeros((2, 2, 3)), step, dataformats="HWC")
    board = in_process(f"--logdir={tmp_path}", f"--samples_per_plugin={limit}")
    answer = board.get("/data/plugin/images/images?run=a&tag=kernels/conv&sample=0")
    assert len(answer.json()) == kept


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
def test_no_flags_make_the_entry_point_raise(flags: Any) -> None:
    KernelsLoader().fix_flags(flags)


def test_a_board_without_data_has_an_empty_timeline() -> None:
    from tensorboard.plugins.base_plugin import TBContext

    plugin = KernelsLoader().load(TBContext())
    assert plugin is not None
    assert not plugin.is_active()
    assert KernelsLoader().load(None) is None  # type: ignore[arg-type]


BREAKAGES = [
    "sys.modules['kernelviz_callback.tensorboard_plugin.plugin'] = None",
    "sys.modules['kernelviz_callback.tensorboard_plugin.codec'] = None",
    "sys.modules['kernelviz_callback.health.verdict_names'] = None",
    "import kernelviz_callback.tensorboard_plugin.plugin as p; del p.KernelsPlugin",
    "import kernelviz_callback.tensorboard_plugin.plugin as p; p.EventStore = None",
]
# Imports TensorBoard once; each start is a fork, which leaves what it printed and a JSON file.
START = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from tab_boards import in_process
folder = sys.argv[2]
for number, before in enumerate(json.loads(sys.argv[3])):
    if os.fork() == 0:
        os.dup2(os.open(f"{folder}/{number}.txt", os.O_CREAT | os.O_WRONLY), 2)
        exec(before)
        board = in_process(f"--logdir={folder}/logs")
        plugins = json.loads(board.get("/data/plugins_listing").content)
        with open(f"{folder}/{number}.json", "w") as file:
            json.dump({"plugins": plugins, "modules": list(sys.modules)}, file)
        sys.exit()
    assert os.wait()[1] == 0, before
"""


Started = dict[str, tuple[Any, list[str], str]]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Started:
    """Start TensorBoard as it is and with each breakage, each time in its own process.

    Returns:
        For each breakage ("" for none) the plugins, the imported modules, and the output.
    """
    folder = tmp_path_factory.mktemp("started")
    (folder / "logs").mkdir()
    ways = ["", *BREAKAGES]
    tests = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", START, tests, str(folder), json.dumps(ways)]
    subprocess.run(command, check=True)
    found = {}
    for number, way in enumerate(ways):
        told = json.loads((folder / f"{number}.json").read_text())
        found[way] = told["plugins"], told["modules"], (folder / f"{number}.txt").read_text()
    return found


def test_tensorboard_starts_without_torch_and_lightning(started: Started) -> None:
    plugins, modules, _ = started[""]
    assert "kernels" in plugins
    assert "kernelviz_callback.tensorboard_plugin.plugin" in modules
    assert not {"torch", "torchvision", "lightning", "scipy", "matplotlib"} & set(modules)
    _, without, _ = started[BREAKAGES[0]]
    assert {name.split(".")[0] for name in modules} == {name.split(".")[0] for name in without}


def test_the_entry_point_imports_only_itself() -> None:
    code = """
import sys, tensorboard.plugins.base_plugin, tensorboard.util.tb_logging
before = set(sys.modules)
import kernelviz_callback.tensorboard_plugin.loader
print(*set(sys.modules) - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if name.startswith("kernelviz_callback")}
    ours = "kernelviz_callback.tensorboard_plugin"
    base = {f"kernelviz_callback{part}" for part in ("", "._version", ".forking")}
    assert loaded == {*base, ours, f"{ours}.loader"}
    assert "numpy" not in done.stdout.split()


@pytest.mark.parametrize("broken", BREAKAGES)
def test_tensorboard_starts_if_the_tab_does_not_load(broken: str, started: Started) -> None:
    plugins, _, said = started[broken]
    assert "kernels" not in plugins
    assert {"scalars", "images", "graphs", "timeseries"} <= set(plugins)
    assert "the Kernels tab is missing" in said

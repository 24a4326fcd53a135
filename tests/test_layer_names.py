"""Names of any characters survive the way through files, events, pages and the command line."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tab_boards import in_process
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from kernelviz_callback import (
    KernelWatcher,
    checkpoint_pictures,
    compare,
    list_snapshots,
    load_probe,
    load_snapshot,
    load_weights,
    open_checkpoint,
)
from kernelviz_callback.cli import main
from kernelviz_callback.model.layer_names import printable

NAMES = (
    *(
        "/stem/Conv",
        "stem/Conv",
        "stem-Conv",
        "stem Conv",
        "a\\b %s{}$x$ $",
        "блок:1 ✓ <b>",
        "[red]",
    ),
    *("x/health/y", "x/weight", "new\nline", "esc\x1b[31m", "surrogate\udc80", "nul\0", "n" * 230),
    *('"quoted"', "</script>", "{{x}}", "..", "k/probe", "ﬁ\u202e\u200b", "-o"),
)


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        for name in NAMES:
            self.add_module(name.replace(".", "·"), nn.Conv2d(3, 3, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = layer(x)
        return x.mean((2, 3))


@pytest.fixture(scope="module")
def network() -> Odd:
    return Odd()


@pytest.fixture(scope="module")
def expected(network: Odd) -> dict[str, Tensor]:
    """The weights by the names that are shown."""
    return {printable(name): conv.weight.detach() for name, conv in network.named_children()}


@pytest.fixture(scope="module")
def folder(network: Odd, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log directory with two equal snapshots, pictures as files, and an event file."""
    log_dir = tmp_path_factory.mktemp("names")
    for loggers in ([], None):
        place = log_dir / ("files" if loggers == [] else "board")
        with KernelWatcher(network, place, layers="*", loggers=loggers) as watcher:
            watcher.snapshot(0)
            watcher.snapshot(1)
    return log_dir


def test_no_two_names_are_shown_alike(expected: dict[str, Tensor]) -> None:
    assert len(expected) == len(NAMES)
    assert all(name.isprintable() for name in expected)


def test_snapshots_and_pictures_have_every_layer(folder: Path, expected: Any) -> None:
    for place in ("files", "board"):
        for path in list_snapshots(folder / place / "kernelviz").values():
            snapshot = load_snapshot(path)
            assert list(snapshot.weights) == list(expected)
            assert list(snapshot.health) == list(expected)
            for name, weights in expected.items():
                assert torch.equal(snapshot.weights[name], weights)
                assert torch.equal(load_weights(path, name), weights)
                assert open_checkpoint(path).read_record(name).health is not None
    pictures = list((folder / "files" / "kernelviz").glob("kernels-*-step-00000001.png"))
    assert len(pictures) == len(expected)


def test_the_events_have_every_layer(folder: Path, expected: dict[str, Tensor]) -> None:
    events = EventAccumulator(str(folder / "board"))
    events.Reload()
    assert {f"kernels/{name}" for name in expected} <= set(events.Tags()["images"])
    assert {f"kernelviz/{name}/drift" for name in expected} <= set(events.Tags()["scalars"])
    board = in_process(f"--logdir={folder}")
    [run] = [run for run in board.timeline()["runs"] if run["layers"]]
    assert {layer["name"] for layer in run["layers"]} == set(expected)
    assert run["damaged"] == []
    for layer in run["layers"]:
        ids = [each["id"] for each in layer["snapshots"]]
        assert len(board.payloads(run["name"], layer["name"], ids)) == 2


@pytest.mark.parametrize("raw", [n for n in NAMES if not n.isprintable() or "$" in n])
def test_a_checkpoint_is_read_and_drawn_by_the_name(network: Odd, tmp_path: Path, raw: str) -> None:
    raw = raw.replace(".", "·")
    torch.save(network.state_dict(), tmp_path / "net.pt")
    weights = getattr(network, raw).weight
    for name in (raw, printable(raw)):
        assert torch.equal(load_weights(tmp_path / "net.pt", name), weights)
        assert torch.equal(load_weights(network, name), weights)
    assert checkpoint_pictures(open_checkpoint(tmp_path / "net.pt"), raw, probe=load_probe(size=32))
    comparison = compare(tmp_path / "net.pt", network, layer=raw)
    assert comparison.first.layer == printable(raw)
    comparison.plot()[0].canvas.draw()


@pytest.mark.parametrize("raw", ["a\\b %s{}$x$ $", "new\nline", "блок:1 ✓ <b>", "</script>"])
def test_every_command_takes_the_name(folder: Path, tmp_path: Path, capsys, raw: str) -> None:
    run, name = str(folder / "files"), printable(raw)
    outputs = [str(tmp_path / f"o{suffix}") for suffix in (".png", ".html", ".json", ".csv")]
    saved = [word for path in outputs for word in ("-o", path)]
    assert main(["show", run, "--list"]) == 0
    assert f"  {name}: 3x3x3x3" in capsys.readouterr().out.splitlines()
    assert main(["show", run, f"--layer={raw}", "-o", outputs[0]]) == 0
    assert main(["evolve", run, f"--layer={name}", *saved[:4]]) == 0
    page = Path(outputs[1]).read_text(encoding="utf-8")
    assert json.dumps(name)[1:-1].replace("<", "\\u003c") in page
    assert main(["compare", run, f"--layer={name}", *saved]) == 0
    checkpoints = json.loads(Path(outputs[2]).read_text())["checkpoints"]
    assert {checkpoint["layer"] for checkpoint in checkpoints} == {name}
    with Path(outputs[3]).open(newline="") as file:
        assert {row["layer"] for row in csv.DictReader(file)} == {name}
    assert capsys.readouterr().err == ""


def test_a_csv_file_in_ascii_does_not_end_the_training(tmp_path: Path) -> None:
    code = """
import sys
from conftest import TinyNet
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from kernelviz_callback import KernelVizCallback
net = TinyNet()
net.conv = nn.Sequential()
net.conv.add_module("\\u0431\\u043b\\u043e\\u043a", nn.Conv2d(3, 8, 5))
logger = CSVLogger(sys.argv[1], name="", version="")
Trainer(max_epochs=1, logger=logger, callbacks=[KernelVizCallback()], accelerator="cpu",
        enable_checkpointing=False, enable_progress_bar=False).fit(net)
"""
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        check=False,
        env={**os.environ, **ascii_only, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    assert "\\u0431\\u043b\\u043e\\u043a/drift" in (tmp_path / "metrics.csv").read_text()

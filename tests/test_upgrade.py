"""Runs and checkpoints that version 1.0.0 wrote are resumed, shown and compared by this version."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import logged_images, steps_on_disk, warned
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tab_boards import in_process
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kernelviz_callback import (
    KernelVizCallback,
    compare,
    list_snapshots,
    load_snapshot,
    load_weights,
    open_checkpoint,
)
from kernelviz_callback.cli import main
from kernelviz_callback.tensorboard_plugin.codec import unpack_snapshot
from kernelviz_callback.tensorboard_plugin.header import parse_header

STEPS = [0, 2, 4]
OPTIONS: dict[str, Any] = {
    "probe_size": 32,
    "scale": "run",
    "early_steps": False,
    "every_n_train_steps": 2,
}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the folder that 1.0.0 wrote: ``run/`` and the numbers of its comparison."""
    return Path(shutil.copytree(Path(__file__).parent / "data/written_by_1_0_0", tmp_path / "old"))


def test_snapshots_are_read_with_their_health(old: Path) -> None:
    snapshots = list_snapshots(old / "run/kernelviz")
    assert list(snapshots) == STEPS
    last = load_snapshot(snapshots[4])
    assert last.weights["conv"].shape == (8, 3, 5, 5)
    assert last.versions["kernelviz_callback"] == "1.0.0"
    assert [v.name for v in last.health["conv"].verdicts] == ["noise-like"] * 8
    checkpoint = load_weights(old / "run/checkpoints/last.ckpt", "conv")
    assert torch.equal(last.weights["conv"], checkpoint)


def test_a_comparison_gives_the_numbers_that_1_0_0_gave(old: Path) -> None:
    expected = json.loads((old / "comparison.json").read_text())["checkpoints"]
    found = compare(*list_snapshots(old / "run/kernelviz").values())
    assert [column.label for column in found.columns] == [e["label"] for e in expected]
    for column, known in zip(found.columns, expected, strict=True):
        assert column.step == known["step"]
        numbers = found.numbers(column)
        assert numbers.keys() == known["numbers"].keys()
        for name, value in known["numbers"].items():
            at_first = torch.nan if value is None else value
            assert numbers[name] == pytest.approx(at_first, rel=1e-5, abs=1e-6, nan_ok=True), name


def test_every_command_reads_the_run_and_the_checkpoint(old: Path, tmp_path: Path) -> None:
    run, checkpoint = str(old / "run"), str(old / "run/checkpoints/last.ckpt")
    assert main(["show", checkpoint, "-o", str(tmp_path / "shown.png")]) == 0
    with Image.open(tmp_path / "shown-kernels.png") as image:
        assert min(image.size) > 100
    assert main(["compare", run, checkpoint, "--fail-if", "drift>0.5"]) == 0
    outputs = ["film.png", "evolution.gif", "report.html"]
    assert main(["evolve", run, *(f"-o{tmp_path / name}" for name in outputs)]) == 0
    assert all((tmp_path / name).stat().st_size > 1000 for name in outputs)


def test_a_checkpoint_holds_the_epoch_and_the_step(old: Path) -> None:
    opened = open_checkpoint(old / "run/checkpoints/last.ckpt")
    assert (opened.step, opened.epoch) == (4, 1)


def test_a_training_resumes_in_its_folder_on_its_scale(fit, old: Path, recwarn) -> None:
    path = old / "run/checkpoints/last.ckpt"
    state = torch.load(path, weights_only=True)["callbacks"]["KernelVizCallback"]
    callback = KernelVizCallback(**OPTIONS)
    logger = TensorBoardLogger(old, name="", version="run")
    trainer = fit(callback, logger=logger, ckpt_path=path, max_epochs=2)
    assert not warned(recwarn)
    assert steps_on_disk(trainer.log_dir) == [0, 2, 4, 6, 8]
    assert not (old / "run/kernelviz-2").exists()
    resumed = callback.state_dict()
    assert resumed.keys() == state.keys()
    assert resumed["run"] == state["run"]
    assert resumed["attempt"] > state["attempt"]
    for name, scale in state["run_scales"].items():
        assert resumed["run_scales"][name] >= scale
    images = logged_images(old / "run")
    assert list(images["kernels/conv"]) == [0, 2, 4, 6, 8]
    assert list(images["responses/conv"]) == [0, 2, 4, 6, 8]


def test_the_kernels_tab_shows_old_and_new_snapshots_as_one_run(fit, old: Path) -> None:
    assert steps_in_tab(old) == STEPS
    logger = TensorBoardLogger(old, name="", version="run")
    checkpoint = old / "run/checkpoints/last.ckpt"
    fit(KernelVizCallback(**OPTIONS), logger=logger, ckpt_path=checkpoint, max_epochs=2)
    assert steps_in_tab(old) == [0, 2, 4, 6, 8]


def steps_in_tab(logdir: Path) -> list[int]:
    """Steps of the one run that the tab shows, each with a payload that TensorBoard gives out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        board = in_process(f"--logdir={logdir}")
    (run,) = board.timeline()["runs"]
    assert run["damaged"] == []
    (layer,) = run["layers"]
    payloads = board.payloads(run["name"], layer["name"], [s["id"] for s in layer["snapshots"]])
    assert all(payloads)
    return [snapshot["step"] for snapshot in layer["snapshots"]]


def test_the_weights_in_the_events_are_those_of_the_files(old: Path) -> None:
    events = EventAccumulator(str(old / "run"), size_guidance={"tensors": 0}).Reload()
    headers = {
        tag: parse_header(tag, content)
        for tag, content in events.PluginTagToContent("kernels").items()
    }
    stored = {
        header["step"]: unpack_snapshot(header, events.Tensors(tag)[0].tensor_proto.string_val[0])
        for tag, header in headers.items()
        if header["kind"] == "snapshot"
    }
    assert sorted(stored) == STEPS
    for step, path in list_snapshots(old / "run/kernelviz").items():
        exact = load_snapshot(path).weights["conv"].numpy()
        assert stored[step].weights() == pytest.approx(
            exact, abs=float(np.abs(exact).max()) / 2**11
        )

"""Trainings on two CPU processes: the callback changes nothing and records the whole weights."""

from pathlib import Path

import pytest
import torch
from conftest import logged_images
from identity import assert_same
from processes import run

from kernelviz_callback import list_snapshots, load_snapshot

WHOLE = str(8 * 3 * 5 * 5)  # count of numbers in the weights of the watched layer
BIAS = "8"
pytestmark = pytest.mark.processes


SCENARIOS = ["ddp", "ddp-train-batch", "ddp-deeper", "fsdp2", "fsdp2-half", "fsdp2-deeper"]


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train all scenarios in the same two processes. Each scenario has its own folder."""
    folder = tmp_path_factory.mktemp("two-processes")
    try:
        run("two_processes.py", str(folder), *SCENARIOS)
    except AssertionError as error:
        outputs = {path.parent.name: path.read_text()[-3000:] for path in folder.glob("*/output")}
        raise AssertionError("\n".join(map(str, outputs.items()))) from error
    return folder


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_two_processes_train_alike_with_and_without_the_callback(
    scenario: str, trainings: Path
) -> None:
    folder = trainings / scenario
    output = (folder / "output").read_text()
    assert output.count("kernelviz: watching conv") == 1
    assert "could not" not in output
    records = {
        (watched, rank): torch.load(folder / f"{watched}-{rank}.pt", weights_only=False)
        for watched in (False, True)
        for rank in (0, 1)
    }
    hook_times = {key: record.pop("hook_times") for key, record in records.items()}
    for rank in (0, 1):
        assert_same(records[False, rank], records[True, rank])
    assert records[True, 0]["losses"] != records[True, 1]["losses"], "each process has its own data"

    log_dir = folder / "logs-True" / "run" / "0"
    snapshots = list_snapshots(log_dir / "kernelviz")
    steps = [0, 4, 6] if scenario == "fsdp2-half" else [0, 1, 2, 4, 6]
    assert list(snapshots) == steps
    images = logged_images(log_dir)
    for layer in ("conv", "rest.0") if scenario.endswith("deeper") else ("conv",):
        assert list(images[f"responses/{layer}"]) == steps
    for step, path in snapshots.items():
        weight = load_snapshot(path).weights["conv"]
        assert torch.equal(weight, records[True, 0]["witness"][step])
        assert torch.equal(weight, records[True, 1]["witness"][step])
    assert not list((folder / "logs-False").rglob("*kernelviz*"))

    assert hook_times[True, 0]["threads"] == {"kernelviz-files", "kernelviz-pictures"}
    assert hook_times[True, 1]["threads"] == set(), "rank 1 does not write"
    assert len(list((folder / "logs-True").rglob("kernelviz*"))) == 1
    assert len(list((folder / "logs-True").rglob("events*"))) == 1
    if scenario == "ddp":
        assert hook_times[True, 1]["seconds"] < 0.1, "rank 0 draws five pictures for a second"


def test_spawned_processes_are_watched(tmp_path: Path) -> None:
    """The callback is pickled for each process; the trained weights are sent back."""
    output = run("spawned.py", str(tmp_path))
    assert output.count("kernelviz: watching conv") == 1
    snapshots = list_snapshots(tmp_path / "run" / "0" / "kernelviz")
    assert list(snapshots) == [0, 1, 2, 4]
    assert list(logged_images(tmp_path / "run" / "0")["kernels/conv"]) == [0, 1, 2, 4]
    trained = torch.load(tmp_path / "trained.pt")
    assert torch.equal(load_snapshot(snapshots[4]).weights["conv"], trained)


@pytest.mark.parametrize("way", ["fork", "forkserver", "ddp_notebook"])
def test_a_process_that_is_started_after_the_callback_was_made_is_watched(
    way: str, tmp_path: Path
) -> None:
    run("started.py", str(tmp_path), way)
    assert list(list_snapshots(tmp_path / "kernelviz")) == [0, 1, 2, 4]
    assert list(logged_images(tmp_path)["kernels/conv"]) == [0, 1, 2, 4]


def gathered(folder: Path, *wrappers: str) -> dict[str, list[str]]:
    lines = run("sharded_weights.py", str(folder / "store"), *wrappers).splitlines()
    return {line.split()[0]: line.split()[1:] for line in lines if line.split()[:1]}


def test_only_the_watched_layer_is_gathered(tmp_path: Path) -> None:
    found = gathered(tmp_path, "plain", "fsdp2", "own_code_fsdp2", "fsdp1")
    assert found["plain"] == ["False", "True"]
    assert found["fsdp2"] == ["True", "True", WHOLE, BIAS]
    assert found["own_code_fsdp2"] == ["True", "True", WHOLE, BIAS], "the kernel is measured"
    assert found["fsdp1"] == ["True", "True"]


@pytest.mark.newest
def test_only_the_watched_layer_with_weight_norm_is_gathered(tmp_path: Path) -> None:
    assert gathered(tmp_path, "normed_fsdp2")["normed_fsdp2"] == ["True", "True", BIAS, "8", WHOLE]

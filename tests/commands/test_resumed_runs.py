"""Which checkpoints are one training, and what is said about its run folders."""

from pathlib import Path

import pytest
import torch
from filter_sequences import drawn

from kernelviz_callback import Geometry, Snapshot, save_snapshot
from kernelviz_callback.checkpoints.checkpoint import open_checkpoint
from kernelviz_callback.commands.file_errors import FileErrors
from kernelviz_callback.commands.history import LayerHistory
from kernelviz_callback.commands.resumed_runs import describe_order_change, find_training
from kernelviz_callback.snapshots.names import snapshot_step

PLAIN = Geometry("Conv2d", (1, 1), (0, 0), (1, 1), 1)


def recorded(folder: Path, *steps: int) -> str:
    """Write snapshots into a run folder."""
    for step in steps:
        weights = {"conv": drawn(4, 3, 3, 3, seed=step)}
        save_snapshot(Snapshot(step, 0, 0.0, weights, {"conv": PLAIN}), folder / "kernelviz")
    return str(folder)


def found_steps(*names: str) -> tuple[list[int | None], list[str]]:
    failures = FileErrors()
    training = find_training(names, failures)
    assert failures.status == 0
    return [snapshot_step(name) for name in training.names], training.notes


def test_only_snapshots_before_the_resume_are_taken_from_the_earlier_folder(
    tmp_path: Path,
) -> None:
    first = recorded(tmp_path / "first", 0, 4, 8)
    for name, steps, kept in (("at", (8, 12), (0, 4)), ("after", (10, 12), (0, 4, 8))):
        resumed = recorded(tmp_path / name, *steps)
        found, notes = found_steps(first, resumed)
        assert found == [*kept, *steps]
        assert notes == [f"resumed at step {steps[0]} in {resumed}"]


def test_snapshots_that_the_resume_took_again_are_said_to_be_left_out(tmp_path: Path) -> None:
    first, resumed = recorded(tmp_path / "first", 0, 4, 8), recorded(tmp_path / "resumed", 4, 6)
    assert found_steps(resumed, first) == (
        [4, 6, 0],
        [f"resumed at step 4 in {resumed}: later snapshots in {first} left out"],
    )


def test_a_single_file_can_be_named_beside_a_run_folder(tmp_path: Path) -> None:
    folder = recorded(tmp_path / "run", 0, 4)
    torch.save({"conv.weight": drawn(4, 3, 3, 3)}, tmp_path / "last.ckpt")
    assert found_steps(folder, str(tmp_path / "last.ckpt")) == ([0, 4, None], [])


def test_checkpoints_in_two_folders_are_two_trainings(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for step in (1, 2):
            (tmp_path / name).mkdir(exist_ok=True)
            torch.save({"conv.weight": drawn(4, 3, 3, 3)}, tmp_path / name / f"step={step}.ckpt")
    assert len(find_training([str(tmp_path / "a")], FileErrors()).names) == 2
    recorded(tmp_path / "c", 0, 4)
    with pytest.raises(ValueError, match=f"2 trainings: {tmp_path}/a, {tmp_path}/c; name one"):
        find_training([str(tmp_path / name) for name in ("a", "c")], FileErrors())
    with pytest.raises(ValueError, match="2 trainings"):
        find_training([str(tmp_path / name) for name in ("a", "b")], FileErrors())


def test_a_folder_of_many_run_folders_names_the_first_eight(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(9):
        recorded(tmp_path / "runs" / f"run{i}", i)
    failures = FileErrors()
    assert find_training([str(tmp_path / "runs")], failures).names == []
    listed = ", ".join(f"run{i}" for i in range(8))
    said = f"this folder holds several run folders: {listed}, ...; name one"
    assert capsys.readouterr().err == f"kernelviz: {tmp_path / 'runs'}: {said}\n"
    assert failures.status == 2


def test_a_damaged_checkpoint_does_not_hide_a_change_of_the_order(tmp_path: Path) -> None:
    start = drawn(16, 3, 5, 5)
    names = {step: str(tmp_path / f"step={step}.pt") for step in range(4)}
    for step, weights in enumerate((start, start, start.flip(0), start.flip(0))):
        torch.save({"conv.weight": weights}, names[step])
    first = open_checkpoint(names[0])
    Path(names[1]).write_bytes(b"damaged")
    said = describe_order_change(LayerHistory(names, first, None))
    assert said is not None
    assert said.startswith(f"the filters of {names[2]} are in another order")

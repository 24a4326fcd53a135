"""Which training ``kernelviz evolve`` takes from a folder that holds run folders."""

from pathlib import Path

import torch

from kernelviz_callback import Geometry, Snapshot, save_snapshot
from kernelviz_callback.cli import main

PLAIN = Geometry("Conv2d", (1, 1), (0, 0), (1, 1), 1)


def snapshots(folder: Path, steps: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 30, 60)) -> Path:
    for step in steps:
        weights = {"conv": torch.full((4, 3, 5, 5), float(step))}
        save_snapshot(Snapshot(step, 0, 0.0, weights, {"conv": PLAIN}), folder / "kernelviz")
    return folder


def test_the_only_run_in_a_folder_is_named(tmp_path: Path, capsys) -> None:
    run = snapshots(tmp_path / "runs" / "mine")
    assert main(["evolve", str(run.parent)]) == 2
    expected = f"it has checkpoints in its subfolder mine; name {run}"
    assert expected in capsys.readouterr().err


def test_two_trainings_in_one_run_folder_are_told_apart(tmp_path: Path, capsys) -> None:
    run = snapshots(tmp_path / "run")
    (snapshots(tmp_path / "later", (0, 5)) / "kernelviz").rename(run / "kernelviz-2")
    assert main(["evolve", str(run)]) == 0
    assert "2 snapshots, steps 0 to 5" in capsys.readouterr().out
    assert main(["evolve", str(run / "kernelviz")]) == 0
    assert "8 snapshots, steps 0 to 60" in capsys.readouterr().out
    assert main(["evolve", str(run / "kernelviz"), str(run / "kernelviz-2")]) == 2
    expected = f"these are 2 trainings: {run}/kernelviz, {run}/kernelviz-2; name one"
    assert expected in capsys.readouterr().err

"""The numbers of health reach every logger, and steer EarlyStopping and ModelCheckpoint."""

import csv
import itertools
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TinyNet
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kernelviz_callback import KernelVizCallback, kernel_health, list_snapshots, load_snapshot


def kept_drift(log_dir: str) -> dict[int, float]:
    snapshots = list_snapshots(Path(log_dir) / "kernelviz")
    return {s: load_snapshot(p).health["conv"].totals.drift for s, p in snapshots.items()}


def test_every_logger_has_the_numbers_at_their_steps(fit: Any, tmp_path: Path) -> None:
    loggers = [TensorBoardLogger(tmp_path), CSVLogger(tmp_path)]
    trainer = fit(KernelVizCallback(), logger=loggers)
    expected = {s: d for s, d in kept_drift(trainer.log_dir).items() if s > 0}
    events = EventAccumulator(loggers[0].log_dir)
    events.Reload()
    found = {e.step: e.value for e in events.Scalars("kernelviz/conv/drift")}
    assert found == pytest.approx(expected)
    with (Path(loggers[1].log_dir) / "metrics.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["kernelviz/conv/drift"]]
    assert {int(r["step"]): float(r["kernelviz/conv/drift"]) for r in rows} == pytest.approx(
        expected
    )
    dead = {e.step: e.value for e in events.Scalars("kernelviz/conv/dead_filters")}
    assert dead == dict.fromkeys([0, *expected], 0.0)


def test_a_checkpoint_is_chosen_by_the_numbers_of_its_own_step(fit: Any, tmp_path: Path) -> None:
    monitor = "kernelviz/conv/drift"
    checkpoint = ModelCheckpoint(tmp_path / "best", monitor=monitor, mode="max", save_top_k=-1)
    trainer = fit(KernelVizCallback(), checkpoint, enable_checkpointing=True, max_epochs=3)
    expected = kept_drift(trainer.log_dir)
    scores = {
        int(Path(path).stem.rpartition("step=")[2]): score.item()
        for path, score in checkpoint.best_k_models.items()
    }
    assert scores == pytest.approx({step: expected[step] for step in (4, 8, 12)})


def test_a_training_stops_early_by_a_number(fit: Any) -> None:
    class Killer(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                with torch.no_grad():
                    pl_module.conv.weight[:3] = 0
                    pl_module.conv.weight.requires_grad_(False)

    stop = EarlyStopping(
        "kernelviz/conv/dead_filters", mode="min", stopping_threshold=-1, divergence_threshold=2
    )
    trainer = fit(Killer(), KernelVizCallback(), stop, max_epochs=6)
    assert trainer.current_epoch == 2


def test_without_health_there_is_nothing_of_it(fit: Any) -> None:
    trainer = fit(KernelVizCallback(health=False))
    events = EventAccumulator(trainer.log_dir)
    events.Reload()
    assert not [tag for tag in events.Tags()["scalars"] if tag.startswith("kernelviz")]
    for path in list_snapshots(Path(trainer.log_dir) / "kernelviz").values():
        assert not load_snapshot(path).health


def test_the_numbers_are_those_of_the_weights(fit: Any) -> None:
    trainer = fit(KernelVizCallback())
    snapshots = [
        load_snapshot(p) for p in list_snapshots(Path(trainer.log_dir) / "kernelviz").values()
    ]
    first = snapshots[0].weights["conv"]
    for before, now in itertools.pairwise(snapshots):
        expected = kernel_health(
            now.weights["conv"],
            "conv",
            first=first,
            previous=before.weights["conv"],
            steps_since_previous=now.step - before.step,
        )
        assert now.health["conv"].to_dict() == expected.to_dict() | {
            "filters": now.health["conv"].to_dict()["filters"],
            "verdicts": now.health["conv"].to_dict()["verdicts"],
        }
        assert now.health["conv"].filters.norm.equal(expected.filters.norm)


def test_a_beginning_is_said_once(fit: Any) -> None:
    net = TinyNet()
    with torch.no_grad():
        net.conv.weight[2] = 0
    net.conv.weight.register_hook(lambda g: g.index_fill(0, torch.tensor([2]), 0.0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(KernelVizCallback(), model=net)
    said = [str(w.message) for w in caught if "near-zero" in str(w.message)]
    assert len(said) == 1
    assert said[0].startswith("kernelviz: conv: 1 of 8 filters is near-zero since step 0: 2. ")


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_a_resumed_training_is_compared_with_its_first_snapshot(fit: Any, tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, version=0)
    checkpoint = ModelCheckpoint(tmp_path / "c", save_last=True)
    fit(KernelVizCallback(), checkpoint, logger=logger, enable_checkpointing=True)
    trainer = fit(
        KernelVizCallback(),
        ModelCheckpoint(tmp_path / "c", save_last=True),
        logger=TensorBoardLogger(tmp_path, version=0),
        enable_checkpointing=True,
        max_epochs=3,
        ckpt_path=tmp_path / "c" / "last.ckpt",
    )
    snapshots = list_snapshots(Path(trainer.log_dir) / "kernelviz")
    first, last = load_snapshot(snapshots[0]), load_snapshot(snapshots[12])
    change = (last.weights["conv"] - first.weights["conv"]).norm()
    expected = (change / first.weights["conv"].norm()).item()
    assert last.health["conv"].totals.drift == pytest.approx(expected)


def test_two_processes_are_steered_by_the_same_numbers(tmp_path: Path) -> None:
    script = Path(__file__).parent / "steered.py"
    subprocess.run([sys.executable, script, tmp_path], check=True, timeout=120)
    expected = kept_drift(str(tmp_path / "lightning_logs" / "version_0"))
    for rank in range(2):
        scores = json.loads((tmp_path / f"scores-{rank}.json").read_text())
        found = {int(name.rpartition("step=")[2]): score for name, score in scores.items()}
        assert found == pytest.approx({step: expected[step] for step in (2, 4)})

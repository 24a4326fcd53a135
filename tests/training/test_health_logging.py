"""The health numbers in loggers, and as metrics for EarlyStopping and ModelCheckpoint."""

import csv
import itertools
import json
import math
import threading
import warnings
from concurrent import futures
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import BATCHES, TinyNet, logged_images
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from processes import run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kernelviz_callback import (
    KernelVizCallback,
    kernel_grid,
    kernel_health,
    list_snapshots,
    load_probe,
    load_snapshot,
    measure_probe,
)
from kernelviz_callback.drawing.layer_pictures import kernel_picture
from kernelviz_callback.health.verdict_names import VERDICT_COLOURS, VERDICT_NAMES
from kernelviz_callback.training import health_monitor
from kernelviz_callback.training.failures import Failures
from kernelviz_callback.training.health_logging import HealthLog


def drift_in_files(log_dir: str) -> dict[int, float]:
    """Return the drift of each step, read from the snapshot files."""
    snapshots = list_snapshots(Path(log_dir) / "kernelviz")
    return {s: load_snapshot(p).health["conv"].totals.drift for s, p in snapshots.items()}


def test_every_logger_gets_the_numbers_at_their_steps(fit: Any, tmp_path: Path) -> None:
    loggers = [TensorBoardLogger(tmp_path), CSVLogger(tmp_path)]
    trainer = fit(KernelVizCallback(), logger=loggers)
    expected = drift_in_files(trainer.log_dir) | {0: 0.0}
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
    assert dead == dict.fromkeys(expected, 0.0)


def test_a_checkpoint_is_chosen_by_the_numbers_of_its_step(fit: Any, tmp_path: Path) -> None:
    monitor = "kernelviz/conv/drift"
    checkpoint = ModelCheckpoint(tmp_path / "best", monitor=monitor, mode="max", save_top_k=-1)
    trainer = fit(KernelVizCallback(), checkpoint, enable_checkpointing=True, max_epochs=3)
    expected = drift_in_files(trainer.log_dir)
    scores = {
        int(Path(path).stem.rpartition("step=")[2]): score.item()
        for path, score in checkpoint.best_k_models.items()
    }
    assert scores == pytest.approx({step: expected[step] for step in (4, 8, 12)})


@pytest.mark.parametrize("number", ["drift", "frozen"])
@pytest.mark.parametrize(
    "rarely", [{"early_steps": False}, {"early_steps": False, "every_n_epochs": 3}]
)
def test_early_stopping_finds_its_number_at_its_first_check(
    fit: Any, number: str, rarely: dict[str, Any]
) -> None:
    """The check is after a validation in the epoch, before any snapshot but the first."""
    stop = EarlyStopping(f"kernelviz/conv/{number}", mode="max", patience=99)
    trainer = fit(KernelVizCallback(**rarely), stop, max_epochs=4, val_check_interval=0.5)
    assert trainer.global_step == 4 * BATCHES, "the training was not ended"
    assert stop.best_score >= 0


def test_early_stopping_can_monitor_a_health_number(fit: Any) -> None:
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


class WaitForExamination(Callback):
    """Waits before each batch until all snapshots are examined, as if a step took long.

    ``state_dict`` of a callback with ``scale="run"`` waits until all snapshots are drawn.
    """

    def __init__(self, watched: KernelVizCallback) -> None:
        self.watched = watched

    def on_train_batch_start(self, *_: Any) -> None:
        assert self.watched.style.scale == "run"
        self.watched.state_dict()


def test_the_metrics_have_the_numbers_of_each_epoch(fit: Any) -> None:
    seen: dict[int, set[str]] = {}

    class Look(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            seen[trainer.current_epoch] = {*trainer.callback_metrics}

    ours = KernelVizCallback(scale="run")
    trainer = fit(WaitForExamination(ours), ours, Look(), max_epochs=3)
    for epoch in range(3):
        assert {"kernelviz/conv/drift", "kernelviz/conv/dead_filters"} <= seen[epoch]
    assert trainer.callback_metrics["kernelviz/conv/drift"] == drift_in_files(trainer.log_dir)[12]


def test_after_one_epoch_the_metrics_have_the_numbers_of_its_end(fit: Any) -> None:
    trainer = fit(KernelVizCallback(), max_epochs=1)
    assert trainer.callback_metrics["kernelviz/conv/drift"] == drift_in_files(trainer.log_dir)[4]


def test_an_update_ratio_is_logged_where_it_exists_and_its_last_value_is_kept(fit: Any) -> None:
    """Of the snapshots at the steps 0, 1, 2 and 4, the last one is not one step after another."""
    trainer = fit(KernelVizCallback(), max_epochs=1)
    paths = list_snapshots(Path(trainer.log_dir) / "kernelviz")
    expected = {s: load_snapshot(p).health["conv"].totals.update_ratio for s, p in paths.items()}
    assert [step for step, ratio in expected.items() if math.isnan(ratio)] == [0, 4]
    events = EventAccumulator(trainer.log_dir)
    events.Reload()
    found = {e.step: e.value for e in events.Scalars("kernelviz/conv/update_ratio")}
    assert found == pytest.approx({step: expected[step] for step in (1, 2)})
    last = trainer.callback_metrics["kernelviz/conv/update_ratio"]
    assert last.item() == pytest.approx(expected[2])


class Breaker(Callback):
    """Sets every weight to NaN in the second epoch."""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            with torch.no_grad():
                pl_module.conv.weight.mul_(torch.nan)


@pytest.mark.filterwarnings("ignore:kernelviz. conv. 8 of 8 filters are non-finite")
def test_early_stopping_ends_when_its_number_is_missing(fit: Any, tmp_path: Path) -> None:
    stop = EarlyStopping("kernelviz/conv/drift", mode="max", patience=99, check_finite=True)
    loggers = [TensorBoardLogger(tmp_path), CSVLogger(tmp_path)]
    trainer = fit(Breaker(), KernelVizCallback(), stop, max_epochs=6, logger=loggers)
    assert trainer.current_epoch == 2
    assert trainer.callback_metrics["kernelviz/conv/drift"].isnan()
    events = EventAccumulator(loggers[0].log_dir)
    events.Reload()
    assert math.isnan({e.step: e.value for e in events.Scalars("kernelviz/conv/drift")}[8])
    with (Path(loggers[1].log_dir) / "metrics.csv").open() as file:
        rows = {int(r["step"]): r["kernelviz/conv/drift"] for r in csv.DictReader(file)}
    assert rows[8] == "nan"


@pytest.mark.parametrize("error", [futures.TimeoutError(), RuntimeError("the disk is full")])
def test_rank_zero_broadcasts_even_if_its_numbers_failed(error: Exception) -> None:
    class Failed(Future):
        def result(self, timeout: float | None = None) -> Any:
            raise error

    shared: list[dict[str, float]] = []
    trainer = SimpleNamespace(
        world_size=2,
        callbacks=[SimpleNamespace(monitor="kernelviz/conv/drift")],
        lr_scheduler_configs=[],
        loggers=[],
        strategy=SimpleNamespace(broadcast=lambda numbers: shared.append(numbers) or numbers),
    )
    health_log, failures = HealthLog(), Failures()
    health_log.expect(1, Failed())
    health_log.log(trainer, failures, log=lambda *_, **__: None)
    assert shared == [{}]
    assert bool(failures.found) == isinstance(error, RuntimeError)


@pytest.fixture
def half_dead() -> TinyNet:
    """A network in which filter 2 is zero and stays zero."""
    net = TinyNet()
    with torch.no_grad():
        net.conv.weight[2] = 0
    net.conv.weight.register_hook(lambda g: g.index_fill(0, torch.tensor([2]), 0.0))
    return net


@pytest.mark.filterwarnings("ignore:kernelviz. conv. 1 of 8 filters is")
def test_the_closing_line_sums_up_the_verdicts(
    fit: Any, half_dead: TinyNet, closing_line: Any
) -> None:
    trainer = fit(KernelVizCallback(), model=half_dead)
    *_, drift = drift_in_files(trainer.log_dir).values()
    said = closing_line()
    assert "; conv: 8 filters, 1 near-zero" in said
    assert f", drift {drift:.2g}" in said


@pytest.mark.filterwarnings("ignore:kernelviz. conv. 1 of 8 filters is")
@pytest.mark.parametrize("health", [True, False])
def test_the_logged_picture_has_frames_and_a_legend(
    fit: Any, half_dead: TinyNet, health: bool
) -> None:
    trainer = fit(KernelVizCallback(health=health), model=half_dead)
    logged = torch.from_numpy(logged_images(trainer.log_dir)["kernels/conv"][8].copy())
    last = load_snapshot(list_snapshots(Path(trainer.log_dir) / "kernelviz")[8])
    drawn = kernel_picture(
        last.weights["conv"],
        layer="conv",
        when=f"step 8 · epoch {last.epoch}",
        health=last.health.get("conv"),
    )
    assert torch.equal(logged, drawn.pixels)
    marked = (logged == torch.tensor(VERDICT_COLOURS["near-zero"])).all(2)
    if not health:
        assert not marked.any()
        return
    layout, verdicts = drawn.layout, last.health["conv"].gravest()
    assert verdicts[2] == "near-zero"
    assert marked[: layout.top].any(), "the legend is missing"
    plain = kernel_grid(last.weights["conv"])
    for i, verdict in enumerate(verdicts):
        framed = marked[layout.box(i, margin=1)]
        ring = torch.cat([framed[0], framed[-1], framed[:, 0], framed[:, -1]])
        assert ring.all() == (verdict == "near-zero")
        assert torch.equal(logged[layout.box(i)], plain.tile(i))


def test_without_health_no_numbers_are_logged_or_written(fit: Any) -> None:
    trainer = fit(KernelVizCallback(health=False))
    events = EventAccumulator(trainer.log_dir)
    events.Reload()
    assert not [tag for tag in events.Tags()["scalars"] if tag.startswith("kernelviz")]
    for path in list_snapshots(Path(trainer.log_dir) / "kernelviz").values():
        assert not load_snapshot(path).health


def test_the_health_in_the_files_is_that_of_their_weights(fit: Any) -> None:
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
            energy=measure_probe(load_probe().image, (5, 5), channels=3),
        )
        health = now.health["conv"]
        assert health.flagged(*VERDICT_NAMES) == expected.flagged(*VERDICT_NAMES)
        assert health.absent == expected.absent
        assert vars(health.totals) == pytest.approx(vars(expected.totals), nan_ok=True)
        for name, values in vars(expected.filters).items():
            found = getattr(health.filters, name)
            torch.testing.assert_close(found, values, equal_nan=True, msg=name)


def test_a_verdict_gives_one_warning_when_it_begins(fit: Any, half_dead: TinyNet) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(KernelVizCallback(), model=half_dead)
    said = [str(w.message) for w in caught if "near-zero" in str(w.message)]
    assert len(said) == 1
    assert said[0].startswith("kernelviz: conv: 1 of 8 filters is near-zero since step 0: 2. ")


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_the_drift_after_a_resume_is_that_from_the_first_snapshot(fit: Any, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("before", [True, False])
def test_a_resumed_training_examines_in_the_background_and_repeats_no_warning(
    fit: Any, tmp_path: Path, half_dead: TinyNet, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    """If the snapshots of the first attempt have no health, they are examined after the resume."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = fit(KernelVizCallback(health=before), model=half_dead, logger=False)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    examine, threads = health_monitor.kernel_health, set()

    def watched(*given: Any, **options: Any) -> Any:
        threads.add(threading.current_thread().name)
        return examine(*given, **options)

    monkeypatch.setattr(health_monitor, "kernel_health", watched)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(
            KernelVizCallback(),
            model=half_dead,
            logger=False,
            max_epochs=4,
            ckpt_path=tmp_path / "last.ckpt",
        )
    assert not [w for w in caught if "kernelviz: conv: 1 of 8" in str(w.message)]
    assert threads == {"kernelviz-pictures"}


def test_two_processes_choose_checkpoints_by_the_same_numbers(tmp_path: Path) -> None:
    run("steered.py", str(tmp_path))
    expected = drift_in_files(str(tmp_path / "lightning_logs" / "version_0"))
    for rank in range(2):
        scores = json.loads((tmp_path / f"scores-{rank}.json").read_text())
        found = {int(name.rpartition("step=")[2]): score for name, score in scores.items()}
        assert found == pytest.approx({step: expected[step] for step in (2, 4)})

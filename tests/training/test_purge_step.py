"""A writer with a ``purge_step`` hides no picture of a snapshot that a resumed training keeps."""

from pathlib import Path
from typing import Any

import pytest
from conftest import DEFAULT_STEPS, LoggingNet, assert_seen
from lightning.pytorch.loggers import TensorBoardLogger
from tab_boards import in_process
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from kernelviz_callback import KernelVizCallback
from kernelviz_callback.training.loggers.tensorboard import TensorBoard


@pytest.mark.parametrize("purge_step", [None, 2, 4])
def test_a_resumed_training_shows_every_snapshot_once(
    fit: Any, tmp_path: Path, purge_step: int | None
) -> None:
    board = TensorBoardLogger(tmp_path, name="logs", version="")
    options = {"model": LoggingNet(), "log_every_n_steps": 1}
    trainer = fit(KernelVizCallback(), logger=board, max_epochs=1, **options)
    trainer.save_checkpoint(tmp_path / "epoch.ckpt")
    given = {} if purge_step is None else {"purge_step": purge_step}
    board = TensorBoardLogger(tmp_path, name="logs", version="", **given)
    trainer = fit(KernelVizCallback(), logger=board, ckpt_path=tmp_path / "epoch.ckpt", **options)
    assert_seen(trainer, DEFAULT_STEPS)
    events = EventAccumulator(board.log_dir, size_guidance={"scalars": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("kernelviz/conv/drift")] == DEFAULT_STEPS
    (run,) = in_process(f"--logdir={tmp_path}").timeline()["runs"]
    (layer,) = run["layers"]
    assert [snapshot["step"] for snapshot in layer["snapshots"]] == DEFAULT_STEPS


@pytest.mark.parametrize("purge_step", [None, 0, 7])
def test_the_purge_step_is_read_from_the_writer(tmp_path: Path, purge_step: int | None) -> None:
    with SummaryWriter(str(tmp_path), purge_step=purge_step) as writer:
        writer.add_scalar("loss", 1.0, 3)
        expected = float("inf") if purge_step is None else purge_step
        assert TensorBoard(writer).purge_step() == expected

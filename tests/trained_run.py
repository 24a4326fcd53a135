"""A run folder with snapshots and checkpoints, for the tests of commands."""

from collections.abc import Callable
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from kernelviz_callback import KernelVizCallback


def train_with_checkpoints(fit: Callable[..., Trainer], folder: Path) -> Path:
    """Train a tiny network with the callback, with a checkpoint of every step.

    Returns:
        The run folder.
    """
    checkpoints = ModelCheckpoint(
        folder / "run" / "version_0" / "checkpoints", every_n_train_steps=1, save_top_k=-1
    )
    trainer = fit(KernelVizCallback(), checkpoints, enable_checkpointing=True)
    return Path(trainer.log_dir)

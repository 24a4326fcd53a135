"""Train while the disk fails for a few steps. The tests run this module as a script.

    python tests/hostile_disk.py FAULT FOLDER [watched]

The fault begins after step 2 and ends after step 5. The script prints the warnings of the callback,
then a digest of the final weights.
"""

import hashlib
import resource
import sys
import warnings
from pathlib import Path
from typing import Any

from conftest import LoggingNet, wait_until_recorded
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger

from kernelviz_callback import KernelVizCallback


def limit_files(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def forbid(folder: Path, mode: int) -> None:
    for path in (folder, *(p for p in folder.rglob("*") if p.is_dir())):
        path.chmod(mode)


FAULTS: dict[str, tuple[Any, Any]] = {
    "full": (lambda _: limit_files(1000), lambda _: limit_files(resource.RLIM_INFINITY)),
    "full-for-events": (
        lambda folder: limit_files(next(folder.rglob("events.*")).stat().st_size + 20_000),
        lambda _: limit_files(resource.RLIM_INFINITY),
    ),
    "read-only": (lambda folder: forbid(folder, 0o500), lambda folder: forbid(folder, 0o700)),
}


class Fault(Callback):
    """Causes a fault after step 2 and ends it after step 5."""

    def __init__(self, name: str, folder: Path) -> None:
        self.begin, self.end = FAULTS[name]
        self.folder = folder

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        wait_until_recorded(trainer)  # so that earlier snapshots are not hit by the fault
        for logger in trainer.loggers:
            logger.experiment.flush()
        if trainer.global_step == 2:
            self.begin(self.folder)
        if trainer.global_step == 5:
            self.end(self.folder)


def main(fault: str, folder: Path, watched: bool) -> None:
    events = fault == "full-for-events"
    seed_everything(3, verbose=False)
    model = LoggingNet()
    ours = [KernelVizCallback(every_n_train_steps=1, scale="run")] if watched else []
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        log_every_n_steps=1,
        default_root_dir=folder,
        logger=TensorBoardLogger(folder, name="run", version="0") if events else False,
        callbacks=[*ours, Fault(fault, folder)],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(model)
    for warning in caught:
        if "kernelviz:" in str(warning.message):
            print("warning:", warning.message)
    weights = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
    print("weights:", hashlib.sha256(weights).hexdigest())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), "watched" in sys.argv[3:])

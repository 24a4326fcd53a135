"""Train in a process that is started after the callback was made. `test_processes.py` runs this.

    python tests/started.py FOLDER WAY

The way is a start method of ``multiprocessing``, or a strategy of Lightning.
"""

import multiprocessing
import sys
import warnings
from pathlib import Path
from typing import Any

from conftest import TinyNet
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from kernelviz_callback import KernelVizCallback


def train(callback: KernelVizCallback, folder: Path, **options: Any) -> None:
    warnings.simplefilter("ignore")
    Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=TensorBoardLogger(folder, name="", version=""),
        callbacks=[callback],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        **options,
    ).fit(TinyNet())


if __name__ == "__main__":
    folder, way = Path(sys.argv[1]), sys.argv[2]
    callback = KernelVizCallback()
    if way in multiprocessing.get_all_start_methods():
        process = multiprocessing.get_context(way).Process(target=train, args=(callback, folder))
        process.start()
        process.join()
        sys.exit(process.exitcode)
    train(callback, folder, strategy=way, devices=1)

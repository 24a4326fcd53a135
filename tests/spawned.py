"""Train on two spawned CPU processes; test_processes.py runs this script.

python tests/spawned.py FOLDER
"""

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from conftest import TinyNet
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from kernelviz_callback import KernelVizCallback


class Together(Callback):
    """Ends both processes together.

    If one of them ends while the other still communicates with it, it may abort.
    """

    def teardown(self, *_: Any, **__: Any) -> None:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    model = TinyNet()
    Trainer(
        accelerator="cpu",
        devices=2,
        strategy=DDPStrategy(process_group_backend="gloo", start_method="spawn"),
        max_epochs=2,
        logger=TensorBoardLogger(folder, name="run", version="0"),
        callbacks=[KernelVizCallback(), Together()],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    ).fit(model)
    torch.save(model.conv.weight.detach(), folder / "trained.pt")

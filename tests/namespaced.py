"""Train under one of the two names of Lightning; test_lightning_compat.py runs this script.

    python tests/namespaced.py NAME FOLDER OTHER

NAME is ``lightning.pytorch`` or ``pytorch_lightning``. The script trains twice: in a process that
can also import OTHER, the package with the other name, and in one that cannot. The first writes to
the folder ``together`` below FOLDER, the second to ``alone``: each has a file ``found.json``.
"""

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Absent:
    """An import hook that raises `ModuleNotFoundError` for the given packages."""

    def __init__(self, packages: list[str]) -> None:
        self.packages = packages

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.split(".")[0] in self.packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def train(name: str, log_dir: Path, absent: list[str]) -> None:
    sys.meta_path.insert(0, Absent(absent))
    pl = importlib.import_module(name)
    from kernelviz_callback import KernelVizCallback, list_snapshots

    class Net(pl.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 5)

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return self.conv(batch[0]).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def trainer(epochs: int) -> Any:
        return pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
            logger=[
                pl.loggers.CSVLogger(log_dir, name="csv", version=epochs),
                pl.loggers.TensorBoardLogger(log_dir, name="board", version=0),
            ],
            callbacks=[
                KernelVizCallback(probe="train_batch"),
                pl.callbacks.ModelCheckpoint(
                    log_dir, filename="last-{epoch}", monitor="kernelviz/conv/drift"
                ),
            ],
        )

    data = DataLoader(TensorDataset(torch.rand(8, 3, 16, 16)), batch_size=4)
    trainer(1).fit(Net(), data)
    (checkpoint,) = log_dir.glob("last-*.ckpt")
    second = trainer(2)
    second.fit(Net(), data, ckpt_path=checkpoint)
    callback = next(c for c in second.callbacks if isinstance(c, KernelVizCallback))
    found = {
        "steps": list(list_snapshots(log_dir / "board" / "version_0" / "kernelviz")),
        "is_callback": isinstance(callback, pl.Callback),
        "metrics": sorted(map(str, second.callback_metrics)),
        "loaded": sorted({"lightning.pytorch", "pytorch_lightning"} & sys.modules.keys()),
    }
    (log_dir / "found.json").write_text(json.dumps(found))


def main(name: str, folder: Path, other: str) -> None:
    importlib.import_module(name)  # once: that is what takes long
    for log_dir, absent in ((folder / "together", []), (folder / "alone", [other])):
        log_dir.mkdir()
        pid = os.fork()
        if pid == 0:
            train(name, log_dir, absent)
            return
        _, status = os.waitpid(pid, 0)
        assert status == 0, f"the training in {log_dir} ended with {status}"


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])

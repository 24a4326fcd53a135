"""Train on two processes whose checkpoints are chosen by a health number.

test_health_logging.py runs this script:

    python tests/steered.py FOLDER
"""

import json
import sys
import warnings
from pathlib import Path

from conftest import TinyNet
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from kernelviz_callback import KernelVizCallback


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    seed_everything(3, verbose=False)
    checkpoint = ModelCheckpoint(
        folder / "best", monitor="kernelviz/conv/drift", save_top_k=-1, every_n_train_steps=2
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=2,
        logger=TensorBoardLogger(folder, version=0),
        callbacks=[KernelVizCallback(every_n_train_steps=1), checkpoint],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(TinyNet())
    scores = {Path(path).stem: score.item() for path, score in checkpoint.best_k_models.items()}
    (folder / f"scores-{trainer.global_rank}.json").write_text(json.dumps(scores))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

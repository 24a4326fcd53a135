"""Run the demo's training with the options of the callback written out.

To watch it, run "tensorboard --logdir runs" and open the tab Kernels.
"""

import argparse

from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from kernelviz_callback import KernelVizCallback
from kernelviz_callback.commands.demo import PhotoCrops, PhotoNet


def main() -> None:
    """Train, or resume from a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=12, help="with those before a resume")
    parser.add_argument("--batches", type=int, default=100, help="batches in an epoch")
    # "rest.3" has 64 input channels: it is shown as principal planes and feature maps.
    parser.add_argument("--layers", nargs="+", default=["conv1"], metavar="NAME")
    parser.add_argument("--probe", help="a photo of your own, train_batch or val_batch")
    parser.add_argument(
        "--resume",
        metavar="CKPT",
        help="resume a training from this checkpoint; with more --epochs it is trained further",
    )
    parser.add_argument("--output", default="runs")
    options = parser.parse_args()

    seed_everything(7)
    kernels = KernelVizCallback(
        layers=options.layers,
        probe=options.probe,
        scale="run",  # one colour scale for the whole training, so growth and decay are visible
        every_n_epochs=2,
        early_steps=True,
    )
    trainer = Trainer(
        max_epochs=options.epochs,
        logger=TensorBoardLogger(options.output, name="train_photos"),
        callbacks=[kernels, ModelCheckpoint(every_n_epochs=2, save_top_k=-1)],
        log_every_n_steps=10,
    )
    data = PhotoCrops(batches_per_epoch=options.batches)
    trainer.fit(PhotoNet(), datamodule=data, ckpt_path=options.resume)


if __name__ == "__main__":
    main()

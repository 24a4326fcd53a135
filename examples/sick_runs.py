"""Train one healthy and three sick networks, to show what a bad first layer looks like.

    python examples/sick_runs.py [--epochs 8] [--output runs]

For each training, this saves the last kernel grid with its frames, and a chart of the filters'
health. It also saves the four grids in one picture, as in the README.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

from kernelviz_callback import KernelVizCallback, list_snapshots, load_snapshot
from kernelviz_callback.commands.demo import PhotoCrops, PhotoNet
from kernelviz_callback.drawing.layer_pictures import kernel_picture


def dead_initialization() -> PhotoNet:
    """Give half of the first layer's units such a low bias that their ReLU never opens.

    These units pass no gradient, and weight decay shrinks their filters.
    """
    net = PhotoNet()
    with torch.no_grad():
        net.rest[0].bias[32:] = -20
    return net


RUNS: dict[str, Callable[[], PhotoNet]] = {
    "healthy": PhotoNet,
    "learning-rate-too-high": lambda: PhotoNet(learning_rate=5.0),
    "no-weight-decay": lambda: PhotoNet(weight_decay=0.0),
    "dead-initialization": dead_initialization,
}


def side_by_side(pictures: list[Image.Image], columns: int = 2, gap: int = 8) -> Image.Image:
    """Arrange pictures row by row on a white background."""
    width, height = max(p.width for p in pictures) + gap, max(p.height for p in pictures) + gap
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * width - gap, rows * height - gap), "white")
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % columns * width, i // columns * height))
    return sheet


def main() -> None:
    """Run the four trainings, and draw their last snapshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batches", type=int, default=100, help="batches in an epoch")
    parser.add_argument("--output", type=Path, default=Path("runs"))
    options = parser.parse_args()
    grids = []
    for name, make_net in RUNS.items():
        seed_everything(7)
        logger = TensorBoardLogger(options.output, name="sick_runs", version=name)
        trainer = Trainer(
            max_epochs=options.epochs,
            logger=logger,
            callbacks=[KernelVizCallback()],
            log_every_n_steps=10,
            enable_model_summary=False,
        )
        trainer.fit(make_net(), datamodule=PhotoCrops(batches_per_epoch=options.batches))

        *_, last = list_snapshots(Path(logger.log_dir) / "kernelviz").values()
        snapshot = load_snapshot(last)
        health = snapshot.health["conv1"]
        picture = kernel_picture(
            snapshot.weights["conv1"],
            layer="conv1",
            when=f"step {snapshot.step} · {name}",
            health=health,
        )
        picture.save(options.output / f"{name}-kernels.png")
        grids.append(Image.fromarray(picture.pixels.numpy()))
        figure, _ = health.plot()
        figure.savefig(options.output / f"{name}-health.png", dpi=100)
        print(f"\n{name}\n{health}\n")
    side_by_side(grids).save(options.output / "sick-runs.png", optimize=True)


if __name__ == "__main__":
    main()

"""``kernelviz demo``: train a small network on photographs, with the callback.

The network learns to recognize from which photograph a small crop is. This task needs no labels
except the number of the photograph. Within a thousand steps, the noise in the first layer turns
into colour blobs, edges and gratings. `run` is the command, and `run_demo` trains without printing.
`PhotoNet` and `PhotoCrops` are also used by the examples and the configurations in ``configs/``.
"""

import shlex
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2.functional import to_pil_image
from typing_extensions import override

from kernelviz_callback.drawing.layer_pictures import kernel_picture, response_picture
from kernelviz_callback.probe.probe import Probe, load_probe
from kernelviz_callback.snapshots.format import load_snapshot
from kernelviz_callback.snapshots.names import list_snapshots
from kernelviz_callback.training.callback import KernelVizCallback

# Pictures in the wheel of scikit-image, so that nothing is downloaded.
PHOTOS = (
    "astronaut",
    "brick",
    "camera",
    "cell",
    "chelsea",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "hubble_deep_field",
    "immunohistochemistry",
    "moon",
    "page",
    "retina",
    "rocket",
    "text",
)


def run(output: Path, *, epochs: int, batches: int) -> int:
    """Run the command; return its exit status."""
    folder = run_demo(output, epochs=epochs, batches=batches)
    pictures = "\n".join(f"    {path}" for path in sorted(folder.glob("*.png")))
    run_name = shlex.quote(str(folder))
    print(
        f"""
The first and the last pictures:

{pictures}

A warning above about dominating or near-zero filters is expected: the training is healthy, but not
every one of its 64 filters is.

All snapshots are in TensorBoard, under Kernels; a film strip of the training is under Images:

    tensorboard --logdir {shlex.quote(str(folder.parent))}

To make a report in one file, an animation, and a comparison in numbers, run:

    kernelviz evolve {run_name} -o report.html -o evolution.gif
    kernelviz compare {run_name} -o compare.html

The exact weights of every snapshot are in {folder / "kernelviz"}"""
    )
    return 0


def run_demo(folder: str | Path = "runs", *, epochs: int = 12, batches: int = 100) -> Path:
    """Train `PhotoNet` with the callback, then save the first and the last pictures as files.

    Args:
        folder: Parent folder. The run folder is ``<folder>/demo/version_N``.
        epochs: Number of training epochs.
        batches: Number of batches of 128 crops in an epoch.

    Returns:
        The run folder.

    Raises:
        ModuleNotFoundError: If scikit-image is missing; it is in the extra ``demo``.
    """
    seed_everything(7, verbose=False)
    photos = load_photos()
    logger = TensorBoardLogger(folder, name="demo")
    trainer = Trainer(
        max_epochs=epochs,
        logger=logger,
        callbacks=[KernelVizCallback()],
        log_every_n_steps=10,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        # Lightning advises on data loader workers, and uses a deprecated part of torch itself.
        warnings.simplefilter("ignore", PossibleUserWarning)
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        trainer.fit(PhotoNet(), datamodule=PhotoCrops(batches_per_epoch=batches))
    run = Path(logger.log_dir)
    _save_pictures(run, Probe(load_probe(to_pil_image(photos[0])).image, PHOTOS[0]))
    return run


def load_photos() -> list[Tensor]:
    """Load the photographs, each of shape (3, H, W), float32, in [0, 1].

    Grey photographs get three equal channels.

    Raises:
        ModuleNotFoundError: If scikit-image is missing; it is in the extra ``demo``.
    """
    try:
        from skimage import data
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the photographs of the demo are in scikit-image, which is not installed; "
            'run: pip install "kernelviz-callback[demo]"'
        ) from error
    photos = (torch.from_numpy(getattr(data, name)()) for name in PHOTOS)
    return [
        (p[..., None].expand(-1, -1, 3) if p.ndim == 2 else p).permute(2, 0, 1).float() / 255
        for p in photos
    ]


class RandomCrops(Dataset[tuple[Tensor, int]]):
    """Random square crops, each labelled with the index of its photograph.

    Half of the crops are grey, so that colour alone does not identify a photograph.

    Args:
        photos: The photographs, see `load_photos`.
        count: Number of crops in an epoch.
        size: Side of a crop, in pixels.
    """

    def __init__(self, photos: list[Tensor], *, count: int, size: int) -> None:
        self.photos = photos
        self.count = count
        self.size = size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        label = index % len(self.photos)
        photo = self.photos[label]
        y, x, colour = torch.rand(3, dtype=torch.float32, device="cpu").tolist()
        top = int(y * (photo.shape[1] - self.size))
        left = int(x * (photo.shape[2] - self.size))
        crop = photo[:, top : top + self.size, left : left + self.size]
        return crop if colour < 0.5 else crop.mean(0, keepdim=True).expand(3, -1, -1), label


class PhotoCrops(LightningDataModule):
    """Training and validation crops of the photographs.

    Args:
        batch_size: Number of crops in a batch.
        batches_per_epoch: Number of batches in a training epoch.
        crop_size: Side of a crop, in pixels.
    """

    def __init__(
        self, batch_size: int = 128, batches_per_epoch: int = 100, crop_size: int = 40
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.batches_per_epoch = batches_per_epoch
        self.crop_size = crop_size

    @override
    def setup(self, stage: str) -> None:
        self.photos = load_photos()

    def _crops(self, batches: int) -> "DataLoader[tuple[Tensor, int]]":
        count = batches * self.batch_size
        crops = RandomCrops(self.photos, count=count, size=self.crop_size)
        return DataLoader(crops, batch_size=self.batch_size)

    @override
    def train_dataloader(self) -> "DataLoader[tuple[Tensor, int]]":
        return self._crops(self.batches_per_epoch)

    @override
    def val_dataloader(self) -> "DataLoader[tuple[Tensor, int]]":
        return self._crops(max(1, self.batches_per_epoch // 20))


class PhotoNet(LightningModule):
    """A small network whose first layer has 64 filters of 3x7x7 by default.

    Args:
        photos: Number of photographs to recognize.
        filters: Number of filters in the first convolution.
        learning_rate: Largest learning rate of the one-cycle schedule, for SGD with momentum.
        weight_decay: Weight decay. It removes the noise of the initialization.
    """

    def __init__(
        self,
        photos: int = len(PHOTOS),
        filters: int = 64,
        learning_rate: float = 0.1,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.conv1 = nn.Conv2d(3, filters, 7, stride=2, bias=False)
        self.rest = nn.Sequential(
            nn.BatchNorm2d(filters),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(filters, 64, 3),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, photos),
        )

    @override
    def forward(self, crops: Tensor) -> Tensor:
        return self.rest(self.conv1(crops - 0.5))  # type: ignore[no-any-return]

    @override
    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        crops, labels = batch
        loss = F.cross_entropy(self(crops), labels)
        self.log("loss", loss, prog_bar=True)
        return loss

    @override
    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        crops, labels = batch
        right = (self(crops).argmax(1) == labels).float().mean()
        self.log("accuracy", right, prog_bar=True)

    @override
    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = torch.optim.SGD(
            self.parameters(),
            lr=self.learning_rate,
            momentum=0.9,
            nesterov=True,
            weight_decay=self.weight_decay,
        )
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # The saved schedule ends after the epochs that were planned then, and raises an error after
        # its end. Without these entries, the schedule of the resumed training keeps its own.
        for state in checkpoint.get("lr_schedulers", ()):
            state.pop("total_steps", None)
            state.pop("_schedule_phases", None)


def _save_pictures(run: Path, photo: Probe) -> None:
    """Draw the first and the last snapshot to files: kernels, and responses to chart and photo."""
    snapshots = list_snapshots(run / "kernelviz")
    for step in {min(snapshots), max(snapshots)}:
        snapshot = load_snapshot(snapshots[step])
        for layer, weights in snapshot.weights.items():
            when = f"step {step} · epoch {snapshot.epoch}"
            name = f"{layer}-step-{step:05d}.png"
            kernels = kernel_picture(
                weights, layer=layer, when=when, health=snapshot.health.get(layer)
            )
            kernels.save(run / f"kernels-{name}")
            for probe in (load_probe(), photo):
                picture = response_picture(
                    weights, snapshot.geometry[layer], probe, layer=layer, when=when
                )
                picture.save(run / f"responses-{probe.name}-{name}")

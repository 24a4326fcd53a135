"""Watch a network for sound: its first layer changes from noise to band-pass filters.

python examples/sound.py && tensorboard --logdir runs
"""

import argparse

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from kernelviz_callback import KernelVizCallback

RATE = 8000  # samples a second
LENGTH = 1024  # samples of a note
NOTES = 220 * 2 ** (torch.arange(36) / 12)  # three octaves from A3, in hertz


def notes(count: int, seed: int) -> TensorDataset:
    """Generate notes of plucked strings, with noise: a tone and its overtones, of 36 pitches."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(len(NOTES), (count,), generator=generator)
    time = torch.arange(LENGTH) / RATE
    sounds = torch.zeros(count, LENGTH)
    for overtone in range(1, 4):
        phases = 2 * torch.pi * torch.rand(count, 1, generator=generator)
        pitch = overtone * NOTES[labels][:, None]
        sounds += torch.sin(2 * torch.pi * pitch * time + phases) / overtone * (pitch < RATE / 2)
    sounds *= torch.exp(-time / 0.05)
    noise = 0.2 * torch.randn(count, LENGTH, generator=generator)
    return TensorDataset((sounds + noise)[:, None], labels)


class Pitch(pl.LightningModule):
    """A network that recognizes the pitch of a note."""

    def __init__(self) -> None:
        super().__init__()
        self.bank = nn.Conv1d(1, 32, 63, bias=False)
        self.rest = nn.Sequential(
            nn.BatchNorm1d(32),
            nn.ReLU(),
            nn.AvgPool1d(16),
            nn.Conv1d(32, 64, 5),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(64, len(NOTES)),
        )

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        """Return the loss of a batch of notes."""
        sounds, labels = batch
        found = self.rest(self.bank(sounds))
        self.log("accuracy", (found.argmax(1) == labels).float().mean(), prog_bar=True)
        return F.cross_entropy(found, labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Use AdamW: its weight decay removes the noise of the initialization."""
        return torch.optim.AdamW(self.parameters(), lr=3e-3, weight_decay=0.3)


def main(epochs: int) -> None:
    """Train, and print where the pictures are."""
    pl.seed_everything(0)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=pl.loggers.TensorBoardLogger("runs", name="sound"),
        callbacks=[KernelVizCallback()],
        enable_model_summary=False,
    )
    trainer.fit(Pitch(), DataLoader(notes(4096, seed=0), batch_size=64, shuffle=True))
    print(f"The bank is in {trainer.log_dir}: kernels/bank, responses/bank, film/bank.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    main(parser.parse_args().epochs)

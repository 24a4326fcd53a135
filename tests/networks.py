"""Networks that a test trains, with parts that may be replaced."""

from pathlib import Path
from typing import Any

import torch
from conftest import TinyNet
from torch import Tensor, nn

from kernelviz_callback import (
    list_snapshots,
    load_snapshot,
)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 5)
        self.deep = nn.Conv2d(8, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.deep(self.stem(x).relu()).relu()


class Lit(TinyNet):
    """Trains ``net`` and a head. Subclasses have more parts."""

    def __init__(self) -> None:
        super().__init__()
        del self.conv, self.rest
        self.add_parts()
        self.head = nn.Linear(8, 4)

    def add_parts(self) -> None:
        self.net = Encoder()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x).mean((2, 3)))

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.SGD(trained, lr=0.1)


class UNet(nn.Module):
    """The decoder is defined before the encoder, and the output before both."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Conv2d(4, 8, 1)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.decoder = nn.Conv2d(4, 4, 3, padding=1)
        self.down = nn.Conv2d(4, 8, 2, stride=2)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.stem(x).relu()
        return self.out(self.decoder(self.up(self.down(skip).relu()) + skip))


class Reversed(Lit):
    def add_parts(self) -> None:
        self.net = UNet()


class Rectified(nn.Conv2d):
    """Is not linear, so its weights cannot be measured."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


def last_snapshot(trainer: Any) -> Any:
    return load_snapshot(list(list_snapshots(Path(trainer.log_dir) / "kernelviz").values())[-1])

"""A small network and a training loop without a Trainer, for the tests of `KernelWatcher`."""

import torch
from torch import nn

from kernelviz_callback import KernelWatcher


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 8, 5), nn.BatchNorm2d(8), nn.Dropout(0.2), nn.Flatten())


def train(model: nn.Module, watcher: KernelWatcher | None, steps: int = 4) -> None:
    torch.manual_seed(2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(steps + 1):
        if watcher is not None:
            watcher.snapshot(step, epoch=step // 2)
        loss = model(torch.rand(4, 3, 9, 9)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

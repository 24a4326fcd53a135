"""Watch a training loop without a Trainer.

python examples/plain_loop.py && tensorboard --logdir runs
"""

import torch
from torch import nn
from torch.nn import functional as F

from kernelviz_callback import KernelWatcher


def main(log_dir: str = "runs/plain", steps: int = 200) -> None:
    """Train a small network to distinguish horizontal from vertical stripes."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 7), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    with KernelWatcher(model, log_dir) as watcher:
        for step in range(steps + 1):
            if step % 20 == 0:
                watcher.snapshot(step)
            labels = torch.randint(2, (32,))
            waves = torch.sin(torch.arange(24) * torch.rand(32, 1) + 6 * torch.rand(32, 1))
            stripes = waves[:, None, :, None].expand(-1, 1, 24, 24)
            images = torch.where(labels[:, None, None, None] == 1, stripes, stripes.mT)
            loss = F.cross_entropy(model(images + 0.3 * torch.randn_like(images)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


if __name__ == "__main__":
    main()

"""Write distributed checkpoints with two CPU processes; run as a script by its tests.

    python tests/sharded_checkpoint.py FOLDER

Writes ``dcp`` (a dict of dicts, fully sharded), ``lightning.ckpt`` (by a Trainer) and the whole
weights of both, ``dcp.pt`` and ``lightning.pt``.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from two_processes import Sharded


def whole(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {n: x.full_tensor() if hasattr(x, "full_tensor") else x for n, x in state.items()}


def write(folder: Path) -> None:
    torch.manual_seed(1)
    # 7 filters on two processes: shards of different sizes.
    net = nn.Sequential(nn.Conv2d(3, 7, 5), nn.Conv2d(7, 4, 3), nn.BatchNorm2d(4))
    fully_shard(net, mesh=init_device_mesh("cpu", (2,)))
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.rand(1, 3, 9, 9)).sum().backward()
    optimizer.step()
    state = {"model": net.state_dict(), "step": 12, "optim": optimizer.state_dict()}
    dcp.save(state, checkpoint_id=folder / "dcp")
    full = whole(net.state_dict())
    if dist.get_rank() == 0:
        torch.save(full, folder / "dcp.pt")


class Recorded(Sharded):
    """The tiny network, which writes its whole weights at the end."""

    folder: Path

    def on_train_end(self) -> None:
        full = whole(self.state_dict())
        if self.global_rank == 0:
            torch.save(full, self.folder / "lightning.pt")


def train(folder: Path) -> None:
    seed_everything(3, verbose=False)
    model = Recorded()
    model.folder = folder
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=ModelParallelStrategy(
            data_parallel_size=2, tensor_parallel_size=1, save_distributed_checkpoint=True
        ),
        max_epochs=1,
        logger=False,
        callbacks=[ModelCheckpoint(folder, filename="lightning")],
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(model)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    train(Path(sys.argv[1]))
    write(Path(sys.argv[1]))  # the two processes are still there

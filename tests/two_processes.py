"""Train on two CPU processes, without and then with the callback; run by test_processes.py.

    python tests/two_processes.py FOLDER SCENARIO...

Each process writes ``<FOLDER>/<SCENARIO>/<watched>-<rank>.pt``: the results of the training, and
the whole weights of the convolution at every step, gathered without the code of the package. The
file ``<FOLDER>/<SCENARIO>/output`` has everything that was printed during the scenario.
"""

import os
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from conftest import TinyNet, Witness
from identity import fingerprint
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import nn

from kernelviz_callback import KernelVizCallback
from kernelviz_callback.training.renderer import Renderer


class Sharded(TinyNet):
    """A network whose convolution and other layers are sharded over the processes."""

    def configure_model(self) -> None:
        from torch.distributed.fsdp import fully_shard

        if not hasattr(self.conv, "unshard"):
            mesh = self.device_mesh["data_parallel"]
            fully_shard(self.conv, mesh=mesh)
            fully_shard(self.rest, mesh=mesh)
            fully_shard(self, mesh=mesh)


class HalfPrecision(Sharded):
    """Computes in bfloat16 and keeps float32: the weights gathered for a batch are rounded."""

    def __init__(self, conv: nn.Module | None = None) -> None:
        super().__init__(conv)
        self.rest[0] = nn.Identity()  # BatchNorm fails with mixed precisions

    def configure_model(self) -> None:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
        if not hasattr(self, "unshard"):
            fully_shard(self, mesh=self.device_mesh["data_parallel"], mp_policy=policy)


class Deep(TinyNet):
    """A network with two convolutions, whose ``forward`` communicates with the other process."""

    def __init__(self, conv: nn.Module | None = None) -> None:
        super().__init__(conv)
        self.rest = nn.Sequential(nn.Conv2d(8, 8, 3), *self.rest)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        total = x.detach().mean()
        torch.distributed.all_reduce(total)
        return self.rest(x - total)


class DeepSharded(Sharded):
    def __init__(self, conv: nn.Module | None = None) -> None:
        super().__init__(conv)
        self.rest = nn.Sequential(nn.Conv2d(8, 8, 3), *self.rest)


DEEPER = {"layers": ["conv", "rest.0"], "probe_size": 48}

SCENARIOS: dict[str, tuple[type[TinyNet], dict[str, Any]]] = {
    "ddp": (TinyNet, {}),
    "ddp-train-batch": (TinyNet, {"probe": "train_batch"}),
    "ddp-deeper": (Deep, DEEPER),
    "fsdp2-deeper": (DeepSharded, DEEPER),
    "fsdp2": (Sharded, {}),
    "fsdp2-half": (HalfPrecision, {"early_steps": False, "every_n_epochs": 2}),
}


class WholeWitness(Witness):
    def _look(self, trainer: Trainer, module: LightningModule) -> None:
        with torch.no_grad():
            # The shards, not the weights that were gathered for the last batch.
            weight = module.conv.state_dict()["weight"]
            whole = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
            self.weights[trainer.global_step] = whole.detach().clone()


class HookTimes(Callback):
    """Measures how long the hooks of the callback take, and notes its threads."""

    def __init__(self, watched: KernelVizCallback) -> None:
        self.seconds = 0.0
        self.threads: set[str] = set()
        for name in ("on_train_batch_end", "on_train_epoch_end"):
            setattr(watched, name, self._timed(getattr(watched, name)))

    def _timed(self, hook: Any) -> Any:
        def timed(*args: Any) -> None:
            start = time.perf_counter()
            hook(*args)
            self.seconds += time.perf_counter() - start
            names = (thread.name for thread in threading.enumerate())
            self.threads |= {name for name in names if name.startswith("kernelviz")}

        return timed


def slow_down_drawing() -> None:
    draw = Renderer.draw

    def slowly(*args: Any) -> Any:
        time.sleep(0.2)
        return draw(*args)

    Renderer.draw = slowly  # type: ignore[method-assign]


def train(scenario: str, folder: Path, *, watched: bool) -> None:
    kind, options = SCENARIOS[scenario]
    ours = KernelVizCallback(**options)
    hooks = HookTimes(ours)
    sharded = issubclass(kind, Sharded)
    witness = WholeWitness()
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
        if sharded
        else DDPStrategy(process_group_backend="gloo"),
        max_epochs=3,
        logger=TensorBoardLogger(folder / f"logs-{watched}", name="run", version="0"),
        callbacks=[ours, witness] if watched else [witness],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    seed_everything(3, verbose=False)
    torch.manual_seed(11)
    model = kind()
    trainer.fit(model)
    record = {name: x for name, x in fingerprint(model).items() if name != "hooks"}
    record["state"] = {
        name: x.full_tensor() if hasattr(x, "full_tensor") else x
        for name, x in record["state"].items()
    }
    record["witness"] = witness.weights
    record["hook_times"] = {"seconds": hooks.seconds, "threads": hooks.threads}
    torch.save(record, folder / f"{watched}-{trainer.global_rank}.pt")


def print_to(path: Path) -> None:
    """Append to a file everything that this process prints from now on."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for file in (sys.stdout, sys.stderr):
        file.flush()
        os.dup2(descriptor, file.fileno())
    os.close(descriptor)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    slow_down_drawing()
    for scenario in sys.argv[2:]:
        folder = Path(sys.argv[1], scenario)
        folder.mkdir(exist_ok=True)  # both processes do this
        print_to(folder / "output")
        for watched in (False, True):
            train(scenario, folder, watched=watched)
    # A process that ends before the others may be stopped while its threads still answer them.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()

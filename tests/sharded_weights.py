"""Gather sharded weights on two CPU processes; test_processes.py runs this script.

    python tests/sharded_weights.py STORE WRAPPER ...

STORE is the path of a file that does not exist yet. A wrapper is the name of a function below. The
script prints one line for each wrapper: its name, whether it shards the layer, whether the gathered
weights are bit-identical and the shards unchanged, and the size of each gathered tensor.
"""

import os
import sys
from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import remove_parametrizations

from kernelviz_callback.model.sharding import gather_kernel, is_sharded
from kernelviz_callback.model.weights import effective_weight


class Standardized(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)


def network() -> nn.Sequential:
    torch.manual_seed(1)
    second = nn.Conv2d(8, 64, 5)
    return nn.Sequential(nn.Conv2d(3, 8, 5), second, nn.Flatten(), nn.LazyLinear(2))


def fsdp2(net: nn.Sequential) -> nn.Module:
    mesh = init_device_mesh("cpu", (2,))
    for layer in net[:2]:
        fully_shard(layer, mesh=mesh)
    return fully_shard(net, mesh=mesh)


def normed_fsdp2(net: nn.Sequential) -> nn.Module:
    weight_norm(net[0])
    return fsdp2(net)


def own_code_fsdp2(net: nn.Sequential) -> nn.Module:
    return fsdp2(net)


def fsdp1(net: nn.Sequential) -> nn.Module:
    cpu = torch.device("cpu")
    for i in (0, 1):
        net[i] = FullyShardedDataParallel(net[i], device_id=cpu, use_orig_params=True)
    return FullyShardedDataParallel(net, device_id=cpu, use_orig_params=True)


def plain(net: nn.Sequential) -> nn.Module:
    return net


def gather(wrap: Callable[[nn.Sequential], nn.Module]) -> list[object]:
    net = network()
    net(torch.zeros(1, 3, 16, 16))
    if wrap is normed_fsdp2:
        weight_norm(net[0])
    if wrap is own_code_fsdp2:
        net[0].__class__ = Standardized
    expected = effective_weight(net[0])
    if wrap is normed_fsdp2:
        remove_parametrizations(net[0], "weight")
    model = wrap(net)
    conv = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    before = [p.shape for p in conv.parameters()]
    gathered: list[int] = []
    whole_of = DTensor.full_tensor
    DTensor.full_tensor = lambda self: gathered.append(self.numel()) or whole_of(self)
    sharded = is_sharded(conv, model)
    weight = gather_kernel(conv, model).weight if sharded else effective_weight(conv)
    DTensor.full_tensor = whole_of
    # The model must still be able to train after its weights were gathered.
    model(torch.zeros(1, 3, 16, 16)).sum().backward()
    same = torch.equal(weight, expected) and before == [p.shape for p in conv.parameters()]
    return [sharded, same, *gathered]


def process(rank: int, store: str, names: list[str]) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    for name in names:
        found = gather(globals()[name])
        if rank == 0:
            print(name, *found, flush=True)
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    arguments = (sys.argv[1], sys.argv[2:])
    mp.start_processes(process, args=arguments, nprocs=2, start_method="fork")

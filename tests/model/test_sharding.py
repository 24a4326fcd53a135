"""Which models need all processes, and gathered weights that are wrong; test_processes.py gathers.

The process group has one process. The calls are the same as in a group of several.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

from kernelviz_callback.model.sharding import gather_kernel, is_sharded, needs_all_processes


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU(), nn.Conv2d(8, 4, 3))


def test_a_plain_model_runs_alone(group: None) -> None:
    net = network()
    assert not is_sharded(net[0], net)
    assert not needs_all_processes(net, net)


def test_a_model_with_sharded_parameters_needs_all_processes(group: None) -> None:
    net = network()
    fully_shard(net[2], mesh=init_device_mesh("cpu", (1,)))
    assert needs_all_processes(net, net)
    assert is_sharded(net[2], net)
    assert not is_sharded(net[0], net)


def test_a_model_with_a_wrapper_inside_needs_all_processes(group: None) -> None:
    net = network()
    net[2] = nn.parallel.DistributedDataParallel(net[2])
    assert needs_all_processes(net, net)
    assert not is_sharded(net[0], net)


@pytest.mark.filterwarnings("ignore:.*FSDP", "ignore:.*NO_SHARD", "ignore::FutureWarning")
def test_a_model_below_a_wrapper_needs_all_processes(group: None) -> None:
    net = network()
    expected = net[0].weight.detach().clone()
    trained = FullyShardedDataParallel(net, device_id=torch.device("cpu"), use_orig_params=True)
    assert needs_all_processes(net, trained)
    assert is_sharded(net[0], trained)
    assert torch.equal(gather_kernel(net[0], trained).weight, expected)


def test_weights_that_are_not_whole_are_refused() -> None:
    conv = nn.Conv2d(3, 8, 5)
    conv.weight.data = torch.empty(0)
    with pytest.raises(RuntimeError, match=r"of shape \(0,\), expected \(8, 3, 5, 5\)"):
        gather_kernel(conv, conv)


def test_stored_weights_are_not_called_those_that_the_layer_multiplies_with(group: None) -> None:
    class Scaled(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    conv = Scaled(3, 8, 5)
    expected = conv.weight.detach().clone()
    fully_shard(conv, mesh=init_device_mesh("cpu", (1,)))
    kernel = gather_kernel(conv, conv)
    assert torch.equal(kernel.weight, expected)
    assert kernel.unknown == "its parameters are spread over processes"

"""Gather the whole weights of a layer that a training strategy shards over several processes.

Only one layer is gathered at a time. Under FSDP1 the whole unit that wraps the layer is gathered,
because the parameters of a unit are one flat tensor.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from kernelviz_callback.model.convolutions import weight_shape
from kernelviz_callback.model.weights import Kernel, read_kernel


def is_sharded(layer: nn.Module, model: nn.Module) -> bool:
    """Return whether this process holds only a part of the weights of a layer.

    The result is the same on every process. Call it before the first batch, because FSDP2 gathers
    some layers during a batch.

    Args:
        layer: The layer.
        model: The model with the strategy's wrappers (``trainer.strategy.model``).
    """
    is_dtensor = any(hasattr(p, "full_tensor") for p in layer.parameters())
    is_zero3 = any(hasattr(p, "ds_id") for p in layer.parameters())
    return is_dtensor or is_zero3 or bool(_fsdp1_units(layer, model))


def needs_all_processes(model: nn.Module, trained: nn.Module) -> bool:
    """Return whether a forward pass of this model waits for the other processes.

    It does if a parameter is sharded, or if a wrapper inside the model communicates with the other
    processes. Call it before the first batch, see `is_sharded`.

    Args:
        model: The model to run.
        trained: The model with the strategy's wrappers (``trainer.strategy.model``).
    """
    if any(hasattr(p, "full_tensor") or hasattr(p, "ds_id") for p in model.parameters()):
        return True
    if any(isinstance(m, nn.parallel.DistributedDataParallel) for m in model.modules()):
        return True
    return any(isinstance(m, _fsdp1()) for m in trained.modules())


def gather_kernel(layer: nn.Module, model: nn.Module) -> Kernel:
    """Copy the whole weights of a sharded layer. Every process must call it.

    Args:
        layer: The layer.
        model: The model with the strategy's wrappers (``trainer.strategy.model``).

    Returns:
        What `read_kernel` returns, on every process.

    Raises:
        RuntimeError: If the gathered weights do not have the shape of the layer.
    """
    # FSDP2 may hold a gathered copy in the precision of the computation. `state_dict` makes it
    # return to the exact shards.
    layer.state_dict(keep_vars=True)
    with _gathered(layer, model), _whole_parameters(layer):
        shape, kernel = weight_shape(layer), read_kernel(layer)
    found = tuple(kernel.weight.shape)
    if found != shape:
        raise RuntimeError(f"gathered weights of shape {found}, expected {shape}")
    return kernel


@contextmanager
def _whole_parameters(layer: nn.Module) -> Iterator[None]:
    """Replace the parameters of a layer that FSDP2 or tensor parallelism shards by whole copies."""
    sharded: list[tuple[dict[str, Any], str, Any]] = [
        (module._parameters, name, parameter)
        for module in layer.modules()
        for name, parameter in module._parameters.items()
        if hasattr(parameter, "full_tensor")
    ]
    try:
        for parameters, name, parameter in sharded:
            # Under CPU offload the shards must first move to a device that can communicate.
            shard = parameter.detach().to(parameter.device_mesh.device_type)
            parameters[name] = nn.Parameter(shard.full_tensor(), requires_grad=False)
        yield
    finally:
        for parameters, name, parameter in sharded:
            parameters[name] = parameter


def _gathered(layer: nn.Module, model: nn.Module) -> AbstractContextManager[Any]:
    units = _fsdp1_units(layer, model)
    if units:
        from torch.distributed.fsdp import FullyShardedDataParallel

        # Before the first forward pass FSDP1 has no root. It makes the unit that is gathered first
        # the root, so the outermost unit is made the root here.
        units[0].check_is_root()
        return FullyShardedDataParallel.summon_full_params(
            units[-1], recurse=False, writeback=False
        )
    partitioned = [p for p in layer.parameters() if hasattr(p, "ds_id")]
    if partitioned:
        import deepspeed

        gathered: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(partitioned)
        return gathered
    return nullcontext()


def _fsdp1_units(layer: nn.Module, model: nn.Module) -> list[Any]:
    """Return the FSDP1 wrappers around a layer, the outermost first."""
    units = (m for m in model.modules() if isinstance(m, _fsdp1()))
    return [unit for unit in units if any(m is layer for m in unit.modules())]


def _fsdp1() -> tuple[type[nn.Module], ...]:
    """Return the class of the FSDP1 wrappers, or nothing before the process group exists."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return ()
    from torch.distributed.fsdp import FullyShardedDataParallel

    return (FullyShardedDataParallel,)

"""Gather the whole weights of a layer that a training strategy shards over several processes.

Only one layer is gathered at a time. Under FSDP1 the whole unit that wraps the layer is gathered,
because the parameters of a unit are one flat tensor.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from kernelviz_callback.model.convolutions import weight_shape
from kernelviz_callback.model.layer_kinds import Convolution
from kernelviz_callback.model.weights import effective_weight


def is_sharded(conv: Convolution, model: nn.Module) -> bool:
    """Return whether this process holds only a part of the weights of a layer.

    The result is the same on every process. Call it before the first batch, because FSDP2 gathers
    some layers during a batch.

    Args:
        conv: The layer.
        model: The model with the strategy's wrappers (``trainer.strategy.model``).
    """
    is_dtensor = any(hasattr(p, "full_tensor") for p in conv.parameters())
    is_zero3 = any(hasattr(p, "ds_id") for p in conv.parameters())
    return is_dtensor or is_zero3 or bool(_fsdp1_units(conv, model))


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


def gather_weight(conv: Convolution, model: nn.Module) -> Tensor:
    """Copy the whole effective weights of a sharded layer. Every process must call it.

    Args:
        conv: The layer.
        model: The model with the strategy's wrappers (``trainer.strategy.model``).

    Returns:
        The weights as `effective_weight` returns them, on every process.

    Raises:
        RuntimeError: If the gathered weights do not have the shape of the layer.
    """
    # FSDP2 may hold a gathered copy in the precision of the computation. `state_dict` makes it
    # return to the exact shards.
    conv.state_dict(keep_vars=True)
    with _gathered(conv, model):
        weight: Any = effective_weight(conv)
        if hasattr(weight, "full_tensor"):
            # Under CPU offload the shards must first move to a device that can communicate.
            weight = weight.to(weight.device_mesh.device_type).full_tensor()
    whole: Tensor = weight
    if tuple(whole.shape) != weight_shape(conv):
        raise RuntimeError(
            f"gathered weights of shape {tuple(whole.shape)}, expected {weight_shape(conv)}"
        )
    return whole


def _gathered(conv: Convolution, model: nn.Module) -> AbstractContextManager[Any]:
    units = _fsdp1_units(conv, model)
    if units:
        from torch.distributed.fsdp import FullyShardedDataParallel

        # Before the first forward pass FSDP1 has no root. It makes the unit that is gathered first
        # the root, so the outermost unit is made the root here.
        units[0].check_is_root()
        return FullyShardedDataParallel.summon_full_params(
            units[-1], recurse=False, writeback=False
        )
    partitioned = [p for p in conv.parameters() if hasattr(p, "ds_id")]
    if partitioned:
        import deepspeed

        gathered: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(partitioned)
        return gathered
    return nullcontext()


def _fsdp1_units(conv: Convolution, model: nn.Module) -> list[Any]:
    """Return the FSDP1 wrappers around a layer, the outermost first."""
    units = (m for m in model.modules() if isinstance(m, _fsdp1()))
    return [unit for unit in units if any(m is conv for m in unit.modules())]


def _fsdp1() -> tuple[type[nn.Module], ...]:
    """Return the class of the FSDP1 wrappers, or nothing before the process group exists."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return ()
    from torch.distributed.fsdp import FullyShardedDataParallel

    return (FullyShardedDataParallel,)

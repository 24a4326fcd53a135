"""Whole weights of a layer, however a strategy has spread them over the processes.

Only the layer asked for is gathered. Under FSDP1 that is the unit that the layer was wrapped in:
its parameters are one flat tensor.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from kernelviz_callback.model.convolutions import Convolution, weight_shape
from kernelviz_callback.model.weights import effective_weight


def is_sharded(conv: Convolution, model: nn.Module) -> bool:
    """Tell whether this process holds only a part of the weights of a layer.

    The same on every process. Ask before the first batch: FSDP2 gathers some layers during one.

    Args:
        conv: The layer.
        model: What the strategy trains, its wrappers included (``trainer.strategy.model``).
    """
    is_dtensor = any(hasattr(p, "full_tensor") for p in conv.parameters())
    is_zero3 = any(hasattr(p, "ds_id") for p in conv.parameters())
    return is_dtensor or is_zero3 or bool(_fsdp1_units(conv, model))


def needs_others(model: nn.Module, trained: nn.Module) -> bool:
    """Tell whether a forward pass of this model waits for the other processes.

    Whatever layer it begins with: some parameter is spread over them, or a wrapper inside asks
    them. Ask before the first batch, see `is_sharded`.

    Args:
        model: Which is run.
        trained: What the strategy trains, its wrappers included.
    """
    if any(hasattr(p, "full_tensor") or hasattr(p, "ds_id") for p in model.parameters()):
        return True
    if any(isinstance(m, nn.parallel.DistributedDataParallel) for m in model.modules()):
        return True
    return any(isinstance(m, _fsdp1()) for m in trained.modules())


def gather_weight(conv: Convolution, model: nn.Module) -> Tensor:
    """Copy the effective weights of a sharded layer, whole. Every process must call it.

    Returns:
        As `effective_weight`, on every process.

    Raises:
        RuntimeError: If what came together has not the shape of the layer.
    """
    # FSDP2 may hold a gathered copy in the precision of the computation; before it gives a state
    # dict away it goes back to the exact shards.
    conv.state_dict(keep_vars=True)
    with _gathered(conv, model):
        weight: Any = effective_weight(conv)
        if hasattr(weight, "full_tensor"):
            # Under CPU offload the shards are not where the processes can exchange them.
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

        # Before the first forward none knows that it is the root; the one asked first would be.
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
    """The FSDP1 wrappers around a layer, from the outside in."""
    units = (m for m in model.modules() if isinstance(m, _fsdp1()))
    return [unit for unit in units if any(m is conv for m in unit.modules())]


def _fsdp1() -> tuple[type[nn.Module], ...]:
    """The class of the wrappers, which cannot be there before the processes know each other."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return ()
    from torch.distributed.fsdp import FullyShardedDataParallel

    return (FullyShardedDataParallel,)

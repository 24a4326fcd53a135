"""Copy a tensor to the memory of the CPU, the host of the GPU."""

import torch
from torch import Tensor


def to_host(values: Tensor) -> Tensor:
    """Return a tensor on the CPU. A CUDA tensor is copied once, into pinned memory."""
    if not values.is_cuda:
        return values.cpu()
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True, device="cpu")
    host.copy_(values, non_blocking=True)
    torch.cuda.current_stream(values.device).synchronize()
    return host

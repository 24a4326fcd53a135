"""A second CUDA stream on the device of the training.

The training's stream copies the weights. All other work on the copies runs on the side stream. On
a device without CUDA streams the same code runs and does nothing.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor

Mark: TypeAlias = torch.cuda.Event | None  # a point in the work of the training's stream


class SideStream:
    """A CUDA stream that runs in parallel to the stream of the training.

    Args:
        device: The device of the tensors. On a device that is not CUDA, all methods do nothing.
    """

    def __init__(self, device: torch.device) -> None:
        is_cuda = device.type == "cuda"
        self._device = device
        self._stream = torch.cuda.Stream(device) if is_cuda else None  # type: ignore[no-untyped-call]

    def mark(self) -> Mark:
        """Record an event on the training's stream, without waiting for the device."""
        if self._stream is None:
            return None
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._stream.device))
        return event

    @contextmanager
    def after(self, mark: Mark, used: Iterable[Tensor]) -> Iterator[None]:
        """Run the body's work on this stream, after ``mark``.

        Args:
            mark: Result of `mark`, which was called after ``used`` were written.
            used: Tensors of the training's stream that the body reads. Their memory is not reused
                before the body's work is done.
        """
        if self._stream is None or mark is None:
            yield
            return
        # A new thread uses device 0. `torch.cuda.stream` would switch back to device 0 at its end.
        torch.cuda.set_device(self._device)
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(mark)
            for tensor in used:
                tensor.record_stream(self._stream)
            yield

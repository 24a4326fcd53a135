"""A second CUDA stream on the device of the training.

The weights are copied on the stream of the training. All other work on the copies runs on the side
stream. On a device without CUDA there is no side stream, and the same code runs without one.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor

from kernelviz_callback.training.cuda_capture import exempt_this_thread

# A point in the work of the training's stream. None if the device is not CUDA.
Mark: TypeAlias = torch.cuda.Event | None


class SideStream:
    """A CUDA stream that runs in parallel to the stream of the training.

    Args:
        device: The device of the tensors. If it is not a CUDA device, `mark` returns None and
            `after` only runs its body.
    """

    def __init__(self, device: torch.device) -> None:
        is_cuda = device.type == "cuda"
        self._device = device
        self._stream = torch.cuda.Stream(device) if is_cuda else None  # type: ignore[no-untyped-call]

    def mark(self) -> Mark:
        """Record an event on the current stream of the calling thread, that of the training.

        The method does not wait for the device.
        """
        if self._stream is None:
            return None
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._stream.device))
        return event

    @contextmanager
    def after(self, mark: Mark, used: Iterable[Tensor]) -> Iterator[None]:
        """Run the device work of the body on the side stream, after the work before ``mark``.

        Call this in a thread of the recorder: the training may capture a CUDA graph meanwhile.

        Args:
            mark: Result of `mark`. The method `mark` must be called after ``used`` are written.
            used: Tensors of the training's stream that the body reads. Their memory is not reused
                before the work of the body is done.
        """
        if self._stream is None or mark is None:
            yield
            return
        exempt_this_thread()
        # A new thread uses device 0, and `torch.cuda.stream` ends by switching back to the device
        # that was used before. So the device is set first; else device 0 would be used, too.
        torch.cuda.set_device(self._device)
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(mark)
            for tensor in used:
                tensor.record_stream(self._stream)
            yield

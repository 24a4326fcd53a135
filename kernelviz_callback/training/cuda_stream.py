"""Work beside the training on its own device: a copy now, everything else on a side stream.

On the CPU there are no streams; the same code runs and does nothing of this.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor

Mark: TypeAlias = torch.cuda.Event | None


class SideStream:
    """A queue of work on a CUDA device that runs beside the training's own.

    Args:
        device: Where the copies lie. Only CUDA has a stream; elsewhere this is empty.
    """

    def __init__(self, device: torch.device) -> None:
        is_cuda = device.type == "cuda"
        self._device = device
        self._stream = torch.cuda.Stream(device) if is_cuda else None  # type: ignore[no-untyped-call]

    def mark(self) -> Mark:
        """Remember what the training's stream holds by now, without waiting for it."""
        if self._stream is None:
            return None
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._stream.device))
        return event

    @contextmanager
    def after(self, mark: Mark, used: Iterable[Tensor]) -> Iterator[None]:
        """Run the body's work on this stream, after ``mark``.

        Args:
            mark: From `mark`, taken after ``used`` were written.
            used: Tensors of the training's stream that the body reads; their memory is not given
                to anybody else before it has.
        """
        if self._stream is None or mark is None:
            yield
            return
        # A thread begins on device 0, and would come back there.
        torch.cuda.set_device(self._device)
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(mark)
            for tensor in used:
                tensor.record_stream(self._stream)
            yield

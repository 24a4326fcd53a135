"""Send objects with tensors between two processes of one program.

A message is a pickle, with the numbers of its tensors behind it: they are not copied into the
pickle. No memory is shared, so none is left behind by a process that is killed. Both ends must
trust each other, because a pickle can run code.
"""

import io
import os
import pickle
import socket
import struct
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_COUNT = struct.Struct("<Q")
_SLICE = 1.0  # seconds


class Channel:
    """One end of a connection.

    Args:
        connection: A connected socket. `close` closes it.

    Example:
        >>> ours, theirs = map(Channel, socket.socketpair())
        >>> ours.send({"weights": torch.ones(2, dtype=torch.bfloat16)}, None)
        >>> theirs.receive(None)
        {'weights': tensor([1., 1.], dtype=torch.bfloat16)}
        >>> ours.close()
        >>> theirs.has_message()  # that the other end is closed
        True
        >>> theirs.close()
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        _open_channels.add(self)

    def send(self, message: object, patience: float | None) -> None:
        """Send an object.

        Args:
            message: The object. Its tensors may be on any device.
            patience: Seconds that the other end may take to receive it; None for any time.

        Raises:
            OSError: If the other end is closed, or if it takes longer.
        """
        buffers: list[pickle.PickleBuffer] = []
        file = io.BytesIO()
        _TensorPickler(file, protocol=5, buffer_callback=buffers.append).dump(message)
        parts = [file.getbuffer(), *(buffer.raw() for buffer in buffers)]
        sizes = [len(part) for part in parts]
        head = b"".join(map(_COUNT.pack, [len(parts), *sizes]))
        for part in (memoryview(head), *parts):
            rest = part
            while rest:
                sent = self._wait(self._socket.send, rest, patience)
                rest = rest[sent:]

    def receive(self, patience: float | None) -> Any:
        """Wait for an object, and return it. Its tensors are on the CPU.

        Args:
            patience: Seconds that the other end may take to send it; None for any time.

        Raises:
            EOFError: If the other end is closed.
            OSError: If the other end takes longer.
        """
        [count] = _COUNT.unpack(self._read(_COUNT.size, patience))
        sizes = [size for [size] in _COUNT.iter_unpack(self._read(_COUNT.size * count, patience))]
        content, *buffers = (self._read(size, patience) for size in sizes)
        return pickle.loads(content, buffers=buffers)

    def has_message(self) -> bool:
        """Whether there is something to receive, or the other end is closed. Does not wait."""
        self._socket.setblocking(False)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def close(self) -> None:
        """Close this end. A second call changes nothing."""
        self._socket.close()

    def _read(self, size: int, patience: float | None) -> bytearray:
        content = bytearray(size)
        rest = memoryview(content)
        while rest:
            received = self._wait(self._socket.recv_into, rest, patience)
            if received == 0:
                raise EOFError("the other process has closed the connection")
            rest = rest[received:]
        return content

    def _wait(
        self, use: Callable[[memoryview], int], part: memoryview, patience: float | None
    ) -> int:
        """Send or receive a part.

        The time is counted in short slices: if both processes are suspended for an hour, one slice
        passes.
        """
        if patience is None:
            self._socket.settimeout(None)
            return use(part)
        self._socket.settimeout(min(_SLICE, patience))
        waited = 0.0
        while True:
            try:
                return use(part)
            except TimeoutError:
                waited += _SLICE
                if waited >= patience:
                    raise


# A fork of the training would keep the connection open after the training has ended.
_open_channels: "weakref.WeakSet[Channel]" = weakref.WeakSet()


def _close_all() -> None:
    for channel in list(_open_channels):
        channel.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all)


class _TensorPickler(pickle.Pickler):
    """Pickles a tensor as its type, its shape and its bytes."""

    def reducer_override(self, obj: object) -> Any:
        if not isinstance(obj, Tensor):
            return NotImplemented
        data = obj.detach().cpu().contiguous()
        numbers: Any = data.reshape(-1).view(torch.uint8).numpy()
        return _tensor, (pickle.PickleBuffer(numbers), data.dtype, tuple(data.shape))


def _tensor(numbers: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    if 0 in shape:
        return torch.empty(shape, dtype=dtype, device="cpu")
    return torch.frombuffer(numbers, dtype=dtype).reshape(shape)

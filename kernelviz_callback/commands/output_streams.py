"""What a command prints: any text, also if the reader has left, and warnings in one line."""

import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

_OURS = "kernelviz: "  # the beginning of our warnings


@contextmanager
def tolerant_output() -> Iterator[None]:
    r"""Replace the two streams for the ``with`` body.

    A character that the encoding of the terminal does not have is written as an escape, such as
    ``\u2713``. If the reader of a pipe has ended, such as ``head``, the rest of the output is
    dropped: the command still does its work, and its exit status is the same.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_tolerant, before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):  # it is None, full or closed
                stream.flush()
        sys.stdout, sys.stderr = before


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print our warnings without a place in the ``with`` body: a command has no program of a user.

    The warnings of other packages are printed as before.
    """
    before = warnings.formatwarning

    def format_plainly(message: Any, *arguments: Any, **options: Any) -> str:
        text = str(message)
        return f"{text}\n" if text.startswith(_OURS) else before(message, *arguments, **options)

    warnings.formatwarning = format_plainly
    try:
        yield
    finally:
        warnings.formatwarning = before


class _Pipe(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes


def _tolerant(stream: Any) -> Any:
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # with `python -u` there is no buffer
    if type(raw) is io.FileIO:
        stream.flush()
        return io.TextIOWrapper(
            io.BufferedWriter(_Pipe(raw.fileno(), "w", closefd=False)),
            encoding=stream.encoding,
            errors="backslashreplace",
            line_buffering=stream.line_buffering or stream.write_through,
        )
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
    return stream

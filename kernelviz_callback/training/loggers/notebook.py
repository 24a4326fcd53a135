"""The cell of a notebook: the newest pictures of a training that runs in it."""

import sys
import time
from collections.abc import Sequence
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary

from kernelviz_callback.drawing.encode import EncodedImage
from kernelviz_callback.training.loggers.base import Images, Numbers

_KINDS = ("kernels/", "responses/", "film/")
# Each picture crosses the wire to the browser, and stays in the notebook's file until the next.
_LEAST_SECONDS = 0.5
_MOST_LAYERS = 4


def is_in_notebook() -> bool:
    """Whether a cell of a notebook is what runs this; nothing is imported to tell."""
    interactive = sys.modules.get("IPython")
    find_shell = getattr(interactive, "get_ipython", None)
    return find_shell is not None and hasattr(find_shell(), "kernel")


class NotebookView:
    """Shows pictures in the cell that runs now, and renews them there from any thread.

    When the training ends its film stands below the last pictures.
    """

    name = "the notebook"
    keeps_pictures = False
    replaces = True

    def __init__(self) -> None:
        from IPython.display import display

        self._images: dict[str, EncodedImage] = {}
        self._step = 0
        self._shown_at = 0.0
        waiting = _Html("<p>kernelviz: waiting for pictures</p>")
        self._handle: Any = display(waiting, display_id=True)  # type: ignore[no-untyped-call]

    def log(
        self, images: Images, step: int, numbers: Numbers, events: Sequence[Summary.Value]
    ) -> None:
        """Renew the pictures, unless they were a moment ago."""
        if any(tag.startswith("kernels/") for tag in images):  # later than the film there is
            self._images = {t: i for t, i in self._images.items() if not t.startswith("film/")}
        self._images |= {tag: image for tag, image in images.items() if tag.startswith(_KINDS)}
        self._step = max(step, self._step)
        is_end = any(tag.startswith("film/") for tag in images)
        if is_end or time.monotonic() - self._shown_at >= _LEAST_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Show the newest pictures."""
        self._shown_at = time.monotonic()
        layers = list(dict.fromkeys(tag.partition("/")[2] for tag in self._images))
        rows = "".join(map(self._row, layers[:_MOST_LAYERS]))
        more = len(layers) - _MOST_LAYERS
        rest = f"<p>and {more} more layers, in TensorBoard</p>" if more > 0 else ""
        self._handle.update(_Html(f"<p>kernelviz: step {self._step}</p>{rows}{rest}"))

    def _row(self, layer: str) -> str:
        tags = (f"{kind}{layer}" for kind in _KINDS)
        return "".join(self._images[tag].to_html(tag) for tag in tags if tag in self._images)


class _Html:
    """IPython's own class warns of what it takes for a page in a page."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return "pictures of kernels and responses"

    def _repr_html_(self) -> str:
        return self._text

"""Show the newest pictures in the notebook cell that trains."""

import sys
import time
from collections.abc import Sequence
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary

from kernelviz_callback.drawing.encode import EncodedImage
from kernelviz_callback.training.loggers.base import Images, Numbers

_TAG_PREFIXES = ("kernels/", "responses/", "film/")
# Each update sends the pictures to the browser and stores them in the notebook file.
_LEAST_SECONDS = 0.5  # between two updates
_MOST_LAYERS = 4


def is_in_notebook() -> bool:
    """Whether this code runs in a notebook cell. IPython is not imported for the answer."""
    interactive = sys.modules.get("IPython")
    find_shell = getattr(interactive, "get_ipython", None)
    return find_shell is not None and hasattr(find_shell(), "kernel")


class NotebookView:
    """A destination that shows pictures in the notebook cell that is running.

    Later pictures replace the earlier ones. At the end of the training the film is shown below the
    last pictures.
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
        """Take the pictures, and show them if the last update was at least half a second ago."""
        if any(tag.startswith("kernels/") for tag in images):  # an earlier film is now out of date
            self._images = {t: i for t, i in self._images.items() if not t.startswith("film/")}
        self._images |= {
            tag: image for tag, image in images.items() if tag.startswith(_TAG_PREFIXES)
        }
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
        tags = (f"{prefix}{layer}" for prefix in _TAG_PREFIXES)
        return "".join(self._images[tag].to_html(tag) for tag in tags if tag in self._images)


class _Html:
    """HTML for a cell.

    ``IPython.display.HTML`` is not used: it warns about text that it takes for an ``<iframe>``.
    """

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return "pictures of kernels and responses"

    def _repr_html_(self) -> str:
        return self._text

"""TensorBoard, and what has its ``add_image``: a finished picture goes there as it is."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from kernelviz_callback.drawing.encode import EncodedImage
from kernelviz_callback.storage import as_folder, check_can_grow
from kernelviz_callback.training.loggers.base import Images, Numbers

# What an event adds to what it holds: its frame, the time, the step.
_EVENT_BYTES = 1024


@dataclass(frozen=True)
class TensorBoard:
    """A writer of torch's. Through it, not beside it: two files of one run hide each other."""

    writer: SummaryWriter
    keeps_pictures: bool = True
    replaces: bool = True

    @property
    def name(self) -> str:
        """Of the writer's class."""
        return type(self.writer).__name__

    def log(
        self, images: Images, step: int, numbers: Numbers, events: Sequence[Summary.Value]
    ) -> None:
        """Log the encoded bytes as they are: ``add_image`` would make a large PNG of each.

        Raises:
            OSError: If the file cannot take it all. That is tried out before, because a writer that
                fails once fails for good, and the training logs through it too.
        """
        file = self.writer._get_file_writer()  # type: ignore[no-untyped-call]
        summaries = [_summary(tag, image) for tag, image in images.items()]
        summaries += [Summary(value=[event]) for event in events]
        if numbers:
            values = [Summary.Value(tag=tag, simple_value=x) for tag, x in numbers.items()]
            summaries.append(Summary(value=values))
        if not summaries:
            return
        _make_sure_of_room(file, sum(each.ByteSize() + _EVENT_BYTES for each in summaries))
        for each in summaries:
            file.add_summary(each, step)

    def flush(self) -> None:
        """Have it write what it has been handed."""
        self.writer.flush()


@dataclass(frozen=True)
class PixelWriter:
    """Another writer with ``add_image``: it gets the pixels of what does not move."""

    writer: Any
    keeps_pictures: bool = True
    replaces: bool = False

    @property
    def name(self) -> str:
        """Of the writer's class."""
        return type(self.writer).__name__

    def log(
        self, images: Images, step: int, numbers: Numbers, events: Sequence[Summary.Value]
    ) -> None:
        """Log the images alone."""
        for tag, image in images.items():
            if image.suffix != ".gif":
                pixels = np.asarray(Image.open(io.BytesIO(image.content)))
                self.writer.add_image(tag, pixels, step, dataformats="HWC")

    def flush(self) -> None:
        """Have it write what it has been handed, if it knows how to."""
        if callable(getattr(self.writer, "flush", None)):
            self.writer.flush()


def _make_sure_of_room(writer: Any, needed: int) -> None:
    file = as_folder(writer.event_writer._file_name)
    if isinstance(file, Path):
        check_can_grow(file, 2 * needed)  # what was logged before may still be on its way


def _summary(tag: str, image: EncodedImage) -> Summary:
    encoded = Summary.Image(
        height=image.height, width=image.width, colorspace=3, encoded_image_string=image.content
    )
    return Summary(value=[Summary.Value(tag=tag, image=encoded)])

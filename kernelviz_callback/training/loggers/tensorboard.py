"""Log encoded pictures to TensorBoard, and pixels to other writers with ``add_image``."""

import io
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from kernelviz_callback.drawing.encode import EncodedImage
from kernelviz_callback.snapshots.names import plain_tags
from kernelviz_callback.storage import as_absolute, as_folder, reserve
from kernelviz_callback.training.loggers.base import Images, Numbers
from kernelviz_callback.training.loggers.event_file import event_file_of

_HEAD = 3  # records of a new event file: two versions, and the start at a purge step
_EVENT_BYTES = 1024  # upper bound of what an event adds to its content, such as time and step


@dataclass(frozen=True)
class TensorBoard:
    """A ``SummaryWriter`` of torch.

    Pictures go into the file of this writer and not into an event file of their own: TensorBoard
    shows only one of several files that are written at the same time for a run.

    Attributes:
        writer: The writer of the training.
        keeps_pictures: See `Destination.keeps_pictures`.
        replaces: See `Destination.replaces`.
    """

    writer: SummaryWriter
    keeps_pictures: bool = True
    replaces: bool = True

    @property
    def name(self) -> str:
        """The class name of the writer."""
        return type(self.writer).__name__

    def log(
        self, images: Images, step: int, numbers: Numbers, events: Sequence[Summary.Value]
    ) -> None:
        """Log the encoded images, the numbers and the events.

        ``add_image`` is not used: it would encode each picture again, as a larger PNG.

        Raises:
            OSError: If an event cannot be written. The writer, through which the training logs, is
                not affected if it is that of torch and its file is local.
        """
        file = self.writer._get_file_writer()  # type: ignore[no-untyped-call]
        summaries = [_summary(tag, image) for tag, image in images.items()]
        summaries += [Summary(value=[event]) for event in events]
        if numbers:
            values = [Summary.Value(tag=tag, simple_value=x) for tag, x in numbers.items()]
            summaries.append(Summary(value=values))
        if not summaries:
            return
        shared = event_file_of(file.event_writer)
        if shared is None:  # another kind of writer, or remote storage
            path = as_folder(file.event_writer._file_name)
            if isinstance(path, Path):
                reserve(path, sum(each.ByteSize() + _EVENT_BYTES for each in summaries))
            for each in summaries:
                file.add_summary(each, step)
            return
        now = time.time()
        events_of_step = (Event(wall_time=now, step=step, summary=each) for each in summaries)
        shared.append([event.SerializeToString() for event in events_of_step])

    def flush(self) -> None:
        """Write out what was logged."""
        self.writer.flush()

    def purge_step(self) -> float:
        """Return the ``purge_step`` of the writer. TensorBoard hides earlier events from it on.

        The writer does not keep the number, so it is read from the head of its event file.

        Returns:
            Infinity if there is no such step, or if the file is not local.

        Raises:
            OSError: If the file cannot be read.
        """
        self.flush()
        file = self.writer._get_file_writer()  # type: ignore[no-untyped-call]
        path = as_folder(file.event_writer._file_name)
        if isinstance(path, Path):
            for record in islice(RawEventFileLoader(str(path)).Load(), _HEAD):
                event = Event.FromString(record)
                if event.session_log.status == SessionLog.START:
                    return float(event.step)
        return math.inf


@dataclass(frozen=True)
class PixelWriter:
    """Any other writer with ``add_image``. It gets the pixels of all images but animations.

    Attributes:
        writer: The writer.
        keeps_pictures: See `Destination.keeps_pictures`.
        replaces: See `Destination.replaces`.
    """

    writer: Any
    keeps_pictures: bool = True
    replaces: bool = False

    @property
    def name(self) -> str:
        """The class name of the writer."""
        return type(self.writer).__name__

    def log(
        self, images: Images, step: int, numbers: Numbers, events: Sequence[Summary.Value]
    ) -> None:
        """Log the images. Numbers and events are ignored.

        Some writers replace characters in tags, so the tags get names that any writer keeps.
        """
        for tag, name in plain_tags(images, ascii_only=False).items():
            if images[tag].suffix != ".gif":
                pixels = np.asarray(Image.open(io.BytesIO(images[tag].content)))
                self.writer.add_image(name, pixels, step, dataformats="HWC")

    def flush(self) -> None:
        """Write out what was logged, if the writer has a ``flush``."""
        if callable(getattr(self.writer, "flush", None)):
            self.writer.flush()


def keep_file_in_place(writer: SummaryWriter) -> None:
    """Make the path of a writer's event file absolute, if it is relative.

    The writer opens the file by its path each time it writes, so ``os.chdir`` in the training would
    divide the file between two folders, or end the training if the second one does not exist. Call
    this in the thread of the training, before it can change the working directory.
    """
    events = writer._get_file_writer().event_writer  # type: ignore[no-untyped-call]
    file: Any = events
    for part in ("_async_writer", "_writer", "_writer"):
        file = getattr(file, part, None)
    if isinstance(getattr(file, "filename", None), bytes):
        path = as_absolute(os.fsdecode(file.filename))
        if isinstance(path, Path):
            file.filename, events._file_name = os.fsencode(path), str(path)


def _summary(tag: str, image: EncodedImage) -> Summary:
    encoded = Summary.Image(
        height=image.height, width=image.width, colorspace=3, encoded_image_string=image.content
    )
    return Summary(value=[Summary.Value(tag=tag, image=encoded)])

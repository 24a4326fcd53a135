"""Hand a finished picture to whatever takes images; each picture is encoded once."""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from kernelviz_callback.picture import EncodedImage
from kernelviz_callback.storage import as_folder, rehearse_growth

# What an event adds to what it holds: its frame, the time, the step.
_EVENT_BYTES = 1024


def image_experiments(loggers: Iterable[Logger]) -> list[Any]:
    """Find the experiments that take images: those with an ``add_image``, as TensorBoard's has."""
    experiments = (getattr(logger, "experiment", None) for logger in loggers)
    return [e for e in experiments if callable(getattr(e, "add_image", None))]


def log_images(
    experiment: Any,
    images: Mapping[str, EncodedImage],
    step: int,
    scalars: Mapping[str, float] | None = None,
    events: Sequence[Summary.Value] = (),
) -> None:
    """Log images, tag to image, numbers, tag to value, and whatever else TensorBoard is to keep.

    TensorBoard receives the encoded bytes as they are, through the logger's own writer: its
    ``add_image`` would encode every picture as a large PNG. Another writer gets the pixels of what
    does not move, and no numbers: they are left to the training's thread.

    Raises:
        OSError: If TensorBoard's file cannot take it all. That is tried out before, because a
            writer that fails once fails for good, and the training logs through it too.
    """
    if isinstance(experiment, SummaryWriter):
        writer = experiment._get_file_writer()  # type: ignore[no-untyped-call]
        summaries = [_summary(tag, image) for tag, image in images.items()]
        summaries += [Summary(value=[event]) for event in events]
        if scalars:
            values = [Summary.Value(tag=tag, simple_value=x) for tag, x in scalars.items()]
            summaries.append(Summary(value=values))
        if not summaries:
            return
        _make_sure_of_room(writer, sum(each.ByteSize() + _EVENT_BYTES for each in summaries))
        for each in summaries:
            writer.add_summary(each, step)
    else:
        for tag, image in images.items():
            if image.suffix != ".gif":
                pixels = np.asarray(Image.open(io.BytesIO(image.content)))
                experiment.add_image(tag, pixels, step, dataformats="HWC")


def flush(experiment: Any) -> None:
    """Have an experiment write what it has been handed, if it knows how to."""
    if callable(getattr(experiment, "flush", None)):
        experiment.flush()


def _make_sure_of_room(writer: Any, needed: int) -> None:
    file = as_folder(writer.event_writer._file_name)
    if isinstance(file, Path):
        rehearse_growth(file, 2 * needed)  # what was logged before may still be on its way


def _summary(tag: str, image: EncodedImage) -> Summary:
    encoded = Summary.Image(
        height=image.height, width=image.width, colorspace=3, encoded_image_string=image.content
    )
    return Summary(value=[Summary.Value(tag=tag, image=encoded)])

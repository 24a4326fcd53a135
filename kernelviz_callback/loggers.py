"""Hand a finished picture to whatever takes images; each picture is encoded once."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from kernelviz_callback.picture import to_jpeg, to_png


@dataclass(frozen=True)
class EncodedImage:
    """A picture as the bytes of a file. ``suffix`` is ".png" or ".jpg"."""

    content: bytes
    height: int
    width: int
    suffix: str

    @classmethod
    def png(cls, pixels: Tensor) -> "EncodedImage":
        """Encode (H, W, 3) uint8 pixels without loss."""
        return cls(to_png(pixels), pixels.shape[0], pixels.shape[1], ".png")

    @classmethod
    def jpeg(cls, pixels: Tensor) -> "EncodedImage":
        """Encode (H, W, 3) uint8 pixels with little loss, in a fifth of the bytes."""
        return cls(to_jpeg(pixels), pixels.shape[0], pixels.shape[1], ".jpg")


def image_experiments(loggers: Iterable[Logger]) -> list[Any]:
    """Find the experiments that take images: those with an ``add_image``, as TensorBoard's has."""
    experiments = (getattr(logger, "experiment", None) for logger in loggers)
    return [e for e in experiments if callable(getattr(e, "add_image", None))]


def log_image(experiment: Any, tag: str, image: EncodedImage, step: int) -> None:
    """Log an image under ``tag`` at ``step``.

    TensorBoard receives the encoded bytes as they are, through the logger's own writer: its
    ``add_image`` would encode every picture as a large PNG. Another writer gets the pixels.
    """
    if isinstance(experiment, SummaryWriter):
        encoded = Summary.Image(
            height=image.height,
            width=image.width,
            colorspace=3,
            encoded_image_string=image.content,
        )
        summary = Summary(value=[Summary.Value(tag=tag, image=encoded)])
        experiment._get_file_writer().add_summary(summary, step)  # type: ignore[no-untyped-call]
    else:
        pixels = np.asarray(Image.open(io.BytesIO(image.content)))
        experiment.add_image(tag, pixels, step, dataformats="HWC")

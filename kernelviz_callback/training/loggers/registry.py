"""Which destination a logger is."""

from typing import Any

from torch.utils.tensorboard import SummaryWriter

from kernelviz_callback.training.loggers.base import Destination, ImageLogger, LogImages
from kernelviz_callback.training.loggers.services import SERVICES
from kernelviz_callback.training.loggers.tensorboard import PixelWriter, TensorBoard

_WITH_NUMBERS = {*SERVICES, "TensorBoardLogger"}

# Classes that users registered, to the functions that log images to them.
own_destinations: dict[type, LogImages] = {}


def register_logger(kind: type, log_images: LogImages) -> None:
    """Let pictures go to a logger of your own.

    Numbers need no function: every logger gets them by its ``log_metrics``.

    Args:
        kind: Class of the logger; its subclasses are meant too.
        log_images: Is called with the logger, the images and the step, from a thread that is not
            the training's, a snapshot after the other. The images are a mapping of tags such as
            ``kernels/conv1`` to an `EncodedImage`: a file's ``content``, its ``suffix`` (".png",
            ".jpg", ".gif"), ``height`` and ``width``. What it raises is told to the user once, and
            ends nothing.

    Raises:
        TypeError: If one is not a class, or the other cannot be called.

    Example:
        >>> class Album:
        ...     def __init__(self):
        ...         self.pages = {}
        >>> def log_images(album, images, step):
        ...     album.pages |= {(tag, step): image.content for tag, image in images.items()}
        >>> register_logger(Album, log_images)
    """
    if not isinstance(kind, type):
        raise TypeError(f"register_logger takes the class of a logger first; found {kind!r}")
    if not callable(log_images):
        raise TypeError(f"register_logger takes a function second; found {log_images!r}")
    own_destinations[kind] = log_images


def destination_of(logger: Any) -> Destination | None:
    """The destination that a logger is, or a bare writer; None if it takes no pictures."""
    for kind in type(logger).__mro__:
        if kind in own_destinations:
            return ImageLogger(logger, own_destinations[kind], takes_numbers=False)
        if kind.__name__ in SERVICES:
            return ImageLogger(logger, SERVICES[kind.__name__], takes_numbers=True)
    experiment = getattr(logger, "experiment", logger)
    if isinstance(experiment, SummaryWriter):
        return TensorBoard(experiment)
    if callable(getattr(experiment, "add_image", None)):
        return PixelWriter(experiment)
    return None


def takes_numbers(logger: Any) -> bool:
    """Whether the numbers go to a logger with its pictures, from whatever thread draws them.

    Other loggers may be used from the training's thread alone.
    """
    kinds = type(logger).__mro__
    names = {kind.__name__ for kind in kinds}
    return own_destinations.keys().isdisjoint(kinds) and not names.isdisjoint(_WITH_NUMBERS)

"""Choose the destination for a logger, and register loggers of the user."""

import sys
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from kernelviz_callback.training.loggers.base import Destination, ImageLogger, LogImages
from kernelviz_callback.training.loggers.services import SERVICES
from kernelviz_callback.training.loggers.tensorboard import (
    PixelWriter,
    TensorBoard,
    keep_file_in_place,
)

# Names of the logger classes that may be called from any thread.
_WITH_NUMBERS = {*SERVICES, "TensorBoardLogger"}

# Class of the experiment that Lightning's loggers give to processes that they take for others than
# rank zero. It accepts every call and does nothing.
_PLACEHOLDER = "_DummyExperiment"

# Classes that users registered, to the functions that log images to them.
own_destinations: dict[type, LogImages] = {}


def register_logger(kind: type, log_images: LogImages) -> None:
    """Send pictures to a logger of your own.

    Numbers need no function: every logger gets them through its ``log_metrics``.

    Args:
        kind: Class of the logger. Its subclasses get pictures too.
        log_images: Function that is called with the logger, the images and the step. The images
            are a mapping of tags such as ``kernels/conv1`` to an `EncodedImage`: the ``content`` of
            a file, its ``suffix`` (".png", ".jpg", ".gif"), ``height`` and ``width``. The function
            is called from a background thread, for one snapshot after the other. If it raises an
            exception, the user is warned once and the training goes on.

    Raises:
        TypeError: If ``kind`` is not a class, or ``log_images`` cannot be called.

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
    """Return the destination for a logger or a writer; None if it takes no pictures.

    Raises:
        RuntimeError: If it is a logger of Lightning that writes nothing in this process.
    """
    for kind in type(logger).__mro__:
        if kind in own_destinations:
            return ImageLogger(logger, own_destinations[kind])
        if kind.__name__ in SERVICES:
            if _lightning_rank() > 0:  # to read `experiment` could take seconds
                raise RuntimeError(_mute())
            return SERVICES[kind.__name__](logger)
    experiment = getattr(logger, "experiment", logger)
    if type(experiment).__name__ == _PLACEHOLDER:
        raise RuntimeError(_mute())
    if isinstance(experiment, SummaryWriter):
        keep_file_in_place(experiment)
        return TensorBoard(experiment)
    if callable(getattr(experiment, "add_image", None)):
        return PixelWriter(experiment)
    return None


def takes_numbers(logger: Any) -> bool:
    """Whether a logger gets the numbers together with its pictures, from the thread that draws.

    All other loggers get the numbers from the thread of the training, because they may not be
    called from another one.
    """
    kinds = type(logger).__mro__
    names = {kind.__name__ for kind in kinds}
    return own_destinations.keys().isdisjoint(kinds) and not names.isdisjoint(_WITH_NUMBERS)


def _lightning_rank() -> int:
    """Return the rank that Lightning takes this process for, also without a process group."""
    module = sys.modules.get("lightning_utilities.core.rank_zero")
    return getattr(getattr(module, "rank_zero_only", None), "rank", None) or 0


def _mute() -> str:
    return (
        f"Lightning takes this process for rank {_lightning_rank()}, so that its loggers write "
        "nothing; if no other process trains with it, unset the variable that says so (RANK, "
        "LOCAL_RANK, SLURM_PROCID, ...)"
    )

"""What whoever shows a snapshot knows of a logger."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from tensorboard.compat.proto.summary_pb2 import Summary

from kernelviz_callback.drawing.encode import EncodedImage

Images: TypeAlias = Mapping[str, EncodedImage]
Numbers: TypeAlias = Mapping[str, float]
LogImages: TypeAlias = Callable[[Any, Images, int], None]


class Destination(Protocol):
    """A place that takes pictures, from any thread."""

    @property
    def name(self) -> str:
        """As users know it: the name of a class."""

    @property
    def keeps_pictures(self) -> bool:
        """Whether they can still be looked at there when the training is over."""

    @property
    def replaces(self) -> bool:
        """Whether what is logged again of a step takes the place of what was there."""

    def log(
        self, images: Images, step: int, numbers: Numbers, events: Sequence[Summary.Value]
    ) -> None:
        """Log what belongs to one step.

        Args:
            images: Tag to image, finished: nobody encodes it again.
            step: ``trainer.global_step``.
            numbers: Tag to value; left out by those who do not take them.
            events: For the Kernels tab; left out by all but TensorBoard.
        """

    def flush(self) -> None:
        """Write what has been handed over, where somebody may wait to see it."""


@dataclass(frozen=True)
class ImageLogger:
    """A logger, with the function that logs images to it.

    Attributes:
        logger: Lightning's, or the user's own.
        log_images: Is called with it, the images and the step.
        takes_numbers: Whether its ``log_metrics`` may be used from any thread.
    """

    logger: Any
    log_images: LogImages
    takes_numbers: bool
    keeps_pictures: bool = True
    replaces: bool = False

    @property
    def name(self) -> str:
        """Of the logger's class."""
        return type(self.logger).__name__

    def log(
        self, images: Images, step: int, numbers: Numbers, events: Sequence[Summary.Value]
    ) -> None:
        """Log the images, and the numbers on Lightning's own step axis."""
        if numbers and self.takes_numbers:
            self.logger.log_metrics(dict(numbers), step=step)
        if images:
            self.log_images(self.logger, images, step)

    def flush(self) -> None:
        """Leave it to the logger, which sends from a thread of its own or at once."""

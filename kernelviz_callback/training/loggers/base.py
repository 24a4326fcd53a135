"""The interface to a logger that takes pictures, and its general implementation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from tensorboard.compat.proto.summary_pb2 import Summary

from kernelviz_callback.drawing.encode import EncodedImage

Images: TypeAlias = Mapping[str, EncodedImage]
Numbers: TypeAlias = Mapping[str, float]
LogImages: TypeAlias = Callable[[Any, Images, int], None]


class Destination(Protocol):
    """A place for pictures: a logger, a writer, or the cell of a notebook.

    All methods may be called from any thread.
    """

    @property
    def name(self) -> str:
        """The name that messages to the user have: the class name of the logger."""

    @property
    def keeps_pictures(self) -> bool:
        """Whether the pictures are still there after the training."""

    @property
    def replaces(self) -> bool:
        """Whether a picture that is logged again at the same step replaces the first one."""

    def log(
        self, images: Images, step: int, numbers: Numbers, events: Sequence[Summary.Value]
    ) -> None:
        """Log the images and numbers of one step.

        Args:
            images: Tag to encoded image. The bytes are logged as they are.
            step: ``trainer.global_step``.
            numbers: Tag to value. A destination that does not take numbers ignores them.
            events: Events for the Kernels tab. Only TensorBoard logs them.
        """

    def flush(self) -> None:
        """Write out what was logged, so that it can be seen now."""


@dataclass(frozen=True)
class ImageLogger:
    """A logger of the user, with the function that logs images to it.

    Attributes:
        logger: The logger.
        log_images: Function that is called with the logger, the images and the step.
        keeps_pictures: See `Destination.keeps_pictures`.
        replaces: See `Destination.replaces`.
    """

    logger: Any
    log_images: LogImages
    keeps_pictures: bool = True
    replaces: bool = False

    @property
    def name(self) -> str:
        """The class name of the logger."""
        return type(self.logger).__name__

    def log(
        self, images: Images, step: int, numbers: Numbers, events: Sequence[Summary.Value]
    ) -> None:
        """Log the images. The thread of the training logs the numbers."""
        if images:
            self.log_images(self.logger, images, step)

    def flush(self) -> None:
        """Do nothing: such a logger has no function for it."""

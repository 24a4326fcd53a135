"""Log encoded pictures to Weights & Biases, MLflow, Comet and Neptune.

Their clients may be called from any thread, so the thread that draws also logs.
"""

import io
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary

from kernelviz_callback.snapshots.names import plain_tags
from kernelviz_callback.training.loggers.base import Destination, Images, LogImages, Numbers

# Bytes of a layer name. Comet cuts the names of metrics after 100 characters, and 27 of them are
# before and behind the layer, as in kernelviz/<layer>/variance_entropy.
_LONGEST_IN_COMET = 72


@dataclass(frozen=True)
class Service:
    """The logger of a logging service. Pictures and numbers get names that the service can store.

    Attributes:
        logger: The logger.
        log_images: Function that is called with the logger, the images and the step.
        naming: Options of `plain_tags`, which makes the names.
        keeps_pictures: See `Destination.keeps_pictures`.
        replaces: See `Destination.replaces`.
    """

    logger: Any
    log_images: LogImages
    naming: Mapping[str, Any]
    keeps_pictures: bool = True
    replaces: bool = False

    @property
    def name(self) -> str:
        """The class name of the logger."""
        return type(self.logger).__name__

    def log(
        self, images: Images, step: int, numbers: Numbers, events: Sequence[Summary.Value]
    ) -> None:
        """Log the images, and the numbers at Lightning's step."""
        if numbers:
            self.logger.log_metrics(self._renamed(numbers), step=step)
        if images:
            self.log_images(self.logger, self._renamed(images), step)

    def flush(self) -> None:
        """Do nothing: the client sends its data at once or from its own thread."""

    def _renamed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        names = plain_tags(values, **self.naming)
        return {names[tag]: value for tag, value in values.items()}


def _to_wandb(logger: Any, images: Images, step: int) -> None:
    """Log all images as one row of the history.

    The row has Lightning's ``trainer/global_step`` and no step of its own. W&B drops a row whose
    own step is lower than that of the row before.
    """
    import wandb

    with TemporaryDirectory() as folder:
        media = {}
        for number, (tag, image) in enumerate(images.items()):
            path = Path(folder) / f"{number}{image.suffix}"
            path.write_bytes(image.content)
            is_animation = image.suffix == ".gif"
            media[tag] = wandb.Video(str(path)) if is_animation else wandb.Image(str(path))
        logger.log_metrics(media, step=step)


def _to_mlflow(logger: Any, images: Images, step: int) -> None:
    """Log each image twice: as the full image and as the thumbnail that MLflow's pages show.

    The file names are those that MLflow's ``log_image`` would write. That function is not used,
    because it would encode every picture twice. The thumbnail is named ``.webp``, but browsers
    recognise the format by the bytes.
    """
    client, run = logger.experiment, logger.run_id
    now = time.time_ns() // 10**6
    with TemporaryDirectory() as folder:
        for tag, image in images.items():
            key = tag.replace("/", "~")  # MLflow's pages show "/"
            stem = f"{key}+step+{step}+timestamp+{now}+{uuid.uuid4()}"
            for ending in (".png", "+compressed.webp"):
                (Path(folder) / f"{stem}{ending}").write_bytes(image.content)
        client.log_artifacts(run, folder, "images")
    client.set_tag(run, "mlflow.loggedImages", True)


def _to_comet(logger: Any, images: Images, step: int) -> None:
    for tag, image in images.items():
        content = io.BytesIO(image.content)
        kind = image.suffix.removeprefix(".")
        logger.experiment.log_image(content, name=tag, step=step, image_format=kind)


def _to_neptune(logger: Any, images: Images, step: int) -> None:
    from neptune.types import File

    for tag, image in images.items():
        file = File.from_content(image.content, extension=image.suffix.removeprefix("."))
        logger.experiment[tag].append(file, step=step)


# Name of a logger's class to the function that makes a destination of a logger. The name serves as
# the key because Lightning has two packages, each with its own copy of the class, and because no
# client has to be imported for it.
SERVICES: Mapping[str, Callable[[Any], Destination]] = {
    "WandbLogger": partial(Service, log_images=_to_wandb, naming={"ascii_only": False}),
    "MLFlowLogger": partial(Service, log_images=_to_mlflow, naming={"ascii_only": True}),
    "CometLogger": partial(
        Service,
        log_images=_to_comet,
        naming={"ascii_only": False, "longest": _LONGEST_IN_COMET},
    ),
    "NeptuneLogger": partial(Service, log_images=_to_neptune, naming={"ascii_only": False}),
}

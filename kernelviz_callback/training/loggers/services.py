"""Log encoded pictures to Weights & Biases, MLflow, Comet and Neptune.

Their clients may be called from any thread, so the thread that draws also logs.
"""

import io
import re
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kernelviz_callback.training.loggers.base import Images, LogImages

# Characters that MLflow does not allow in the name of an image.
_NOT_IN_MLFLOW = re.compile(r"[^\w\-. ~]", re.ASCII)


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
            key = _NOT_IN_MLFLOW.sub("_", tag.replace("/", "~"))
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


# Name of a logger's class to the function that logs images. The name serves as the key because
# Lightning has two packages, each with its own copy of the class, and because no client has to be
# imported for it.
SERVICES: Mapping[str, LogImages] = {
    "WandbLogger": _to_wandb,
    "MLFlowLogger": _to_mlflow,
    "CometLogger": _to_comet,
    "NeptuneLogger": _to_neptune,
}

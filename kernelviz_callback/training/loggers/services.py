"""Weights & Biases, MLflow, Comet, Neptune: each takes the bytes of a finished picture.

Their clients may be used from any thread, so pictures and numbers come from the one that draws.
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

_NOT_IN_MLFLOW = re.compile(r"[^\w\-. ~]", re.ASCII)


def _to_wandb(logger: Any, images: Images, step: int) -> None:
    """One row of the history: with Lightning's step axis and none of our own, none is dropped."""
    import wandb

    with TemporaryDirectory() as folder:
        media = {}
        for number, (tag, image) in enumerate(images.items()):
            path = Path(folder) / f"{number}{image.suffix}"
            path.write_bytes(image.content)
            is_moving = image.suffix == ".gif"
            media[tag] = wandb.Video(str(path)) if is_moving else wandb.Image(str(path))
        logger.log_metrics(media, step=step)


def _to_mlflow(logger: Any, images: Images, step: int) -> None:
    """Artifacts named as MLflow's pages look for them, at full size and as the thumbnail.

    MLflow's own ``log_image`` would encode every picture twice more. Its pages go by these names
    and show what the bytes are.
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


# By the name of a class: a logger's class is the same in both of Lightning's packages in all but
# identity, and none of the clients is imported before a logger of its kind is there.
SERVICES: Mapping[str, LogImages] = {
    "WandbLogger": _to_wandb,
    "MLFlowLogger": _to_mlflow,
    "CometLogger": _to_comet,
    "NeptuneLogger": _to_neptune,
}

"""The destinations for TensorBoard writers and for other writers with ``add_image``."""

from pathlib import Path

import numpy as np
import torch
from conftest import logged_images
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

from kernelviz_callback import EncodedImage
from kernelviz_callback.training.loggers.registry import destination_of

PIXELS = torch.randint(0, 255, (5, 6, 3), dtype=torch.uint8)


def test_a_tensorboard_logger_gets_the_encoded_bytes(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    destination = destination_of(logger)
    assert destination is not None
    destination.log({"a": EncodedImage.png(PIXELS)}, 3, {"n": 2.0}, [])
    logger.experiment.close()
    assert np.array_equal(logged_images(logger.log_dir)["a"][3], PIXELS.numpy())


def test_a_summary_writer_gets_the_encoded_bytes(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        destination = destination_of(writer)
        assert destination is not None
        destination.log({"a": EncodedImage.png(PIXELS)}, 1, {}, [])
    assert list(logged_images(tmp_path)["a"]) == [1]


def test_a_writer_that_is_closed_can_be_used_again(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    destination = destination_of(logger)
    assert destination is not None
    for step in (1, 2):
        destination.log({"a": EncodedImage.png(PIXELS)}, step, {}, [])
        logger.experiment.close()
    assert list(logged_images(logger.log_dir)["a"]) == [1, 2]


def test_another_writer_with_add_image_gets_the_pixels() -> None:
    class Writer:
        def add_image(self, tag: str, pixels: np.ndarray, step: int, dataformats: str) -> None:
            self.got = tag, pixels, step, dataformats

    writer = Writer()
    destination = destination_of(writer)
    assert destination is not None
    destination.log({"a": EncodedImage.png(PIXELS)}, 3, {}, [])
    tag, got, step, order = writer.got
    assert (tag, step, order) == ("a", 3, "HWC")
    assert np.array_equal(got, PIXELS.numpy())

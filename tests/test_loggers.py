from pathlib import Path

import numpy as np
import torch
from conftest import logged_images
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from kernelviz_callback.loggers import image_experiments, log_images
from kernelviz_callback.picture import EncodedImage


def test_tensorboard_gets_the_encoded_bytes_in_one_event_file(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="run")
    logger.log_metrics({"loss": 1.0}, step=1)
    (experiment,) = image_experiments([logger])
    pixels = torch.randint(0, 255, (20, 30, 3), dtype=torch.uint8)
    log_images(experiment, {"kernels/a": EncodedImage.png(pixels)}, 7)
    log_images(experiment, {"responses/a": EncodedImage.jpeg(pixels)}, 7)
    experiment.flush()
    images = logged_images(logger.log_dir)
    assert np.array_equal(images["kernels/a"][7], pixels.numpy())
    assert images["responses/a"][7].shape == (20, 30, 3)
    assert len(list(Path(logger.log_dir).glob("events.*"))) == 1


def test_a_writer_that_was_closed_goes_on_in_the_same_directory(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="run")
    image = EncodedImage.png(torch.zeros(4, 4, 3, dtype=torch.uint8))
    for step in (1, 2):
        log_images(logger.experiment, {"a": image}, step)
        logger.experiment.close()
    assert list(logged_images(logger.log_dir)["a"]) == [1, 2]


def test_another_writer_gets_the_pixels() -> None:
    class Writer:
        def add_image(self, tag, pixels, step, dataformats) -> None:
            self.got = tag, pixels, step, dataformats

    writer = Writer()
    pixels = torch.randint(0, 255, (5, 6, 3), dtype=torch.uint8)
    log_images(writer, {"a": EncodedImage.png(pixels)}, 3)
    tag, got, step, order = writer.got
    assert (tag, step, order) == ("a", 3, "HWC")
    assert np.array_equal(got, pixels.numpy())


def test_a_logger_without_images_is_left_out(tmp_path: Path) -> None:
    assert image_experiments([CSVLogger(tmp_path)]) == []

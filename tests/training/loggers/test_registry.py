"""Which destination a logger is, and what TensorBoard and a logger of one's own are handed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import DEFAULT_STEPS, logged_images
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

from kernelviz_callback import EncodedImage, KernelVizCallback, register_logger
from kernelviz_callback.training.loggers.registry import destination_of

PIXELS = torch.randint(0, 255, (5, 6, 3), dtype=torch.uint8)


class Album(Logger):
    """A logger of the user's own; what it is handed it keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.images: dict[tuple[str, int], EncodedImage] = {}
        self.metrics: dict[int, dict[str, float]] = {}

    name = version = None

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        assert step is not None
        self.metrics.setdefault(step, {}).update(metrics)


class Subalbum(Album):
    pass


def keep(album: Album, images: Mapping[str, EncodedImage], step: int) -> None:
    album.images |= {(tag, step): image for tag, image in images.items()}


def test_tensorboard_gets_the_bytes_as_they_are(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    destination = destination_of(logger)
    assert destination is not None
    destination.log({"a": EncodedImage.png(PIXELS)}, 3, {"n": 2.0}, [])
    logger.experiment.close()
    assert np.array_equal(logged_images(logger.log_dir)["a"][3], PIXELS.numpy())


def test_a_bare_writer_is_a_destination(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        destination = destination_of(writer)
        assert destination is not None
        destination.log({"a": EncodedImage.png(PIXELS)}, 1, {}, [])
    assert list(logged_images(tmp_path)["a"]) == [1]


def test_a_writer_that_is_closed_and_opened_again_goes_on(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    destination = destination_of(logger)
    assert destination is not None
    for step in (1, 2):
        destination.log({"a": EncodedImage.png(PIXELS)}, step, {}, [])
        logger.experiment.close()
    assert list(logged_images(logger.log_dir)["a"]) == [1, 2]


def test_another_writer_gets_the_pixels() -> None:
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


def test_a_logger_without_images_is_left_out(tmp_path: Path) -> None:
    assert destination_of(CSVLogger(tmp_path)) is None


@pytest.fixture
def album(own_loggers: None) -> Album:
    register_logger(Album, keep)
    return Subalbum()


def test_a_logger_of_ones_own_gets_every_picture_and_number(
    fit, album: Album, tmp_path: Path
) -> None:
    board = TensorBoardLogger(tmp_path)
    fit(KernelVizCallback(), logger=[album, board])
    for tag in ("kernels/conv", "responses/conv"):
        assert [s for t, s in album.images if t == tag] == DEFAULT_STEPS
    drift = "kernelviz/conv/drift"
    drifts = {s: numbers[drift] for s, numbers in album.metrics.items() if drift in numbers}
    assert list(drifts) == DEFAULT_STEPS[1:]
    assert drifts[8] > drifts[1] > 0


def test_pictures_are_encoded_once_for_all_loggers(
    fit, album: Album, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []
    original = EncodedImage.png.__func__
    monkeypatch.setattr(
        EncodedImage,
        "png",
        classmethod(lambda cls, pixels: encoded.append(1) or original(cls, pixels)),
    )
    second = Album()
    board = TensorBoardLogger(tmp_path)
    fit(KernelVizCallback(), logger=[album, second, board])
    probe_on_disk = 1
    assert len(encoded) == probe_on_disk + sum(i.suffix == ".png" for i in album.images.values())
    assert all(second.images[key] is image for key, image in album.images.items())


@pytest.mark.loses_something
def test_a_function_that_fails_is_reported_once(fit, album: Album, tmp_path: Path) -> None:
    def fail(*_: Any) -> None:
        raise OSError("no film left")

    register_logger(Subalbum, fail)
    board = TensorBoardLogger(tmp_path)
    with pytest.warns(UserWarning, match="could not log") as caught:
        fit(KernelVizCallback(), logger=[album, board])
    said = [str(w.message) for w in caught]
    assert len([s for s in said if "could not log to Subalbum: OSError: no film left" in s]) == 1
    assert len([s for s in said if "could not log films to Subalbum: OSError" in s]) == 1
    assert list(logged_images(board.log_dir)["kernels/conv"]) == DEFAULT_STEPS


@pytest.mark.parametrize("arguments", [("Album", keep), (Album, None)])
def test_what_cannot_be_registered_is_refused(arguments: tuple[Any, Any]) -> None:
    with pytest.raises(TypeError, match="register_logger takes"):
        register_logger(*arguments)

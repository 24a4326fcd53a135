"""The choice of a destination for a logger, and loggers that the user registers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEFAULT_STEPS, logged_images
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import (
    CSVLogger,
    Logger,
    TensorBoardLogger,
    WandbLogger,
)

from kernelviz_callback import EncodedImage, KernelVizCallback, KernelWatcher, register_logger
from kernelviz_callback.training.loggers.registry import destination_of


class Album(Logger):
    """A logger of the user, which stores the images and metrics it gets."""

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


def test_a_logger_without_images_has_no_destination(tmp_path: Path) -> None:
    assert destination_of(CSVLogger(tmp_path)) is None


@pytest.fixture
def rank_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning takes a process with ``SLURM_PROCID=1`` for rank one, also without a group."""
    monkeypatch.setattr(rank_zero_only, "rank", 1)


@pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger, WandbLogger])
def test_a_logger_that_writes_nothing_is_no_destination(
    rank_one: None, tmp_path: Path, kind: type[Logger]
) -> None:
    pytest.importorskip("wandb")
    with pytest.raises(RuntimeError, match=r"for rank 1, so that its loggers write nothing"):
        destination_of(kind(save_dir=tmp_path))


def record_three(folder: Path, logger: Logger) -> None:
    with KernelWatcher(torch.nn.Conv2d(3, 4, 3), folder, loggers=[logger]) as watcher:
        for step in range(3):
            watcher.snapshot(step)


@pytest.mark.loses_something
@pytest.mark.parametrize("kind", [WandbLogger, TensorBoardLogger])
def test_pictures_for_a_logger_that_writes_nothing_go_to_files(
    rank_one: None, tmp_path: Path, kind: type[Logger], caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("wandb")
    with pytest.warns(UserWarning, match=rf"could not reach {kind.__name__}: .*RANK") as caught:
        record_three(tmp_path / "run", kind(save_dir=tmp_path))
    assert len(caught) == 1
    assert len(list((tmp_path / "run" / "kernelviz").glob("kernels-Conv2d-step-*.png"))) == 3
    assert any("so the pictures go there too" in each.getMessage() for each in caplog.records)


@pytest.fixture
def album(own_loggers: None) -> Album:
    register_logger(Album, keep)
    return Subalbum()


def test_a_registered_logger_gets_every_picture_and_number(
    fit, album: Album, tmp_path: Path
) -> None:
    board = TensorBoardLogger(tmp_path)
    fit(KernelVizCallback(), logger=[album, board])
    for tag in ("kernels/conv", "responses/conv"):
        assert [s for t, s in album.images if t == tag] == DEFAULT_STEPS
    drift = "kernelviz/conv/drift"
    drifts = {s: numbers[drift] for s, numbers in album.metrics.items() if drift in numbers}
    assert list(drifts) == DEFAULT_STEPS
    assert drifts[8] > drifts[1] > drifts[0] == 0


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
def test_a_function_that_fails_gives_one_warning_for_snapshots_and_one_for_films(
    fit, album: Album, tmp_path: Path
) -> None:
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
def test_a_bad_argument_is_an_error(arguments: tuple[Any, Any]) -> None:
    with pytest.raises(TypeError, match="register_logger takes"):
        register_logger(*arguments)

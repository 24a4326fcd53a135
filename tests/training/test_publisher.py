"""Films and probes in the loggers: when they are logged, and what they show."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import BATCHES, STEPS, logged_images, warned
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_failures import trained_weights

from kernelviz_callback import KernelVizCallback, list_snapshots
from kernelviz_callback.training import snapshot_work
from kernelviz_callback.training.films import draw_films

EVERY_EPOCH = {"early_steps": False}


def logged(log_dir: str | Path, tag: str) -> dict[int, bytes]:
    events = EventAccumulator(str(log_dir), size_guidance={"images": 0})
    events.Reload()
    return {image.step: image.encoded_image_string for image in events.Images(tag)}


def test_the_last_films_show_the_whole_training(fit) -> None:
    trainer = fit(KernelVizCallback())
    films = draw_films(Path(trainer.log_dir) / "kernelviz")
    assert set(films) == {"film/conv", "evolution/conv"}
    for tag, film in films.items():
        assert logged(trainer.log_dir, tag) == {STEPS: film.content}
    animation = Image.open(io.BytesIO(films["evolution/conv"].content))
    assert animation.n_frames == len(list_snapshots(Path(trainer.log_dir) / "kernelviz"))


def test_films_are_logged_after_4_and_16_epochs_and_at_the_end(fit) -> None:
    trainer = fit(KernelVizCallback(**EVERY_EPOCH), max_epochs=18)
    assert [step // BATCHES for step in logged(trainer.log_dir, "film/conv")] == [4, 16, 18]


def test_films_are_logged_once_if_the_last_epoch_is_the_fourth(fit) -> None:
    trainer = fit(KernelVizCallback(**EVERY_EPOCH), max_epochs=4)
    assert list(logged(trainer.log_dir, "film/conv")) == [4 * BATCHES]


def test_a_single_snapshot_makes_no_film(fit) -> None:
    trainer = fit(KernelVizCallback(), max_epochs=1)
    folder = Path(trainer.log_dir) / "kernelviz"
    for path in list(list_snapshots(folder).values())[1:]:
        path.unlink()
    assert draw_films(folder) == {}


def test_without_a_logger_films_are_files(fit, tmp_path: Path) -> None:
    fit(KernelVizCallback(), logger=False)
    folder = tmp_path / "kernelviz"
    with Image.open(folder / "evolution-conv.gif") as animation:
        assert animation.is_animated
    assert (folder / "film-conv.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.loses_something
def test_a_film_that_cannot_be_drawn_gives_one_warning(fit, monkeypatch) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("cannot draw")

    expected = trained_weights(fit)
    monkeypatch.setattr(snapshot_work, "draw_films", fail)
    with pytest.warns(
        UserWarning, match="could not draw the films: RuntimeError: cannot draw"
    ) as caught:
        found = trained_weights(fit, KernelVizCallback())
    assert len(warned(caught)) == 1
    assert torch.equal(found, expected)


@pytest.mark.loses_something
def test_a_probe_too_large_for_the_tab_is_still_used_for_pictures(fit) -> None:
    probe = torch.rand(3, 1100, 1100)
    with pytest.warns(UserWarning, match="could not pack the probe: ValueError") as caught:
        trainer = fit(KernelVizCallback(probe=probe, **EVERY_EPOCH), max_epochs=1)
    assert len(warned(caught)) == 1
    images = logged_images(trainer.log_dir)
    assert list(images["responses/conv"]) == [0, BATCHES]
    assert np.ptp(images["probe"][0]) > 0

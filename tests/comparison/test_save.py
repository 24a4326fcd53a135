"""Files of a comparison: any suffix, any name of a checkpoint, any steps."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import logged_images
from convolutions import random_weight
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kernelviz_callback import load_probe
from kernelviz_callback.comparison.compare import compare
from kernelviz_callback.comparison.comparison import Comparison, comparison_picture
from kernelviz_callback.comparison.save import log_comparison, save_comparison
from kernelviz_callback.drawing.layer_pictures import kernel_picture


@pytest.fixture
def found(tmp_path: Path) -> Comparison:
    """Two checkpoints that do not state their steps. The second has a filter of zeros."""
    weight = random_weight()
    later = weight * torch.linspace(1, 3, 16)[:, None, None, None]
    later[2] = 0
    for name, weights in (("a.pt", weight), ("b.pt", later)):
        torch.save({"conv.weight": weights}, tmp_path / name)
    return compare(tmp_path / "a.pt", tmp_path / "b.pt")


def test_a_suffix_in_capitals_selects_the_same_format(found: Comparison, tmp_path: Path) -> None:
    for suffix in ("json", "csv", "html"):
        for name in (f"small.{suffix}", f"CAPITAL.{suffix.upper()}"):
            save_comparison(found, tmp_path / name)
        texts = [
            (tmp_path / name).read_text()
            for name in (f"small.{suffix}", f"CAPITAL.{suffix.upper()}")
        ]
        assert texts[0] == texts[1]


def test_the_picture_has_the_scale_and_the_probe_that_were_asked_for(
    found: Comparison, tmp_path: Path
) -> None:
    probe = load_probe(size=40)
    saved = []
    for scale in ("layer", "filter"):
        for responses_to in (None, probe):
            path = tmp_path / f"{scale}-{responses_to is None}.png"
            save_comparison(found, path, scale=scale, responses_to=responses_to)
            picture = comparison_picture(found, scale=scale, responses_to=responses_to)
            saved.append(np.asarray(Image.open(path)))
            assert np.array_equal(saved[-1], picture.pixels.numpy())
    assert len({picture.tobytes() for picture in saved}) == 4


def test_a_name_that_is_not_unicode_is_in_every_text(tmp_path: Path) -> None:
    names = [os.fsdecode(os.fsencode(tmp_path) + b"/n\xff%d.pt" % i) for i in (0, 1)]
    for name in names:
        torch.save({"conv.weight": random_weight()}, name)
    found = compare(*names)
    for suffix in ("json", "csv", "html"):
        save_comparison(found, tmp_path / f"o.{suffix}")
    texts = {s: (tmp_path / f"o.{s}").read_text(encoding="utf-8") for s in ("json", "csv", "html")}
    assert [c["name"] for c in json.loads(texts["json"])["checkpoints"]] == names
    assert "n?1.pt" in texts["csv"]
    assert "n\\udcff1" in texts["html"]


def test_numbers_that_do_not_exist_are_not_logged(found: Comparison, tmp_path: Path) -> None:
    log_comparison(found, str(tmp_path / "events"))
    logged = EventAccumulator(str(tmp_path / "events"))
    logged.Reload()
    drift = {event.step: event.value for event in logged.Scalars("compare/conv/drift")}
    assert drift == {1: pytest.approx(found.last.drift)}, "the first has no drift"


def test_checkpoints_of_equal_steps_are_logged_at_their_indices(tmp_path: Path) -> None:
    weight = random_weight()
    for name, step in (("a", 100), ("b", 100), ("c", 300)):
        torch.save({"state_dict": {"conv.weight": weight}, "global_step": step}, tmp_path / name)
    folders = tmp_path / "equal", tmp_path / "different"
    log_comparison(compare(tmp_path / "a", tmp_path / "b"), str(folders[0]))
    log_comparison(compare(tmp_path / "a", tmp_path / "c"), str(folders[1]))
    for folder, steps in zip(folders, ([0, 1], [100, 300]), strict=True):
        images = logged_images(folder)
        assert list(images["kernels/conv"]) == steps
        assert list(images["compare/conv"]) == steps[-1:]


def test_kernels_are_logged_with_their_verdicts(found: Comparison, tmp_path: Path) -> None:
    log_comparison(found, str(tmp_path / "events"))
    logged = logged_images(tmp_path / "events")["kernels/conv"]
    for step, column in enumerate(found.columns):
        assert column.weights is not None
        options = {"layer": column.layer, "when": column.label}
        health = column.health
        expected = kernel_picture(column.weights, health=health, **options).pixels.numpy()
        plain = kernel_picture(column.weights, **options).pixels.numpy()
        assert np.array_equal(logged[step], expected)
    assert not np.array_equal(expected, plain)

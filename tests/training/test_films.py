"""The film strip and the animation of every layer in a run folder."""

import io
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from filter_sequences import drawn, sequence_of
from PIL import Image

from kernelviz_callback import Geometry, Snapshot, load_snapshot, save_snapshot
from kernelviz_callback.drawing.animation.animate import evolution_gif
from kernelviz_callback.drawing.animation.strip import film_strip
from kernelviz_callback.training import films
from kernelviz_callback.training.films import Reel, draw_films

PLAIN = Geometry("Conv2d", (1, 1), (0, 0), (1, 1), 1)
STEPS = (0, 1, 2, 4, 8, 16, 20, 40)


def weights(step: int) -> dict[str, torch.Tensor]:
    return {"conv1": drawn(8, 3, 5, 5, seed=step), "body.conv2": drawn(4, 8, 3, 3, seed=step)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for step in STEPS:
        named = weights(step)
        save_snapshot(Snapshot(step, step // 10, 0.0, named, dict.fromkeys(named, PLAIN)), tmp_path)
    return tmp_path


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def frames_in(content: bytes) -> int:
    with Image.open(io.BytesIO(content)) as image:
        return image.n_frames


def test_every_layer_has_a_film_and_an_animation(folder: Path) -> None:
    images = draw_films(folder)
    assert sorted(images) == [
        "evolution/body.conv2",
        "evolution/conv1",
        "film/body.conv2",
        "film/conv1",
    ]
    sequence = sequence_of({step: weights(step)["conv1"] for step in STEPS})
    drawn_film = film_strip(sequence).pixels.numpy()
    found = pixels(images["film/conv1"].content)
    below = film_strip(sequence).layout.top
    assert np.array_equal(found[below:], drawn_film[below:]), "only the layer's name above differs"
    for tag, image in images.items():
        assert image.suffix == (".gif" if tag.startswith("evolution") else ".png")
        assert pixels(image.content).shape == (image.height, image.width, 3)
        assert len(image.content) <= 1_000_000
    assert frames_in(images["evolution/conv1"].content) == len(STEPS)
    assert len(evolution_gif(sequence)) == pytest.approx(
        len(images["evolution/conv1"].content), rel=0.02
    )


@pytest.mark.parametrize("broken", [0, 8, 40])
def test_a_damaged_snapshot_is_left_out(folder: Path, broken: int) -> None:
    path = folder / f"step-{broken:08d}.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    images = draw_films(folder)
    assert len(images) == 4
    assert frames_in(images["evolution/conv1"].content) == len(STEPS) - 1


def test_fewer_than_two_snapshots_make_no_film(tmp_path: Path) -> None:
    assert draw_films(tmp_path) == {}
    save_snapshot(Snapshot(0, 0, 0.0, weights(0), dict.fromkeys(weights(0), PLAIN)), tmp_path)
    assert draw_films(tmp_path) == {}
    assert draw_films(tmp_path / "missing") == {}


def test_a_file_is_read_once_for_all_layers(folder: Path, monkeypatch) -> None:
    for step in range(100, 200):
        named = weights(step)
        save_snapshot(Snapshot(step, 0, 0.0, named, dict.fromkeys(named, PLAIN)), folder)
    read: Counter[str] = Counter()

    def counted(path: Path) -> Snapshot:
        read[path.name] += 1
        return load_snapshot(path)

    monkeypatch.setattr(films, "load_snapshot", counted)
    draw_films(folder)
    assert set(read.values()) == {1}
    assert len(read) == 24


def test_a_film_larger_than_a_megabyte_is_left_out(tmp_path: Path) -> None:
    for step in (0, 1):
        named = {"vast": drawn(1, 3, 900, 900), "conv": drawn(2, 3, 3, 3)}
        save_snapshot(Snapshot(step, 0, 0.0, named, dict.fromkeys(named, PLAIN)), tmp_path)
    assert sorted(draw_films(tmp_path)) == ["evolution/conv", "film/conv"]


def test_the_default_dtype_changes_no_film_and_drawing_changes_no_state(folder: Path) -> None:
    usual = draw_films(folder)
    torch.set_default_dtype(torch.bfloat16)
    try:
        state = torch.get_rng_state()
        assert draw_films(folder) == usual
        assert torch.get_default_dtype() == torch.bfloat16
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        torch.set_default_dtype(torch.float32)


def test_only_the_first_eight_layers_are_filmed(tmp_path: Path) -> None:
    named = {f"conv{i}": drawn(2, 3, 3, 3, seed=i) for i in range(12)}
    for step in (0, 1):
        save_snapshot(Snapshot(step, 0, 0.0, named, dict.fromkeys(named, PLAIN)), tmp_path)
    filmed = [tag.removeprefix("film/") for tag in draw_films(tmp_path) if tag.startswith("film/")]
    assert filmed == list(named)[:8]


def reel_of(steps: range | tuple[int, ...]) -> Reel:
    reel = Reel()
    for step in steps:
        named = weights(step)
        reel.add(Snapshot(step, step // 10, 0.0, named, dict.fromkeys(named, PLAIN)))
    return reel


def test_films_of_weights_in_memory_are_those_of_the_files(folder: Path, monkeypatch) -> None:
    expected = draw_films(folder)

    def unread(path: Path) -> Snapshot:
        raise AssertionError(f"{path} need not be read")

    with monkeypatch.context() as context:
        context.setattr(films, "load_snapshot", unread)
        assert draw_films(folder, reel_of(STEPS)) == expected
    assert draw_films(folder, reel_of((0, 8, 1000))) == expected, "the other steps are read"


def test_weights_in_memory_without_a_file_are_in_no_film(folder: Path) -> None:
    expected = draw_films(folder)
    assert draw_films(folder, reel_of((*STEPS, 1000))) == expected


def test_the_weights_in_memory_are_limited() -> None:
    reel = reel_of(range(200))
    assert sum(reel.find(step) is not None for step in range(200)) == 48
    assert reel.find(0)
    assert reel.find(199)
    wide = {"conv": torch.ones(2048, 64, 3, 3)}  # 4.5 MiB
    for step in range(200, 210):
        reel.add(Snapshot(step, 0, 0.0, wide, {"conv": PLAIN}))
    assert sum(reel.find(step) is not None for step in range(210)) == 3
    vast = {"conv": torch.ones(4096, 128, 3, 3)}
    reel.add(Snapshot(210, 0, 0.0, vast, {"conv": PLAIN}))
    assert not any(reel.find(step) for step in range(211))


def test_a_training_in_a_thread_has_films_after_the_main_thread_has_ended(tmp_path: Path) -> None:
    program = f"""
import threading, time, torch
from kernelviz_callback import KernelWatcher

def train():
    threading.main_thread().join()
    net = torch.nn.Conv2d(3, 4, 3)
    with KernelWatcher(net, {str(tmp_path)!r}, loggers=[]) as watcher:
        for step in range(3):
            watcher.snapshot(step)

threading.Thread(target=train).start()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "could not" not in done.stderr
    assert sorted(p.name for p in tmp_path.glob("kernelviz/[ef]*-*")) == [
        "evolution-Conv2d.gif",
        "film-Conv2d.png",
    ]

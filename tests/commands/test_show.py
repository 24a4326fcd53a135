"""Call ``kernelviz show`` on real files."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import STEPS, logged_images
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from trained_run import train_with_checkpoints

from kernelviz_callback import Snapshot, kernel_health, save_snapshot
from kernelviz_callback.cli import main
from kernelviz_callback.drawing.layer_pictures import kernel_picture, response_picture
from kernelviz_callback.model.convolutions import geometry_of
from kernelviz_callback.probe.probe import load_probe


@pytest.fixture
def run(fit, tmp_path: Path) -> Path:
    return train_with_checkpoints(fit, tmp_path)


def test_show_draws_the_pictures_that_the_callback_logged(
    run: Path, tmp_path: Path, capsys
) -> None:
    assert main(["show", str(run), "-o", str(tmp_path / "out.png")]) == 0
    assert f"step-{STEPS:08d}" in capsys.readouterr().out
    logged = logged_images(run)
    kernels = np.asarray(Image.open(tmp_path / "out-kernels.png"))
    assert np.array_equal(kernels, logged["kernels/conv"][STEPS])
    responses = np.asarray(Image.open(tmp_path / "out-responses.png")).astype(int)
    assert responses.shape == logged["responses/conv"][STEPS].shape
    assert np.abs(responses - logged["responses/conv"][STEPS]).mean() < 6  # JPEG


def test_show_draws_a_checkpoint_like_the_snapshot_of_the_same_step(
    run: Path, tmp_path: Path
) -> None:
    checkpoint = next((run / "checkpoints").glob(f"*step={STEPS}.ckpt"))
    snapshot = run / "kernelviz" / f"step-{STEPS:08d}.safetensors"
    for name, file in (("a", checkpoint), ("b", snapshot)):
        assert main(["show", str(file), "-o", str(tmp_path / f"{name}.png")]) == 0
    tiles = [np.asarray(Image.open(tmp_path / f"{n}-responses.png")) for n in "ab"]
    assert np.array_equal(tiles[0], tiles[1])


@pytest.mark.parametrize("conv", [nn.Conv1d(1, 8, 31), nn.Conv3d(3, 8, (2, 5, 5), dilation=2)])
@pytest.mark.parametrize("kind", ["state dict", "safetensors", "snapshot"])
def test_show_draws_1d_and_3d_layers_as_the_callback_does(
    conv: Any, kind: str, tmp_path: Path
) -> None:
    path, geometry = tmp_path / "a.pt", geometry_of(conv)
    if kind == "state dict":
        torch.save({"state_dict": {"net.conv.weight": conv.weight}}, path)
    elif kind == "safetensors":
        save_file({"net.conv.weight": conv.weight.detach()}, path)
    else:
        named = {"net.conv": conv.weight.detach()}
        path = Path(
            str(save_snapshot(Snapshot(3, 0, 0.0, named, {"net.conv": geometry}), tmp_path))
        )
    assert main(["show", str(path), "-o", str(tmp_path / "out.png")]) == 0
    printed = {"layer": "net.conv", "when": "step 3 · epoch 0" if kind == "snapshot" else ""}
    plain = replace(geometry, dilation=(1,) * len(geometry.dilation))  # only a snapshot stores it
    responses = response_picture(
        conv.weight.detach(), geometry if kind == "snapshot" else plain, load_probe(None), **printed
    )
    drawn = np.asarray(Image.open(tmp_path / "out-responses.png"))
    assert np.array_equal(drawn, responses.pixels.numpy())
    health = None if kind == "snapshot" else kernel_health(conv.weight)
    kernels = kernel_picture(conv.weight.detach(), health=health, **printed)
    drawn = np.asarray(Image.open(tmp_path / "out-kernels.png"))
    assert np.array_equal(drawn, kernels.pixels.numpy())


@pytest.mark.parametrize("suffix", ["svg", "pdf"])
def test_show_writes_svg_and_pdf_without_loss(run: Path, tmp_path: Path, suffix: str) -> None:
    paths = [tmp_path / f"out-{kind}.{suffix}" for kind in ("kernels", "responses")]
    contents = []
    for _ in range(2):
        assert main(["show", str(run), "-o", str(tmp_path / f"out.{suffix}")]) == 0
        contents.append([path.read_bytes() for path in paths])
    assert contents[0] == contents[1]
    if suffix == "svg":
        assert ET.fromstring(contents[0][0]).tag.endswith("svg")
    else:
        assert contents[0][0].startswith(b"%PDF")
        assert b"DCTDecode" not in contents[0][0]


def test_show_without_a_screen_and_a_file_name_is_an_error(run: Path, monkeypatch, capsys) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert main(["show", str(run)]) == 2
    assert "-o NAME.png" in capsys.readouterr().err


def test_show_uses_the_probe_and_layer_of_the_options(run: Path, tmp_path: Path, capsys) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(np.full((40, 60, 3), 200, np.uint8)).save(photo)
    out = ["-o", str(tmp_path / "out.png")]
    assert main(["show", str(run), "--probe", str(photo), "--layer", "conv", *out]) == 0
    assert main(["show", str(run), "--layer", "head"]) == 2
    error = capsys.readouterr().err
    assert "'head'" in error
    assert "conv: 8x3x5x5" in error


def test_list_prints_the_layers_and_shapes(run: Path, capsys) -> None:
    assert main(["show", "torchvision:resnet18", "--list"]) == 0
    assert "layer1.0.conv1: 64x64x3x3" in capsys.readouterr().out
    checkpoint = next((run / "checkpoints").glob("*step=3.ckpt"))
    assert main(["compare", str(checkpoint), str(run / "kernelviz"), "--list"]) == 0
    assert capsys.readouterr().out.count("conv: 8x3x5x5") == 6


def test_show_says_which_layer_it_passes_over_and_whose_code_is_unknown(
    tmp_path: Path, capsys
) -> None:
    class Standardized(nn.Conv2d): ...

    globals()["Standardized"] = Standardized
    Standardized.__qualname__ = "Standardized"
    torch.save(nn.Sequential(nn.ConvTranspose2d(3, 8, 4), Standardized(3, 8, 5)), tmp_path / "a.pt")
    assert main(["show", str(tmp_path / "a.pt"), "-o", str(tmp_path / "out.png")]) == 0
    errors = capsys.readouterr().err
    assert "0 cannot be shown, ConvTranspose2d is transposed" in errors
    assert "1 is drawn with the weights that it stores: it is a Standardized" in errors
    assert main(["compare", *[str(tmp_path / "a.pt")] * 2]) == 0
    assert "0 cannot be shown, ConvTranspose2d" in capsys.readouterr().out.replace("\n", " ")

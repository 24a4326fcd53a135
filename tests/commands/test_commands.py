"""``kernelviz show`` and ``kernelviz compare`` as a user calls them, on real files."""

import csv
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import STEPS, TinyNet, logged_images
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from safetensors.torch import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from kernelviz_callback import KernelVizCallback, Snapshot, kernel_health, save_snapshot
from kernelviz_callback.cli import main
from kernelviz_callback.drawing.layer_pictures import kernel_picture, response_picture
from kernelviz_callback.model.convolutions import geometry_of
from kernelviz_callback.probe.probe import load_probe

EACH_STEP = {"every_n_train_steps": 1, "save_top_k": -1}


@pytest.fixture
def run(fit, tmp_path: Path) -> Path:
    """A run with snapshots and a checkpoint a step."""
    checkpoints = ModelCheckpoint(tmp_path / "run" / "version_0" / "checkpoints", **EACH_STEP)
    trainer = fit(KernelVizCallback(), checkpoints, enable_checkpointing=True)
    return Path(trainer.log_dir)


def test_show_draws_what_the_callback_logged(run: Path, tmp_path: Path, capsys) -> None:
    assert main(["show", str(run), "-o", str(tmp_path / "out.png")]) == 0
    assert f"step-{STEPS:08d}" in capsys.readouterr().out
    logged = logged_images(run)
    kernels = np.asarray(Image.open(tmp_path / "out-kernels.png"))
    assert np.array_equal(kernels, logged["kernels/conv"][STEPS])
    responses = np.asarray(Image.open(tmp_path / "out-responses.png")).astype(int)
    assert responses.shape == logged["responses/conv"][STEPS].shape
    assert np.abs(responses - logged["responses/conv"][STEPS]).mean() < 6  # JPEG


def test_show_draws_a_checkpoint_like_the_snapshot_of_its_step(run: Path, tmp_path: Path) -> None:
    checkpoint = next((run / "checkpoints").glob(f"*step={STEPS}.ckpt"))
    snapshot = run / "kernelviz" / f"step-{STEPS:08d}.safetensors"
    for name, file in (("a", checkpoint), ("b", snapshot)):
        assert main(["show", str(file), "-o", str(tmp_path / f"{name}.png")]) == 0
    tiles = [np.asarray(Image.open(tmp_path / f"{n}-responses.png")) for n in "ab"]
    assert np.array_equal(tiles[0], tiles[1])


@pytest.mark.parametrize("conv", [nn.Conv1d(1, 8, 31), nn.Conv3d(3, 8, (2, 5, 5), dilation=2)])
@pytest.mark.parametrize("kind", ["state dict", "safetensors", "snapshot"])
def test_show_draws_other_dimensions_as_the_callback_does(
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
    told = {"layer": "net.conv", "when": "step 3 · epoch 0" if kind == "snapshot" else ""}
    plain = replace(geometry, dilation=(1,) * len(geometry.dilation))  # no other file tells it
    responses = response_picture(
        conv.weight.detach(), geometry if kind == "snapshot" else plain, load_probe(None), **told
    )
    drawn = np.asarray(Image.open(tmp_path / "out-responses.png"))
    assert np.array_equal(drawn, responses.pixels.numpy())
    health = None if kind == "snapshot" else kernel_health(conv.weight)
    kernels = kernel_picture(conv.weight.detach(), health=health, **told)
    drawn = np.asarray(Image.open(tmp_path / "out-kernels.png"))
    assert np.array_equal(drawn, kernels.pixels.numpy())


@pytest.mark.parametrize("suffix", ["svg", "pdf"])
def test_show_writes_vectors_without_loss(run: Path, tmp_path: Path, suffix: str) -> None:
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


def test_show_needs_a_screen_or_a_name(run: Path, monkeypatch, capsys) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert main(["show", str(run)]) == 2
    assert "-o NAME.png" in capsys.readouterr().err


def test_the_probe_and_the_layer_are_the_users(run: Path, tmp_path: Path, capsys) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(np.full((40, 60, 3), 200, np.uint8)).save(photo)
    out = ["-o", str(tmp_path / "out.png")]
    assert main(["show", str(run), "--probe", str(photo), "--layer", "conv", *out]) == 0
    assert main(["show", str(run), "--layer", "head"]) == 2
    error = capsys.readouterr().err
    assert "'head'" in error
    assert "conv: 8x3x5x5" in error


def test_list_tells_the_layers_and_shapes(run: Path, capsys) -> None:
    assert main(["show", "torchvision:resnet18", "--list"]) == 0
    assert "layer1.0.conv1: 64x64x3x3" in capsys.readouterr().out
    checkpoint = next((run / "checkpoints").glob("*step=3.ckpt"))
    assert main(["compare", str(checkpoint), str(run / "kernelviz"), "--list"]) == 0
    assert capsys.readouterr().out.count("conv: 8x3x5x5") == 6


def test_compare_reads_all_kinds_together(run: Path, tmp_path: Path, capsys) -> None:
    plain = tmp_path / "plain.pt"
    torch.save(TinyNet().conv.state_dict(), plain)
    first = run / "kernelviz" / "step-00000000.safetensors"
    names = [str(first), str(run / "checkpoints" / "*step=8.ckpt"), str(plain)]
    assert main(["compare", *names, "--match", "weights"]) == 0
    out = capsys.readouterr().out
    assert out.count("epoch=1-step=8") >= 1
    assert "plain" in out


def test_compare_writes_every_kind_of_file(run: Path, tmp_path: Path, capsys) -> None:
    outputs = [tmp_path / f"compare.{s}" for s in ("png", "html", "json", "csv", "svg", "pdf")]
    options = [o for path in outputs for o in ("-o", str(path))]
    events = tmp_path / "events"
    assert main(["compare", str(run), *options, "--tensorboard", str(events)]) == 0
    printed = capsys.readouterr().out
    for path in outputs:
        assert path.stat().st_size > 1000
        assert str(path) in printed.replace("\n", "")
    numbers = json.loads((tmp_path / "compare.json").read_text())
    with (tmp_path / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    last = numbers["checkpoints"][-1]
    assert float(rows[-1]["change_from_first"]) == last["filters"][-1]["change_from_first"]
    assert [c["step"] for c in numbers["checkpoints"]] == [0, 1, 2, 4, 8]
    logged = EventAccumulator(str(events), size_guidance={"images": 0})
    logged.Reload()
    drift = {e.step: e.value for e in logged.Scalars("compare/conv/drift")}
    assert drift[8] == pytest.approx(last["numbers"]["drift"], rel=1e-6)
    assert list(logged_images(events)["kernels/conv"]) == [0, 1, 2, 4, 8]
    assert list(logged_images(events)["compare/conv"]) == [8]


def test_conditions_decide_the_exit_status(run: Path, capsys) -> None:
    assert main(["compare", str(run), "--fail-if", "drift>1000"]) == 0
    assert main(["compare", str(run), "--fail-if", "drift>1000", "--fail-if", "drift>0"]) == 1
    assert "drift>0 holds for 4 of 4" in capsys.readouterr().err
    different = ["compare", str(run), "torchvision:resnet18"]
    assert main([*different, "--fail-if", "drift>1000"]) == 2
    assert "cannot be checked" in capsys.readouterr().err
    assert main([*different, "--fail-if", "drift>0"]) == 1


def test_outputs_that_cannot_be_written_are_refused_before_the_work(
    run: Path, tmp_path: Path, capsys
) -> None:
    out = str(tmp_path / "missing" / "o.html")
    assert main(["compare", str(run), "-o", out]) == 2
    told = capsys.readouterr()
    assert "missing does not exist" in told.err
    assert "drift" not in told.out
    assert main(["compare", str(run), "--responses", "-o", str(tmp_path / "o.csv")]) == 2
    assert "--responses is for a picture" in capsys.readouterr().err
    (tmp_path / "o.png").mkdir()
    outputs = ["-o", str(tmp_path / "o.png"), "-o", str(tmp_path / "o.json")]
    assert main(["compare", str(run), *outputs]) == 2
    assert (tmp_path / "o.json").exists()


def test_names_with_brackets_are_shown_as_they_are(tmp_path: Path, capsys) -> None:
    names = [tmp_path / f"net[{n}].pt" for n in ("a", "b")]
    for name in names:
        torch.save(TinyNet().conv.state_dict(), name)
    assert main(["compare", *map(str, names), "--match", "index"]) == 0
    out = capsys.readouterr().out
    assert "net[a]" in out
    assert "net[b]" in out


def test_checkpoints_stand_in_the_order_of_their_steps(tmp_path: Path, capsys) -> None:
    steps = {"val_loss=0.5": 100, "val_loss=0.4": 900, "val_loss=0.45": 500, "last": 900}
    for name, step in steps.items():
        content = {"state_dict": TinyNet().state_dict(), "global_step": step}
        torch.save(content, tmp_path / f"{name}.ckpt")
    out = tmp_path / "o.json"
    assert main(["compare", str(tmp_path), "-o", str(out), "--match", "index"]) == 0
    listed = [c["step"] for c in json.loads(out.read_text())["checkpoints"]]
    assert listed == [100, 500, 900, 900]


def test_what_cannot_be_read_is_named_and_the_rest_compared(
    run: Path, tmp_path: Path, capsys
) -> None:
    bad = tmp_path / "bad.ckpt"
    bad.write_bytes(b"PK\x03\x04 nonsense")
    assert main(["compare", str(run), str(bad), str(tmp_path / "missing.pt")]) == 2
    told = capsys.readouterr()
    assert "step-00000008" in told.out
    errors = told.err.splitlines()
    assert any(str(bad) in line for line in errors)
    assert any("missing.pt: the file or folder does not exist" in line for line in errors)
    assert main(["compare", str(bad), str(run / "kernelviz" / "step-00000000.safetensors")]) == 2
    assert "found 1" in capsys.readouterr().err


def test_pretrained_networks_of_a_package_are_compared(tmp_path: Path, capsys) -> None:
    package = find_spec("facenet_pytorch")
    assert package is not None
    data = Path(package.origin).parent / "data"
    names = [str(data / f"{net}.pt") for net in ("pnet", "rnet", "onet")]
    assert main(["compare", *names, "-o", str(tmp_path / "c.png")]) == 0
    assert "10 filters 3x3x3" in capsys.readouterr().out


def test_usage_errors_and_help_load_no_torch() -> None:
    code = """
import sys
from kernelviz_callback.cli import main
for arguments in (["--help"], ["compare", "--help"], ["compare", "a", "--fail-if", "x"],
                  ["show", "a", "-o", "a.doc"], ["evolve", "a", "-o", "a.csv"], []):
    try:
        main(arguments)
    except SystemExit as end:
        assert end.code in (0, 2), end.code
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "lightning", "rich"} & set(done.stdout.splitlines()[-1].split())
    assert "expected a name ending in .png" in done.stderr


@pytest.mark.parametrize("command", ["show", "compare", "evolve"])
def test_no_command_but_the_demo_loads_lightning(run: Path, tmp_path: Path, command: str) -> None:
    arguments = [command, str(run), "-o", str(tmp_path / "out.png")]
    code = (
        f"import sys; from kernelviz_callback.cli import main; status = main({arguments!r});"
        "print(status, 'lightning' in sys.modules, 'pytorch_lightning' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False False"

"""Every example and every configuration runs, and writes what the README says."""

import inspect
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import logged_images
from forked import run_python
from PIL import Image
from torchvision.models import resnet50

from kernelviz_callback import KernelVizCallback, kernel_grid, list_snapshots, load_snapshot

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.processes
SHOWN = ("kernels", "responses", "film", "evolution")


def run(*command: str, cwd: Path, code: int = 0) -> str:
    done = run_python(str(ROOT / command[0]), *command[1:], cwd=cwd)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_five_lines(tmp_path: Path, monkeypatch) -> None:
    """Run it in this process, with Lightning's option for short epochs."""
    import lightning.pytorch

    class Short(lightning.pytorch.Trainer):
        def __init__(self, **options) -> None:
            super().__init__(**options, limit_train_batches=2, default_root_dir=tmp_path)

    monkeypatch.setattr(lightning.pytorch, "Trainer", Short)
    runpy.run_path(str(ROOT / "examples" / "five_lines.py"))
    (log_dir,) = (tmp_path / "lightning_logs").iterdir()
    assert list(logged_images(log_dir)["kernels/conv1"]) == [0, 1, 2, 4]


def test_train_photos_can_be_resumed(tmp_path: Path) -> None:
    short = ["--epochs", "4", "--batches", "2", "--layers", "conv1", "rest.3"]
    run("examples/train_photos.py", *short, cwd=tmp_path)
    runs = tmp_path / "runs" / "train_photos"
    halfway = runs / "version_0" / "checkpoints" / "epoch=1-step=4.ckpt"
    run("examples/train_photos.py", *short, "--resume", str(halfway), cwd=tmp_path)
    assert list(list_snapshots(runs / "version_0" / "kernelviz")) == [0, 1, 2, 4, 8]
    assert list(list_snapshots(runs / "version_1" / "kernelviz")) == [4, 8]
    images = logged_images(runs / "version_0")
    assert set(images) == {
        "probe",
        *(f"{kind}/{name}" for kind in SHOWN for name in ("conv1", "rest.3")),
    }


def test_train_photos_can_be_trained_further(tmp_path: Path) -> None:
    run("examples/train_photos.py", "--epochs", "2", "--batches", "2", cwd=tmp_path)
    runs = tmp_path / "runs" / "train_photos"
    last = runs / "version_0" / "checkpoints" / "epoch=1-step=4.ckpt"
    more = ["--epochs", "4", "--batches", "2", "--resume", str(last)]
    run("examples/train_photos.py", *more, cwd=tmp_path)
    assert list(list_snapshots(runs / "version_1" / "kernelviz")) == [4, 8]
    state = torch.load(
        runs / "version_1" / "checkpoints" / "epoch=3-step=8.ckpt", weights_only=False
    )
    [schedule] = state["lr_schedulers"]
    assert schedule["total_steps"] == 8
    assert schedule["last_epoch"] == 8


def test_sound(tmp_path: Path) -> None:
    told = run("examples/sound.py", "--epochs", "1", cwd=tmp_path)
    assert "The bank is in runs/sound/version_0" in told
    assert "could not" not in told
    images = logged_images(tmp_path / "runs" / "sound" / "version_0")
    assert set(images) == {f"{kind}/bank" for kind in SHOWN}
    assert list(images["kernels/bank"]) == [0, 1, 2, 4, 8, 16, 32, 64]


def test_sick_runs(tmp_path: Path) -> None:
    told = run("examples/sick_runs.py", "--epochs", "1", "--batches", "4", cwd=tmp_path)
    assert told.count("KernelHealth of conv1: 64 filters 3x7x7") == 4
    sheet = np.asarray(Image.open(tmp_path / "runs" / "sick-runs.png"))
    names = ("healthy", "learning-rate-too-high", "no-weight-decay", "dead-initialization")
    for i, name in enumerate(names):
        grid = np.asarray(Image.open(tmp_path / "runs" / f"{name}-kernels.png"))
        assert grid.std() > 20
        half, across = (len(sheet) + 8) // 2 * (i // 2), (sheet.shape[1] + 8) // 2 * (i % 2)
        placed = sheet[half : half + len(grid), across : across + grid.shape[1]]
        assert np.array_equal(placed, grid)
        assert (tmp_path / "runs" / f"{name}-health.png").exists()


def test_resnet50_draws_the_weights_of_a_file(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = resnet50()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    told = run("examples/resnet50.py", "--weights", "weights.pth", "--device", "cpu", cwd=tmp_path)
    assert "convolved and drawn in" in told
    folder = tmp_path / "runs" / "resnet50"
    expected = kernel_grid(network.conv1.weight.detach())
    grid = expected.pixels[expected.layout.top :].numpy()
    assert np.array_equal(np.asarray(Image.open(folder / "kernels.png"))[-len(grid) :], grid)
    assert np.asarray(Image.open(folder / "responses.png")).std() > 20


def test_resnet50_names_the_problem_with_a_file(tmp_path: Path) -> None:
    (tmp_path / "no.pth").write_text("no weights")
    told = run("examples/resnet50.py", "--weights", "no.pth", cwd=tmp_path, code=1)
    assert "no.pth holds no state dict of ResNet-50" in told
    assert "Traceback" not in told
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    told = run("examples/resnet50.py", "--weights", "other.pth", cwd=tmp_path, code=1)
    assert "other.pth holds no state dict of ResNet-50" in told


def test_a_plain_loop(tmp_path: Path) -> None:
    run("examples/plain_loop.py", cwd=tmp_path)
    log_dir = tmp_path / "runs" / "plain"
    steps = list(range(0, 201, 20))
    assert list(logged_images(log_dir)["kernels/0"]) == steps
    snapshots = list_snapshots(log_dir / "kernelviz")
    assert list(snapshots) == steps
    kernels = load_snapshot(snapshots[200]).weights["0"][:, 0]
    along_rows, along_columns = kernels.mean(2).std(1), kernels.mean(1).std(1)
    is_horizontal = along_rows > along_columns
    assert 0 < is_horizontal.sum() < len(kernels), (
        "some filters respond to horizontal stripes, others to vertical ones"
    )


def test_a_hugging_face_trainer(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    run("examples/hugging_face.py", cwd=tmp_path)
    log_dir = tmp_path / "runs" / "hugging_face"
    layer = "resnet.embedder.embedder.convolution"
    assert list(logged_images(log_dir)[f"kernels/{layer}"]) == [0, 5, 10, 15, 20]


LAYERS = {"several_layers": ["conv1", "rest.3"]}
HERE = {"cluster": ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.num_nodes=1"]}


@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_configuration_trains(config: Path, tmp_path: Path) -> None:
    told = run(
        "examples/lightning_cli.py",
        "fit",
        f"--config={config}",
        "--trainer.max_steps=3",
        "--data.batches_per_epoch=6",
        f"--trainer.default_root_dir={tmp_path}",
        *HERE.get(config.stem, []),
        cwd=tmp_path,
    )
    assert "could not" not in told
    (folder,) = tmp_path.rglob("kernelviz")
    snapshots = list_snapshots(folder)
    assert list(snapshots) == [0, 1, 2, 3]
    layers = LAYERS.get(config.stem, ["conv1"])
    assert list(load_snapshot(snapshots[3]).weights) == layers
    images = logged_images(folder.parent)
    for layer in layers:
        assert (
            list(images[f"kernels/{layer}"]) == list(images[f"responses/{layer}"]) == [0, 1, 2, 3]
        )


def test_the_options_are_explained_on_the_command_line(tmp_path: Path) -> None:
    told = run(
        "examples/lightning_cli.py",
        "fit",
        "--trainer.callbacks.help=kernelviz_callback.KernelVizCallback",
        cwd=tmp_path,
    )
    for option in inspect.signature(KernelVizCallback).parameters:
        assert f".{option}" in told
    assert "first image of the first batch" in " ".join(told.split())
    assert "known subclasses" not in told, "a configuration file cannot hold tensors or images"


def test_the_configuration_is_printed_with_every_option(tmp_path: Path) -> None:
    config = f"--config={ROOT / 'configs' / 'photos.yaml'}"
    told = run("examples/lightning_cli.py", "fit", config, "--print_config", cwd=tmp_path)
    printed = yaml.safe_load(told[told.index("seed_everything") :])
    (callback,) = printed["trainer"]["callbacks"]
    parameters = inspect.signature(KernelVizCallback).parameters
    assert callback["init_args"] == {name: p.default for name, p in parameters.items()}

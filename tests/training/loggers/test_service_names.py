"""Layers of any names stay different in each logging service. The real clients work offline."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import MLFlowLogger, WandbLogger
from test_services import NeptuneLogger
from torch import nn
from wandb_file import history

from kernelviz_callback import KernelWatcher, list_snapshots, load_snapshot
from kernelviz_callback.training.loggers.registry import destination_of

NAMES = (
    *("n" * 300, "n" * 299 + "m", "блок:1", "блок_1", "конв", "/stem/Conv", "stem/Conv", "stem"),
    *("Conv", "conv", "a b", "new\nline", "net~Conv", 'q"<>|?*%s{}'),
)


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        for name in NAMES:
            self.add_module(name, nn.Conv2d(1, 2, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sum(layer(x) for layer in self.children())


def record(logger: Any, folder: Path) -> list[float]:
    """Log two snapshots, and return the drifts of all layers as the last snapshot file has them."""
    net = Named()
    probe = torch.rand(1, 16, 16)
    with KernelWatcher(net, folder, layers="*", loggers=[logger], probe=probe) as watcher:
        watcher.snapshot(0)
        for number, weights in enumerate(net.parameters()):
            weights.data += 0.01 * (number + 1) * torch.rand(weights.shape)
        watcher.snapshot(1)
    health = load_snapshot(list_snapshots(folder / "kernelviz")[1]).health
    drifts = [each.totals.drift for each in health.values()]
    assert len(set(drifts)) == len(NAMES)
    return drifts


def assert_all_different(pictures: Iterable[str]) -> None:
    kernels = {name.casefold() for name in pictures if name.startswith("kernels")}
    assert len(kernels) == len(NAMES)


def assert_same_numbers(found: Iterable[float], expected: list[float]) -> None:
    np.testing.assert_allclose(sorted(found), sorted(expected), rtol=1e-5)


@pytest.fixture(autouse=True)
def _run_in_a_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    drifts = record(logger, tmp_path / "run")
    media = Path(logger.experiment.dir) / "media" / "images"
    logger.experiment.finish()
    rows = history(tmp_path)
    assert_all_different(tag for row in rows for tag in row)
    files = [str(path.relative_to(media)).casefold() for path in media.rglob("*.png")]
    assert len(set(files)) == len(files) >= 2 * len(NAMES)
    last = [row for row in rows if row["trainer/global_step"] == 1]
    numbers = [value for row in last for tag, value in row.items() if tag.endswith("/drift")]
    assert_same_numbers(numbers, drifts)
    wandb.teardown()


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")  # in MLflow
@pytest.mark.parametrize("store", ["sqlite", "files"])
def test_mlflow(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    where = f"sqlite:///{tmp_path}/mlflow.db" if store == "sqlite" else f"file:{tmp_path}/mlruns"
    logger = MLFlowLogger(tracking_uri=where, artifact_location=f"file:{tmp_path}/artifacts")
    drifts = record(logger, tmp_path / "run")
    client, run = logger.experiment, logger.run_id
    artifacts = [Path(each.path).name for each in client.list_artifacts(run, "images")]
    assert_all_different(name.partition("+")[0] for name in artifacts)
    assert all(name.isascii() for name in artifacts)
    metrics = client.get_run(run).data.metrics  # the last value of each
    assert_same_numbers([x for tag, x in metrics.items() if tag.endswith("/drift")], drifts)


def test_neptune(tmp_path: Path) -> None:
    pytest.importorskip("neptune")
    logger = NeptuneLogger()
    drifts = record(logger, tmp_path / "run")
    logger.experiment.stop()
    (path,) = (tmp_path / ".neptune").rglob("data-1.log")
    written = [json.loads(line)["obj"] for line in path.read_text().splitlines()]
    assert_all_different("/".join(w["path"]) for w in written if w["type"] == "LogImages")
    logged = [w for w in written if w["path"][-1] == "drift"]
    assert_same_numbers([v["value"] for w in logged for v in w["values"] if v["step"] == 1], drifts)


COMET = """
import json
from pathlib import Path
from lightning.pytorch.loggers import CometLogger
from test_service_names import record

logger = CometLogger(project="names")
drifts = record(logger, Path("run"))
logger.experiment.end()
print("drifts:", json.dumps(drifts))
"""


def test_comet(tmp_path: Path) -> None:
    """The program is a new process: Comet's client changes torch and others on import."""
    pytest.importorskip("comet_ml")
    here = Path(__file__).parent
    settings = {
        "COMET_API_KEY": "0" * 25,
        "COMET_START_ONLINE": "false",
        "COMET_OFFLINE_DIRECTORY": str(tmp_path / "comet"),
        "COMET_INTERNAL_SENTRY_DSN": "",
        "PYTHONPATH": os.pathsep.join(map(str, (here, here.parents[1], here.parents[2]))),
    }
    command = [sys.executable, "-c", COMET]
    done = subprocess.run(
        command, env=os.environ | settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "could not" not in done.stderr
    (path,) = (tmp_path / "comet").glob("*.zip")
    with zipfile.ZipFile(path) as archive:
        lines = archive.read("messages.json").decode().splitlines()
    payloads = [json.loads(line)["payload"] for line in lines]
    uploads = [p for p in payloads if p.get("upload_type") == "visualization"]
    assert_all_different(u["additional_params"]["figName"] for u in uploads)
    metrics = [p["metric"] for p in payloads if "metric" in p]
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("drifts:"))
    logged = [m for m in metrics if m["metricName"].endswith("/drift") and m["step"] == 1]
    assert_same_numbers(
        [float(m["metricValue"]) for m in logged], json.loads(line.removeprefix("drifts:"))
    )


class TagCleaner:
    """A writer such as that of tensorboardX: it replaces characters in tags and shortens none."""

    def __init__(self) -> None:
        self.tags: list[str] = []

    def add_image(self, tag: str, pixels: np.ndarray, step: int, dataformats: str) -> None:
        kept = "".join(c if c.isalnum() or c in "-/_." else "_" for c in tag).lstrip("/")
        self.tags.append(kept)


def test_a_writer_that_replaces_characters_in_tags(tmp_path: Path) -> None:
    writer = TagCleaner()
    assert destination_of(writer) is not None
    record(writer, tmp_path / "run")
    assert_all_different(writer.tags)
    assert len(set(writer.tags) & {"kernels/stem", "kernels/блок_1"}) == 2, "these stay as they are"


def test_files(tmp_path: Path) -> None:
    with KernelWatcher(Named(), tmp_path, layers="*", loggers=[]) as watcher:
        watcher.snapshot(0)
        watcher.snapshot(1)
    files = [path.name.casefold() for path in (tmp_path / "kernelviz").iterdir()]
    assert len(set(files)) == len(files)
    kernels = [name for name in files if name.startswith("kernels-") and "step-00000001" in name]
    assert len(kernels) == len(NAMES)

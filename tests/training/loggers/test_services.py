"""Pictures and numbers in Weights & Biases, MLflow, Comet and Neptune, with their real clients."""

import base64
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import DEFAULT_STEPS, logged_images
from lightning.pytorch.loggers import (
    CSVLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)
from PIL import Image
from wandb_file import history

from kernelviz_callback import KernelVizCallback

STEP = "trainer/global_step"
PICTURES = ("kernels/conv", "responses/conv")


@pytest.fixture(autouse=True)
def _run_in_a_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def same_pixels(found: bytes | Path, expected: np.ndarray) -> bool:
    file = io.BytesIO(found) if isinstance(found, bytes) else found
    return np.array_equal(np.asarray(Image.open(file)), expected)


# --- Weights & Biases ---------------------------------------------------------------------------


@pytest.fixture
def wandb_logger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("wandb")
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    yield WandbLogger(save_dir=tmp_path, offline=True)
    wandb.teardown()


def test_wandb_gets_every_picture_and_number(fit, wandb_logger: Any, tmp_path: Path) -> None:
    board = TensorBoardLogger(tmp_path / "board")
    fit(KernelVizCallback(every_n_train_steps=1), logger=[wandb_logger, board])
    files = Path(wandb_logger.experiment.dir)
    wandb_logger.experiment.finish()
    rows = history(tmp_path)
    assert [row["_step"] for row in rows] == list(range(len(rows))), "no row may be dropped"
    images = logged_images(board.log_dir)
    for tag in PICTURES:
        pictured = {row[STEP]: row[tag] for row in rows if tag in row}
        assert list(pictured) == list(images[tag]) == list(range(9))
        for step, found in pictured.items():
            assert same_pixels(files / found["path"], images[tag][step])
    drifts = {row[STEP] for row in rows if "kernelviz/conv/drift" in row}
    assert drifts == set(range(9))
    evolution = [row["evolution/conv"] for row in rows if "evolution/conv" in row]
    assert len(evolution) == 1
    assert (files / evolution[0]["path"]).read_bytes()[:6] == b"GIF89a"


# --- MLflow -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")  # in MLflow
@pytest.mark.parametrize("store", ["sqlite", "files"])
def test_mlflow_gets_every_picture_and_number(
    fit, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    where = f"sqlite:///{tmp_path}/mlflow.db" if store == "sqlite" else f"file:{tmp_path}/mlruns"
    logger = MLFlowLogger(tracking_uri=where, artifact_location=f"file:{tmp_path}/artifacts")
    board = TensorBoardLogger(tmp_path / "board")
    fit(KernelVizCallback(), logger=[logger, board])
    client, run = logger.experiment, logger.run_id
    images = logged_images(board.log_dir)
    paths = [artifact.path for artifact in client.list_artifacts(run, "images")]
    for tag in PICTURES:
        name = re.escape(tag.replace("/", "~"))
        pattern = re.compile(rf"images/{name}\+step\+(\d+)\+timestamp\+\d+\+[\w-]+\.png")
        steps = {int(m[1]): p for p in paths if (m := pattern.fullmatch(p))}
        assert sorted(steps) == DEFAULT_STEPS
        for step, path in steps.items():
            thumbnail = path.replace(".png", "+compressed.webp")
            for file in (path, thumbnail):
                fetched = client.download_artifacts(run, file, str(tmp_path))
                assert same_pixels(Path(fetched), images[tag][step])
    drifts = client.get_metric_history(run, "kernelviz/conv/drift")
    assert [metric.step for metric in drifts] == DEFAULT_STEPS
    assert client.get_run(run).data.tags["mlflow.loggedImages"] == "True"


# --- Comet --------------------------------------------------------------------------------------


COMET = """
import sys
from pathlib import Path
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CometLogger, TensorBoardLogger
from conftest import TinyNet
from kernelviz_callback import KernelVizCallback

logger = CometLogger(project="kernels")
board = TensorBoardLogger("board")
Trainer(max_epochs=2, accelerator="cpu", logger=[logger, board], callbacks=[KernelVizCallback()],
    enable_checkpointing=False).fit(TinyNet())
logger.experiment.end()
"""


def test_comet_gets_every_picture_and_number(tmp_path: Path) -> None:
    """The training runs in a new process: Comet's client changes torch and others on import."""
    pytest.importorskip("comet_ml")
    settings = {
        "COMET_API_KEY": "0" * 25,
        "COMET_START_ONLINE": "false",
        "COMET_OFFLINE_DIRECTORY": str(tmp_path / "comet"),
        "COMET_INTERNAL_SENTRY_DSN": "",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = [sys.executable, "-c", COMET]
    done = subprocess.run(
        command, env=os.environ | settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "could not" not in done.stderr
    images = logged_images(next((tmp_path / "board").rglob("version_0")))
    (path,) = (tmp_path / "comet").glob("*.zip")
    with zipfile.ZipFile(path) as archive:
        lines = archive.read("messages.json").decode().splitlines()
        payloads = [json.loads(line)["payload"] for line in lines]
        uploads = [p for p in payloads if p.get("upload_type") == "visualization"]
        for tag in PICTURES:
            found = {
                u["additional_params"]["step"]: u["file_path"]
                for u in uploads
                if u["additional_params"]["figName"] == tag
            }
            assert sorted(found) == DEFAULT_STEPS
            for step, name in found.items():
                assert same_pixels(archive.read(Path(name).name), images[tag][step])
    metrics = [p["metric"] for p in payloads if "metric" in p]
    steps = [m["step"] for m in metrics if m["metricName"] == "kernelviz/conv/drift"]
    assert steps == DEFAULT_STEPS


# --- Neptune ------------------------------------------------------------------------------------


class NeptuneLogger(Logger):
    """A copy of Lightning's logger, which later versions lack, with the parts pictures need."""

    def __init__(self) -> None:
        import neptune

        super().__init__()
        self.experiment = neptune.init_run(
            mode="offline",
            capture_stdout=False,
            capture_stderr=False,
            capture_hardware_metrics=False,
            source_files=[],
        )

    name = version = None

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        for key, value in metrics.items():
            self.experiment[key].append(value, step=step)


def test_neptune_gets_every_picture_and_number(fit, tmp_path: Path) -> None:
    pytest.importorskip("neptune")
    logger = NeptuneLogger()
    board = TensorBoardLogger(tmp_path / "board")
    fit(KernelVizCallback(), logger=[logger, board])
    logger.experiment.stop()
    (path,) = (tmp_path / ".neptune").rglob("data-1.log")
    written = [json.loads(line)["obj"] for line in path.read_text().splitlines()]
    images = logged_images(board.log_dir)
    for tag in PICTURES:
        logs = [w for w in written if w["type"] == "LogImages" and w["path"] == tag.split("/")]
        pictured = {v["step"]: v["value"]["data"] for log in logs for v in log["values"]}
        assert list(pictured) == DEFAULT_STEPS
        for step, data in pictured.items():
            assert same_pixels(base64.b64decode(data), images[tag][step])
    drifts = [w for w in written if w["path"] == ["kernelviz", "conv", "drift"]]
    assert [v["step"] for log in drifts for v in log["values"]] == DEFAULT_STEPS


# --- no logger for pictures ---------------------------------------------------------------------


def test_without_a_logger_for_pictures_they_are_written_to_files(fit, tmp_path: Path) -> None:
    trainer = fit(KernelVizCallback(), logger=CSVLogger(tmp_path, name="csv"))
    folder = Path(trainer.log_dir) / "kernelviz"
    names = {path.name for path in folder.glob("*.png")}
    assert {f"kernels-conv-step-{step:08d}.png" for step in DEFAULT_STEPS} <= names

"""Training under both names of Lightning, with and without the other package installed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import logged_images

OTHER = {"lightning.pytorch": "pytorch_lightning", "pytorch_lightning": "lightning"}


def train(name: str, log_dir: Path, *absent: str) -> dict[str, Any]:
    script = Path(__file__).parents[1] / "namespaced.py"
    command = [sys.executable, "-W", "ignore", str(script), name, str(log_dir), *absent]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "could not" not in done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.processes
@pytest.mark.parametrize("name", OTHER)
@pytest.mark.parametrize("is_alone", [True, False])
def test_a_training_under_either_name(name: str, is_alone: bool, tmp_path: Path) -> None:
    found = train(name, tmp_path, *([OTHER[name]] if is_alone else []))
    assert found["steps"] == [0, 1, 2, 4], "the resumed training uses the same folder"
    assert found["is_callback"]
    assert found["loaded"] == [name], "the other package is not imported"
    assert "kernelviz/conv/drift" in found["metrics"]
    images = logged_images(tmp_path / "board" / "version_0")
    assert list(images["kernels/conv"]) == [0, 1, 2, 4]
    header = (tmp_path / "csv" / "version_2" / "metrics.csv").read_text().splitlines()[0]
    assert "kernelviz/conv/drift" in header

"""Training under both names of Lightning, with and without the other package installed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import logged_images
from forked import run_python

OTHER = {"lightning.pytorch": "pytorch_lightning", "pytorch_lightning": "lightning"}


@pytest.fixture(scope="module", params=OTHER)
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """Train under a name, with the other and without it: the name, and the folder of both."""
    folder = tmp_path_factory.mktemp("trained")
    script = Path(__file__).parents[1] / "namespaced.py"
    command = [str(script), request.param, str(folder), OTHER[request.param]]
    if request.param == "lightning.pytorch":
        done = run_python(*command)
    else:
        command = [sys.executable, "-W", "ignore", *command]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "could not" not in done.stderr
    return request.param, folder


@pytest.mark.processes
@pytest.mark.parametrize("other", ["alone", "together"])
def test_a_training_under_either_name(trained: tuple[str, Path], other: str) -> None:
    name, folder = trained[0], trained[1] / other
    found = json.loads((folder / "found.json").read_text())
    assert found["steps"] == [0, 1, 2, 4], "the resumed training uses the same folder"
    assert found["is_callback"]
    assert found["loaded"] == [name], "the other package is not imported"
    assert "kernelviz/conv/drift" in found["metrics"]
    images = logged_images(folder / "board" / "version_0")
    assert list(images["kernels/conv"]) == [0, 1, 2, 4]
    header = (folder / "csv" / "version_2" / "metrics.csv").read_text().splitlines()[0]
    assert "kernelviz/conv/drift" in header

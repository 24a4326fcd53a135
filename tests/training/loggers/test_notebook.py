"""The example notebooks run and show pictures, and a cell that trains shows the newest ones."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

NOTEBOOKS = sorted((Path(__file__).parents[3] / "examples").glob("*.ipynb"))
USUAL_DATA = "PhotoCrops(batches_per_epoch=60)"
LESS_DATA = "PhotoCrops(batch_size=8, batches_per_epoch=60)"

# Messages of Jupyter's kernel are not tested here.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def execute(notebook: Any, folder: Path) -> Any:
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, resources=resources).execute()
    return notebook


def example(name: str, folder: Path) -> Any:
    """Execute an example with the same number of steps, on smaller batches."""
    (path,) = (path for path in NOTEBOOKS if path.stem == name)
    notebook = nbformat.read(path, as_version=4)
    trained = [cell for cell in notebook.cells if USUAL_DATA in cell.source]
    assert trained
    for cell in trained:
        cell.source = cell.source.replace(USUAL_DATA, LESS_DATA)
    return execute(notebook, folder)


def decoded(base: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(base)))


def pictures(html: str) -> dict[str, Image.Image]:
    found = re.findall(
        r'<img alt="([^"]+)" title="[^"]+" src="data:image/\w+;base64,([^"]+)"', html
    )
    return {title: decoded(data) for title, data in found}


def shown(cell: Any, kind: str = "text/html") -> list[str]:
    return [o.data[kind] for o in cell.outputs if kind in o.get("data", {})]


def test_the_notebook_that_compares_checkpoints_shows_pictures(tmp_path: Path) -> None:
    notebook = example("compare", tmp_path)
    results = [
        (cell.source, output)
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "execute_result"
    ]
    found = [decoded(o.data["image/png"]) for _, o in results if "image/png" in o.data]
    assert len(found) == 3  # two pictures of strips and one chart
    assert all(min(picture.size) > 300 for picture in found)
    texts = {source.splitlines()[-1]: output.data["text/plain"] for source, output in results}
    assert "similar to the first one or to the one before it" in texts["evolution"]
    assert "random filters reach" in texts["two"]


def test_the_live_notebook_shows_the_training_snapshots_and_comparison(tmp_path: Path) -> None:
    _, training, _, snapshot, _, grid, _, comparison = example("live", tmp_path).cells
    (view,) = (html for html in shown(training) if "kernelviz: step" in html)
    live = pictures(view)
    assert list(live) == ["kernels/conv1", "responses/conv1", "film/conv1"]
    assert all(min(picture.size) > 300 for picture in live.values())
    (kernels,) = pictures(shown(snapshot)[0]).items()
    assert kernels[0] == "kernels of conv1, step 180 · epoch 2"
    assert kernels[1].tobytes() == live["kernels/conv1"].tobytes()
    assert min(decoded(shown(grid, "image/png")[0]).size) > 300
    compared = shown(comparison)[0]
    assert "similar to the first one or to the one before it" in compared
    assert list(pictures(compared)) == ["comparison"]


def test_the_cell_shows_the_newest_step_if_live_is_true(tmp_path: Path) -> None:
    code = """
from torch import nn
from kernelviz_callback import KernelWatcher
net = nn.Conv2d(3, 4, 5)
with KernelWatcher(net, "{live}", live={live}, loggers=[]) as watcher:
    for step in range(30):
        watcher.snapshot(step)
"""
    cells = [nbformat.v4.new_code_cell(code.format(live=live)) for live in (True, False)]
    notebook = execute(nbformat.v4.new_notebook(cells=cells), tmp_path)
    for live, cell in zip((True, False), notebook.cells, strict=True):
        views = [html for html in shown(cell) if "kernelviz: step" in html]
        assert ["step 29<" in view for view in views] == [True] * live
        folder = tmp_path / str(live) / "kernelviz"
        assert (folder / "kernels-Conv2d-step-00000029.png").exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_example_notebooks_are_stored_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert not [cell for cell in notebook.cells if cell.get("outputs")]

"""The notebook runs, and what it shows are pictures."""

import base64
import io
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

NOTEBOOK = Path(__file__).parent.parent / "examples" / "compare.ipynb"


# The kernel's own messages are of no concern here.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_notebook_runs_and_shows_its_pictures_inline(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, resources=resources).execute()
    shown = [
        (cell.source, output)
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "execute_result"
    ]
    pictures = [
        Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
        for _, output in shown
        if "image/png" in output.data
    ]
    assert len(pictures) == 3  # two of strips, one chart
    assert all(min(picture.size) > 300 for picture in pictures)
    texts = {source.splitlines()[-1]: output.data["text/plain"] for source, output in shown}
    assert "they are of one training" in texts["evolution"]
    assert "random filters reach" in texts["two"]


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not [cell for cell in notebook.cells if cell.get("outputs")]

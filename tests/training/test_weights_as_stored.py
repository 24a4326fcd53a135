"""Every picture of weights that the layer may not multiply with says that they are as stored."""

from pathlib import Path

import numpy as np
import pytest
from conftest import logged_images
from networks import Lit, Rectified
from PIL import Image

from kernelviz_callback import KernelVizCallback, list_snapshots, load_snapshot
from kernelviz_callback.checkpoints.checkpoint import open_checkpoint
from kernelviz_callback.cli import main
from kernelviz_callback.commands.history import LayerHistory
from kernelviz_callback.drawing.animation.caption import caption_lines
from kernelviz_callback.drawing.animation.sampling import read_sequences
from kernelviz_callback.drawing.animation.strip import film_strip
from kernelviz_callback.drawing.encode import EncodedImage
from kernelviz_callback.drawing.layer_pictures import kernel_picture
from kernelviz_callback.snapshots.event import pack_layer

REASON = "its output is not its input, convolved with one kernel"
TITLES = {"net.stem": "net.stem (weights as stored)", "net.deep": "net.deep"}


class Own(Lit):
    """Trains a layer whose weights cannot be measured, and a usual one."""

    def add_parts(self) -> None:
        super().add_parts()
        self.net.stem = Rectified(3, 8, 5)


@pytest.fixture
def trained(fit) -> Path:
    callback = KernelVizCallback("*", health=False)
    with pytest.warns(UserWarning, match="could not measure the weights that net.stem multiplies"):
        return Path(fit(callback, model=Own(), max_epochs=1).log_dir)


def test_pictures_of_the_training_and_of_its_files_say_it(trained: Path, tmp_path, capsys) -> None:
    logged, paths = logged_images(trained), list_snapshots(trained / "kernelviz")
    last = max(paths)
    for layer, title in TITLES.items():
        assert main(["show", str(paths[last]), "--layer", layer, "-o", f"{tmp_path}/o.png"]) == 0
        assert (
            f"{layer} is drawn with the weights that it stores: {REASON}" in capsys.readouterr().err
        ) == (layer != title)
        shown = np.asarray(Image.open(tmp_path / "o-kernels.png"))
        weights = load_snapshot(paths[last]).weights[layer]
        expected = kernel_picture(weights, layer=title, when=f"step {last} · epoch 0")
        assert np.array_equal(shown, expected.pixels.numpy())
        assert np.array_equal(logged[f"kernels/{layer}"][last], shown)


def test_films_say_it(trained: Path, tmp_path) -> None:
    logged, paths = logged_images(trained), list_snapshots(trained / "kernelviz")
    names = {step: str(path) for step, path in paths.items()}
    for layer, title in TITLES.items():
        history = LayerHistory(names, open_checkpoint(names[0]), layer)
        [sequence] = read_sequences(list(names), history.read).values()
        for kind in ("film", "evolution"):
            assert caption_lines(sequence, kind, 3)[0].startswith(f"{title} {kind} ·")
        expected = film_strip(sequence).pixels.numpy()
        assert np.array_equal(logged[f"film/{layer}"][max(paths)], expected)
        assert main(["evolve", *names.values(), "--layer", layer, "-o", f"{tmp_path}/o.png"]) == 0
        assert np.array_equal(np.asarray(Image.open(tmp_path / "o.png")), expected)


def test_a_report_says_it(trained: Path, tmp_path) -> None:
    count = len(list_snapshots(trained / "kernelviz"))
    for layer, title in TITLES.items():
        folder, page = str(trained / "kernelviz"), tmp_path / "report.html"
        assert main(["evolve", folder, "--layer", layer, "-o", str(page)]) == 0
        assert page.read_text().count('"stored_only"') == (count if layer != title else 0)


def test_events_and_notebooks_say_it(trained: Path) -> None:
    snapshot = load_snapshot(max(list_snapshots(trained / "kernelviz").values()))
    for layer, title in TITLES.items():
        assert pack_layer(snapshot, layer)[0].get("stored_only", False) == (layer != title)
    picture = kernel_picture(
        snapshot.weights["net.stem"], layer=TITLES["net.stem"], when="step 4 · epoch 0"
    )
    html = EncodedImage.png(picture.pixels).to_html("kernels of net.stem, step 4 · epoch 0")
    assert html in snapshot._repr_html_()

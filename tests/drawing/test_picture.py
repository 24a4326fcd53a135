"""The layout of a picture, and the files it is saved to."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from PIL import Image
from torch import Tensor

from kernelviz_callback import kernel_grid
from kernelviz_callback.drawing.picture import Layout, Picture


@given(st.integers(1, 300), st.integers(1, 20), st.integers(1, 9), st.integers(1, 9))
def test_tiles_never_overlap(filters: int, columns: int, height: int, width: int) -> None:
    layout = Layout(filters, columns, height, width, left=3, top=5)
    canvas = torch.zeros(layout.height, layout.width, dtype=torch.int)
    for i in range(filters):
        canvas[layout.box(i)] += 1
    assert canvas.max() == 1
    assert canvas.sum() == filters * height * width


def test_a_box_can_include_a_margin() -> None:
    layout = Layout(filters=4, columns=2, tile_height=5, tile_width=7, left=10, top=20)
    rows, columns = layout.box(3, margin=2)
    assert (rows, columns) == (slice(25, 34), slice(17, 28))
    assert (layout.rows, layout.height, layout.width) == (2, 34, 28)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_saved_picture_opens(tmp_path, suffix: str, gabor: Tensor) -> None:
    picture = kernel_grid(gabor)
    picture.save(tmp_path / f"grid{suffix}")
    read = torch.from_numpy(np.array(Image.open(tmp_path / f"grid{suffix}")))
    error = (read.int() - picture.pixels.int()).abs().float()
    assert error.max() == 0 if suffix == ".png" else error.mean() < 3


@pytest.mark.parametrize(("suffix", "start"), [(".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_a_vector_file_is_the_same_for_the_same_picture(
    tmp_path: Path, suffix: str, start: bytes, gabor: Tensor
) -> None:
    picture = kernel_grid(gabor)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        picture.save(tmp_path / folder / f"grid{suffix}")
    one, two = ((tmp_path / folder / f"grid{suffix}").read_bytes() for folder in ("one", "two"))
    assert one == two
    assert one.startswith(start)


def test_an_unknown_suffix_is_an_error(tmp_path: Path, gabor: Tensor) -> None:
    with pytest.raises(ValueError, match="unknown file extension"):
        kernel_grid(gabor).save(tmp_path / "grid.xyz")


def test_a_notebook_shows_the_pixels(gabor: Tensor) -> None:
    picture = kernel_grid(gabor)
    with Image.open(io.BytesIO(picture._repr_png_())) as image:
        assert np.array_equal(np.asarray(image), picture.pixels.numpy())


def test_a_picture_is_not_shown_without_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    pixels = torch.zeros(2, 2, 3, dtype=torch.uint8)
    assert not Picture(pixels, Layout(1, 1, 2, 2), torch.ones(1)).show()

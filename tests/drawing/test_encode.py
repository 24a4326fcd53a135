"""Encoding: without loss, or with little."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from kernelviz_callback.drawing.encode import to_png


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (40, 33)])
@pytest.mark.parametrize("zoom", [1, 4])
def test_a_png_loses_nothing(size: tuple[int, int], zoom: int) -> None:
    pixels = torch.randint(0, 256, (*size, 3), dtype=torch.uint8)
    pixels = pixels.repeat_interleave(zoom, 0).repeat_interleave(zoom, 1)
    with Image.open(io.BytesIO(to_png(pixels))) as image:
        image.verify()
    with Image.open(io.BytesIO(to_png(pixels))) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        assert np.array_equal(np.asarray(image), pixels.numpy())


def test_a_transposed_picture_is_encoded_as_it_looks() -> None:
    pixels = torch.randint(0, 256, (6, 4, 3), dtype=torch.uint8).transpose(0, 1)
    with Image.open(io.BytesIO(to_png(pixels))) as image:
        assert np.array_equal(np.asarray(image), pixels.numpy())


def test_enlarged_pixels_cost_little() -> None:
    pixels = torch.randint(0, 256, (56, 56, 3), dtype=torch.uint8)
    enlarged = pixels.repeat_interleave(8, 0).repeat_interleave(8, 1)
    assert len(to_png(enlarged)) < 2.5 * pixels.numel()

"""Encoding of PNG without loss and of JPEG with little loss."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from kernelviz_callback.drawing.encode import EncodedImage, to_jpeg, to_png


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (40, 33)])
@pytest.mark.parametrize("zoom", [1, 4])
def test_a_png_has_the_same_pixels(size: tuple[int, int], zoom: int) -> None:
    pixels = torch.randint(0, 256, (*size, 3), dtype=torch.uint8)
    pixels = pixels.repeat_interleave(zoom, 0).repeat_interleave(zoom, 1)
    with Image.open(io.BytesIO(to_png(pixels))) as image:
        image.verify()
    with Image.open(io.BytesIO(to_png(pixels))) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        assert np.array_equal(np.asarray(image), pixels.numpy())


def test_pixels_that_are_not_contiguous_are_encoded_in_their_order() -> None:
    pixels = torch.randint(0, 256, (6, 4, 3), dtype=torch.uint8).transpose(0, 1)
    with Image.open(io.BytesIO(to_png(pixels))) as image:
        assert np.array_equal(np.asarray(image), pixels.numpy())


def test_enlarged_pixels_add_few_bytes() -> None:
    pixels = torch.randint(0, 256, (56, 56, 3), dtype=torch.uint8)
    enlarged = pixels.repeat_interleave(8, 0).repeat_interleave(8, 1)
    assert len(to_png(enlarged)) < 2.5 * pixels.numel()


def test_a_jpeg_is_close_to_the_pixels() -> None:
    ramp = torch.arange(0, 256, 2, dtype=torch.uint8)
    pixels = torch.stack(
        [ramp[:, None].expand(128, 128), ramp.expand(128, 128), ramp.flip(0).expand(128, 128)], 2
    )
    with Image.open(io.BytesIO(to_jpeg(pixels))) as image:
        assert (image.format, image.size) == ("JPEG", (128, 128))
        error = np.asarray(image).astype(int) - pixels.numpy().astype(int)
    assert np.abs(error).mean() < 4


def test_an_encoded_image_has_its_size_and_suffix() -> None:
    pixels = torch.zeros(7, 11, 3, dtype=torch.uint8)
    for image, suffix in ((EncodedImage.png(pixels), ".png"), (EncodedImage.jpeg(pixels), ".jpg")):
        assert (image.height, image.width, image.suffix) == (7, 11, suffix)
        with Image.open(io.BytesIO(image.content)) as opened:
            assert opened.size == (11, 7)


def test_the_size_of_a_gif_is_read_from_its_header() -> None:
    file = io.BytesIO()
    Image.new("RGB", (300, 20)).save(file, "GIF")
    image = EncodedImage.gif(file.getvalue())
    assert (image.height, image.width, image.suffix) == (20, 300, ".gif")
    assert image.content == file.getvalue()


def test_an_image_element_holds_the_bytes_and_an_escaped_title() -> None:
    image = EncodedImage.png(torch.zeros(2, 2, 3, dtype=torch.uint8))
    element = image.to_html('a "title" <b>')
    assert base64.b64encode(image.content).decode() in element
    assert "data:image/png;base64," in element
    assert "<b>" not in element
    assert "&quot;title&quot;" in element

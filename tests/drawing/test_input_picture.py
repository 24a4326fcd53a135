"""The picture of what a layer reads: one scale, nothing hidden."""

import pytest
import torch

from kernelviz_callback.drawing.input_picture import input_picture


def test_one_scale_for_all_images_and_channels() -> None:
    images = torch.zeros(2, 3, 4, 4)
    images[0, 0] = 3
    images[1, 2] = -1
    picture = input_picture(images, title="what conv reads")
    first, second = picture.tile(0), picture.tile(1)
    assert first.reshape(-1, 3).unique(dim=0).tolist() == [[255, 64, 64]]
    assert second.reshape(-1, 3).unique(dim=0).tolist() == [[64, 64, 0]]
    assert first.shape == (224, 224, 3)


def test_other_numbers_of_channels_stand_side_by_side_in_grey() -> None:
    images = torch.arange(4.0).reshape(1, 4, 1, 1).expand(1, 4, 8, 8)
    tile = input_picture(images, title="bands").tile(0)
    zoom = tile.shape[0] // 8
    middles = tile[0, [(9 * i + 4) * zoom for i in range(4)]]
    assert middles.tolist() == [[level] * 3 for level in (0, 85, 170, 255)]
    grey = input_picture(images[:, :1], title="grey").tile(0)
    assert grey.shape == (224, 224, 3)


def test_values_that_are_not_finite_are_magenta() -> None:
    images = torch.rand(1, 3, 8, 8)
    images[0, 1, 2, 3] = torch.nan
    tile = input_picture(images, title="holes").tile(0)
    zoom = tile.shape[0] // 8
    assert tile[2 * zoom, 3 * zoom].tolist() == [255, 0, 255]
    assert (tile.reshape(-1, 3) == torch.tensor([255, 0, 255])).all(1).sum() == zoom**2


def test_large_images_and_clips_fit_the_screen() -> None:
    picture = input_picture(torch.rand(16, 3, 512, 512), title="large")
    assert picture.pixels.shape[1] < 1000
    clip = torch.rand(2, 3, 5, 8, 8)
    expected = input_picture(clip[:, :, 2], title="clip").pixels
    assert torch.equal(input_picture(clip, title="clip").pixels, expected)


def test_what_is_no_batch_of_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"found \(4, 2, 100\)"):
        input_picture(torch.zeros(4, 2, 100), title="signals")

"""Faults of the images that a layer reads: each one is named, and sound images have none."""

import pytest
import torch
from skimage import data
from sklearn.datasets import load_digits
from torch import Tensor

from kernelviz_callback.health.input_faults import channel_ranges, find_input_faults


@pytest.fixture(scope="module")
def photos() -> Tensor:
    """Return 12 crops of three photographs in [0, 1], shape (12, 3, 128, 128)."""
    every = [torch.from_numpy(getattr(data, name)()) for name in ("astronaut", "coffee", "rocket")]
    crops = [photo[y : y + 128, x : x + 128] for photo in every for y in (9, 250) for x in (9, 300)]
    return torch.stack(crops).permute(0, 3, 1, 2).float() / 255


def test_sound_images_have_no_fault(photos: Tensor) -> None:
    normal = (photos - photos.mean()) / photos.std()
    digits = torch.from_numpy(load_digits().images[:16]).float()[:, None] / 16
    bands = torch.cat([normal, normal[:, :2] * 0.3], dim=1)
    for images in (photos, normal, digits, bands, normal[:, :1], photos.half(), -normal):
        assert find_input_faults(images, has_norm=False) == []


def test_bytes_that_are_not_scaled(photos: Tensor) -> None:
    [fault] = find_input_faults((photos * 255).round(), has_norm=True)
    assert fault == "values from 0 to 255, as of images that are not scaled"
    assert find_input_faults(photos * 255 - 128, has_norm=True) == []
    assert find_input_faults(photos * 4095, has_norm=True) == []


def test_a_grey_image_that_is_repeated(photos: Tensor) -> None:
    grey = photos.mean(1, keepdim=True)
    assert find_input_faults(grey.expand(-1, 3, -1, -1), has_norm=True) == [
        "all 3 channels are equal"
    ]
    assert find_input_faults(grey, has_norm=True) == []


def test_channels_that_do_not_vary(photos: Tensor) -> None:
    images = photos.clone()
    images[:, 1] = 0.5
    assert find_input_faults(images, has_norm=True) == ["channel 1 has one value only"]
    images[:, 2] = 0
    assert find_input_faults(images, has_norm=True) == ["channels 1, 2 have one value only"]


def test_values_that_are_not_finite(photos: Tensor) -> None:
    images = photos.clone()
    images[0, 0, :64] = torch.nan
    images[1, 0, 0, 0] = torch.inf
    [fault] = find_input_faults(images, has_norm=True)
    share = (64 * 128 + 1) / images.numel()
    assert fault == f"{share:.2%} of the values are NaN or infinite"
    assert find_input_faults(images * torch.nan, has_norm=True) == [
        "all values are NaN or infinite"
    ]


def test_a_mean_far_from_zero_matters_without_a_norm(photos: Tensor) -> None:
    [fault] = find_input_faults(photos + 5, has_norm=False)
    assert fault.endswith("standard deviations from zero, and no norm follows")
    assert find_input_faults(photos + 5, has_norm=True) == []


def test_the_ranges_are_those_of_the_finite_values(photos: Tensor) -> None:
    images = photos.clone()
    images[0, 2, :3] = torch.nan
    found = channel_ranges(images)
    for channel in range(3):
        values = images[:, channel].flatten()
        values = values[values.isfinite()].double()
        assert found.low[channel] == values.min()
        assert found.high[channel] == values.max()
        assert found.mean[channel].item() == pytest.approx(values.mean().item())
        assert found.deviation[channel].item() == pytest.approx(values.std(correction=0).item())
    assert channel_ranges(images * torch.nan).mean.isnan().all()

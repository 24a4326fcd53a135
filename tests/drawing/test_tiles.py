"""Painting of tiles, held against a slow reference that paints pixel by pixel."""

import pytest
import torch
from torch import Tensor

from kernelviz_callback.drawing.caption_layout import BACKGROUND
from kernelviz_callback.drawing.colour import diverging, to_levels
from kernelviz_callback.drawing.tiles import paint_tiles


def painted_slowly(
    planes: Tensor, half_range: Tensor, is_rgb: bool, zoom: int, rule: int
) -> Tensor:
    """Paint one tile pixel by pixel: (C, H, W) to (3, H', W')."""
    levels = to_levels(planes, half_range)
    pictures = levels.reshape(-1, 3, *levels.shape[1:]) if is_rgb else diverging(levels)
    count, _, height, width = pictures.shape
    pitch = width * zoom + rule
    tile = torch.tensor(BACKGROUND, dtype=torch.uint8)[:, None, None].repeat(
        1, height * zoom, count * pitch - rule
    )
    for number in range(count):
        for row in range(height * zoom):
            for column in range(width * zoom):
                pixel = pictures[number, :, row // zoom, column // zoom]
                tile[:, row, number * pitch + column] = pixel
    return tile


@pytest.mark.parametrize(
    ("channels", "is_rgb"), [(1, False), (2, False), (3, False), (3, True), (6, True)]
)
@pytest.mark.parametrize(("zoom", "rule"), [(1, 1), (3, 2), (2, 0)])
def test_tiles_are_painted_as_the_reference_does(
    channels: int, is_rgb: bool, zoom: int, rule: int
) -> None:
    values = torch.randn(3, channels, 2, 3, generator=torch.Generator().manual_seed(channels))
    half_ranges = values.abs().amax((1, 2, 3))
    found = paint_tiles(values, half_ranges, is_rgb=is_rgb, zoom=zoom, rule=rule)
    for tile, planes, half_range in zip(found, values, half_ranges, strict=True):
        expected = painted_slowly(planes, half_range, is_rgb, zoom, rule)
        assert torch.equal(tile, expected.movedim(0, -1))


@pytest.mark.parametrize("is_rgb", [False, True])
def test_only_non_finite_values_are_striped(is_rgb: bool) -> None:
    values = torch.ones(1, 3, 2, 2)
    mask = torch.zeros(1, 3, 2, 2, dtype=torch.bool)
    mask[0, 1, 0, 1] = True
    options = {"is_rgb": is_rgb, "zoom": 8}
    plain = paint_tiles(values, torch.ones(1), **options)
    striped = paint_tiles(values, torch.ones(1), non_finite=mask, **options)
    changed = (plain != striped).any(-1)[0]
    left = 8 if is_rgb else 2 * 8 + 1 + 8
    assert changed[:8, left : left + 8].all()
    assert changed.sum() == 64

"""Film strips and animations of 1-D and 3-D layers: curves, and slices side by side."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filter_sequences import (
    decoded,
    drawn,
    frame_in,
    noise_sequence,
    pixels_of,
    renderer_of,
    sequence_of,
)
from PIL import Image
from torch import Tensor, nn

from kernelviz_callback import Geometry, Snapshot, save_snapshot
from kernelviz_callback.drawing.animation.animate import evolution_gif, moving_pictures
from kernelviz_callback.drawing.animation.caption import caption_lines
from kernelviz_callback.drawing.animation.crop import MOST_PIXELS
from kernelviz_callback.drawing.animation.sampling import FilterSequence
from kernelviz_callback.drawing.animation.strip import MOST_BYTES, film_strip
from kernelviz_callback.drawing.colour import NON_FINITE_COLOURS, diverging, to_levels
from kernelviz_callback.drawing.encode import to_png
from kernelviz_callback.drawing.grid import kernel_grid
from kernelviz_callback.training.films import draw_films

STEPS = (0, 1, 7, 40)


def curve(taps: Tensor, half_range: float, height: int, wide: int) -> Tensor:
    """Draw a curve pixel by pixel, as values, with ``wide`` pixels for each tap."""
    picture = torch.zeros(height, len(taps) * wide)
    for place, tap in enumerate(taps.tolist()):
        reach = abs(tap) / half_range * height / 2
        for away in range(height // 2):
            row = height // 2 - 1 - away if tap > 0 else height // 2 + away
            share = min(max(reach - away, 0.0), 1.0)
            picture[row, place * wide : (place + 1) * wide] = share * tap
    return picture


def colours(values: Tensor, half_range: float) -> Tensor:
    return diverging(to_levels(values, torch.tensor(half_range))).permute(1, 2, 0)


def enlarged(pixels: Tensor, zoom: int) -> Tensor:
    return pixels.repeat_interleave(zoom, 0).repeat_interleave(zoom, 1)


def pictures_in(tile: Tensor, count: int, width: int, rule: int) -> list[Tensor]:
    """Cut a tile into its pictures, which fill it."""
    assert tile.shape[1] == count * (width + rule) - rule
    return [tile[:, p * (width + rule) :][:, :width] for p in range(count)]


def largest_difference(one: Tensor, other: Tensor) -> int:
    """The largest difference of two pictures, of 255. One level of the scale is at most 3."""
    return int((one.int() - other.int()).abs().max())


def last_picture(sequence: FilterSequence, **options: Any) -> tuple[Tensor, Any]:
    """Draw the last frame in true colours; return it with its renderer."""
    renderer = renderer_of(sequence, **options)
    *_, last = moving_pictures(renderer, sequence.frames, sequence.half_ranges())
    return torch.from_numpy(last), renderer


@pytest.mark.parametrize(
    ("channels", "taps", "size"),
    [(1, 31, (28, 1)), (2, 5, (20, 6)), (3, 9, (16, 3)), (4, 1, (14, 21))],
)
def test_each_channel_of_a_1d_layer_is_a_curve(
    channels: int, taps: int, size: tuple[int, int]
) -> None:
    height, wide = size
    weights = {step: drawn(5, channels, taps, seed=step) for step in STEPS}
    sequence = sequence_of(weights)
    assert sequence.crop.shape == (5, channels, taps)
    largest = torch.stack(list(weights.values())).abs().max().item()
    film = film_strip(sequence)
    zoom = film.layout.tile_height // height
    moving, renderer = last_picture(sequence, side=840)
    assert renderer.zoom > 1
    for i in range(5):
        for column, values in enumerate(weights.values()):
            drawn_film = pictures_in(
                frame_in(film, i, column), channels, taps * wide * zoom, rule=1
            )
            for found, kernel in zip(drawn_film, values[i], strict=True):
                expected = colours(curve(kernel, largest, height, wide), largest)
                assert largest_difference(found, enlarged(expected, zoom)) <= 3
        tile = moving[renderer.layout.box(i)]
        drawn_last = pictures_in(tile, channels, taps * wide * renderer.zoom, rule=2)
        for found, kernel in zip(drawn_last, weights[40][i], strict=True):
            expected = colours(curve(kernel, largest, height, wide), largest)
            assert largest_difference(found, enlarged(expected, renderer.zoom)) <= 3


def test_an_animation_has_the_curves_of_every_step() -> None:
    weights = {step: drawn(4, 1, 9, seed=step) for step in STEPS}
    sequence = sequence_of(weights)
    largest, renderer = sequence.half_ranges()[0].item(), renderer_of(sequence)
    for shown, values in zip(decoded(evolution_gif(sequence)), weights.values(), strict=True):
        for i in range(4):
            expected = enlarged(
                colours(curve(values[i, 0], largest, 28, 5), largest), renderer.zoom
            )
            found = torch.from_numpy(shown)[renderer.layout.box(i)]
            assert largest_difference(found, expected) <= 6, "the palette has every second level"


def test_many_channels_are_drawn_as_their_principal_curve() -> None:
    weights = {step: drawn(6, 64, 9, seed=step) for step in (0, 9)}
    sequence = sequence_of(weights)
    film = film_strip(sequence)
    for i in range(6):
        curves = []
        for values in weights.values():
            _, sizes, vectors = torch.linalg.svd(values[i].double())
            principal = (sizes[0] * vectors[0]).float()
            curves.append(principal * principal.sum().sign())
        if (curves[0] * curves[1]).sum() < 0:  # a film has no curve that turns into its negative
            curves[0] = -curves[0]
        largest = film.half_ranges[i].item()
        for column, principal in enumerate(curves):
            expected = colours(curve(principal, largest, 28, 5), largest)
            assert largest_difference(frame_in(film, i, column), expected) <= 3
    assert caption_lines(sequence, "film", 2)[2] == (
        "each tile: the principal 1-D kernel of 64 channels; taps left to right, red above zero, "
        "blue below"
    )


def test_one_tap_of_many_channels_is_drawn_like_a_1x1_layer() -> None:
    weights = {step: drawn(6, 64, 1, seed=step) for step in (0, 9)}
    film = film_strip(sequence_of(weights))
    flat = film_strip(sequence_of({step: values[..., None] for step, values in weights.items()}))
    below = flat.layout.top
    assert film.layout == flat.layout
    assert torch.equal(film.pixels[below:], flat.pixels[below:])


def test_points_that_share_a_pixel_show_their_extremes() -> None:
    kernel = torch.zeros(1, 1, 2000)
    kernel[0, 0, 1000], kernel[0, 0, 1001] = 1.0, -0.5
    picture = frame_in(film_strip(sequence_of({0: kernel})), 0, 0)
    assert picture.shape == (28, 84, 3)
    zero, high, low = (colours(torch.full((1, 1), v), 1.0)[0, 0] for v in (0.0, 1.0, -0.5))
    assert (picture[:14, 42] == high).all()
    assert (picture[14:21, 42] == low).all()
    assert (picture[21:, 42] == zero).all()
    assert (picture[:, :42] == zero).all()
    assert (picture[:, 43:] == zero).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 64])
def test_a_3d_filter_is_drawn_slice_by_slice_like_in_the_kernel_grid(channels: int) -> None:
    # Planes of one sign: a film gives a plane the sign of the step before, and a grid does not.
    weights = {step: drawn(5, channels, 3, 4, 5, seed=0) * (1 + step) for step in STEPS}
    sequence = sequence_of(weights)
    film = film_strip(sequence)
    moving, renderer = last_picture(sequence)
    count = 3 * (channels if channels == 2 else 1)
    zoom = film.layout.tile_height // 4
    for i in range(5):
        ends = film.half_ranges[i].item()
        for column, values in enumerate(weights.values()):
            grid = kernel_grid(values[i : i + 1], scale=ends)
            larger = grid.layout.tile_height // 4
            rule = 2 if channels == 3 else 1
            kernels = pictures_in(grid.tile(0), count, 5 * larger, rule)
            tile = frame_in(film, i, column)
            for found, kernel in zip(
                pictures_in(tile, count, 5 * zoom, rule), kernels, strict=True
            ):
                assert torch.equal(found, enlarged(kernel[::larger, ::larger], zoom))
        last = pictures_in(moving[renderer.layout.box(i)], count, 5 * renderer.zoom, rule=2)
        for found, kernel in zip(last, kernels, strict=True):
            assert torch.equal(found, enlarged(kernel[::larger, ::larger], renderer.zoom))


def test_three_channels_of_a_slice_are_rgb() -> None:
    weights = {step: drawn(2, 3, 2, 4, 4, seed=step) for step in (0, 5)}
    film = film_strip(sequence_of(weights))
    zoom = film.layout.tile_height // 4
    for column, values in enumerate(weights.values()):
        for i in range(2):
            slices = pictures_in(frame_in(film, i, column), 2, 4 * zoom, rule=2)
            for depth, found in enumerate(slices):
                expected = pixels_of(values[i, :, depth], film.half_ranges[i])
                assert torch.equal(found, enlarged(expected, zoom))


def test_the_first_of_many_slices_are_drawn_and_the_caption_says_so() -> None:
    weights = drawn(2, 3, 40, 5, 5)
    sequence = sequence_of({0: weights, 1: weights})
    assert sequence.crop.style.slices == 24, (
        "slices of 5 pixels with 2 between them, in a row of 168"
    )
    assert torch.equal(sequence.frames[0].weights[1, 3 * 23 :], weights[1, :, 23])
    lines = caption_lines(sequence, "film", 2)
    assert "each tile: slices 0 to 23 of 40, RGB = input channels 0, 1, 2; grey is zero" in lines


def test_a_non_finite_tap_is_striped_at_its_place() -> None:
    weights = {step: drawn(4, 1, 9, seed=step) for step in (0, 3)}
    whole = film_strip(sequence_of(weights))
    weights[3] = weights[3].clone()
    weights[3][2, 0, 4] = torch.nan
    sequence = sequence_of(weights)
    film, (moving, renderer) = film_strip(sequence), last_picture(sequence)
    stripes = {NON_FINITE_COLOURS[0], NON_FINITE_COLOURS[1]}
    tile = frame_in(film, 2, 1)
    assert {tuple(p) for p in tile[:, 20:25].reshape(-1, 3).tolist()} == stripes
    assert torch.equal(tile[:, :20], frame_in(whole, 2, 1)[:, :20])
    assert torch.equal(tile[:, 25:], frame_in(whole, 2, 1)[:, 25:])
    seen = moving[renderer.layout.box(2)][:, 20 * renderer.zoom : 25 * renderer.zoom]
    assert {tuple(p) for p in seen.reshape(-1, 3).tolist()} == stripes
    assert "NaN or infinite in 1 of 4 filters (striped magenta): 2" in caption_lines(
        sequence, "film", 2
    )


def test_a_non_finite_weight_is_striped_in_its_slice() -> None:
    weights = {step: drawn(4, 3, 2, 5, 5, seed=step) for step in (0, 3)}
    weights[3][1, 2, 1] = torch.inf
    sequence = sequence_of(weights)
    film, (moving, renderer) = film_strip(sequence), last_picture(sequence)
    zoom = film.layout.tile_height // 5
    for tile, width, rule in (
        (frame_in(film, 1, 1), 5 * zoom, 2),
        (moving[renderer.layout.box(1)], 5 * renderer.zoom, 2),
    ):
        first, second = pictures_in(tile, 2, width, rule)
        magenta = torch.tensor(NON_FINITE_COLOURS[0])
        assert not (first == magenta).all(2).any()
        assert 0.3 < (second == magenta).all(2).float().mean() < 0.7


LARGE_SHAPES = [
    (512, 1, 1024),
    (512, 1, 31),
    (512, 4, 57),
    (512, 4, 1),
    (512, 64, 84),
    (256, 3, 7, 7, 7),
    (768, 1, 16, 16, 16),
    (64, 4, 5, 5, 5),
    (512, 64, 3, 3, 3),
    (64, 3, 300, 3, 3),
    (2, 2, 40, 100, 100),
]


@pytest.mark.parametrize("shape", LARGE_SHAPES, ids=str)
def test_film_and_animation_of_noise_keep_the_size_limit(shape: tuple[int, ...]) -> None:
    sequence = noise_sequence(*shape, steps=range(24))
    assert sequence.crop.pixels <= MOST_PIXELS
    film = film_strip(sequence)
    assert film.layout.frames == 12
    assert film.pixels.shape[1] < 2200, "pixels: no wider than a row of four channels"
    assert len(to_png(film.pixels)) <= MOST_BYTES
    content = evolution_gif(sequence)
    assert len(content) <= MOST_BYTES
    assert 12 <= len(decoded(content)) <= 24


def trained(conv: nn.Module, *size: int) -> dict[int, Tensor]:
    """Train a layer for six steps; return its weights at each step."""
    data = drawn(4, conv.weight.shape[1], *size)
    target = drawn(1, conv.weight.shape[0], *[1] * len(size))
    optimizer = torch.optim.SGD(conv.parameters(), lr=0.1)
    weights = {}
    for step in range(6):
        weights[step] = conv.weight.detach().clone()
        optimizer.zero_grad()
        (conv(data) - target).square().mean().backward()
        optimizer.step()
    return weights


def test_films_are_drawn_from_snapshots_of_1d_and_3d_layers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = {
        "sound": trained(nn.Conv1d(1, 6, 31), 64),
        "deep": trained(nn.Conv1d(16, 6, 5), 64),
        "clips": trained(nn.Conv3d(3, 6, (3, 5, 5)), 8, 12, 12),
    }
    for step in range(6):
        named = {name: weights[step] for name, weights in layers.items()}
        geometries = {
            name: Geometry(f"Conv{n}d", (1,) * n, (0,) * n, (1,) * n, 1)
            for name, n in (("sound", 1), ("deep", 1), ("clips", 3))
        }
        save_snapshot(Snapshot(step, step // 10, 0.0, named, geometries), tmp_path)
    images = draw_films(tmp_path)
    assert set(images) == {f"{kind}/{name}" for kind in ("film", "evolution") for name in layers}
    for name, weights in layers.items():
        film = film_strip(sequence_of(weights))
        image = Image.open(io.BytesIO(images[f"film/{name}"].content))
        below = film.layout.top
        assert np.array_equal(np.asarray(image)[below:], film.pixels[below:])
        assert len(decoded(images[f"evolution/{name}"].content)) == 6

"""Films and animations of 1-D and 3-D layers: curves, and slices beside each other."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from reels import drawn, gathered, noise
from test_animate import decoded, stage_of
from test_strip import frame, pixels_of
from torch import Tensor, nn

from kernelviz_callback import Geometry, Snapshot, save_snapshot
from kernelviz_callback.drawing.animation.animate import evolution_gif, moving_pictures
from kernelviz_callback.drawing.animation.caption import caption_lines
from kernelviz_callback.drawing.animation.sampling import MOST_PIXELS, Reel
from kernelviz_callback.drawing.animation.strip import MOST_BYTES, film_strip
from kernelviz_callback.drawing.colour import NON_FINITE_COLOURS, diverging, to_levels
from kernelviz_callback.drawing.encode import to_png
from kernelviz_callback.drawing.grid import kernel_grid
from kernelviz_callback.training.films import draw_films

STEPS = (0, 1, 7, 40)


def curve(taps: Tensor, half_range: float, height: int, wide: int) -> Tensor:
    """One pixel after the other: the values of a curve, ``wide`` pixels a tap."""
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
    """Those that stand in a row, with nothing before or after them."""
    assert tile.shape[1] == count * (width + rule) - rule
    return [tile[:, p * (width + rule) :][:, :width] for p in range(count)]


def off(one: Tensor, other: Tensor) -> int:
    """The largest difference, of 255; rounding alone may decide on one level, 3 at most."""
    return int((one.int() - other.int()).abs().max())


def last_moving(reel: Reel, **options: Any) -> tuple[Tensor, Any]:
    """The last frame in true colours, and its stage."""
    stage = stage_of(reel, **options)
    *_, last = moving_pictures(stage, reel.shots, reel.half_ranges())
    return torch.from_numpy(last), stage


@pytest.mark.parametrize(
    ("channels", "taps", "size"),
    [(1, 31, (28, 1)), (2, 5, (20, 6)), (3, 9, (16, 3)), (4, 1, (14, 21))],
)
def test_each_channel_of_a_sound_is_a_curve(
    channels: int, taps: int, size: tuple[int, int]
) -> None:
    """Three are no RGB."""
    height, wide = size
    weights = {step: drawn(5, channels, taps, seed=step) for step in STEPS}
    reel = gathered(weights)
    assert reel.cut.shape == (5, channels, taps)
    largest = torch.stack(list(weights.values())).abs().max().item()
    film = film_strip(reel)
    zoom = film.layout.tile_height // height
    moving, stage = last_moving(reel, side=840)
    assert stage.zoom > 1
    for i in range(5):
        for column, values in enumerate(weights.values()):
            drawn_film = pictures_in(frame(film, i, column), channels, taps * wide * zoom, rule=1)
            for found, kernel in zip(drawn_film, values[i], strict=True):
                expected = colours(curve(kernel, largest, height, wide), largest)
                assert off(found, enlarged(expected, zoom)) <= 3
        tile = moving[stage.layout.box(i)]
        drawn_last = pictures_in(tile, channels, taps * wide * stage.zoom, rule=2)
        for found, kernel in zip(drawn_last, weights[40][i], strict=True):
            expected = colours(curve(kernel, largest, height, wide), largest)
            assert off(found, enlarged(expected, stage.zoom)) <= 3


def test_an_animation_has_the_curves_of_every_step() -> None:
    weights = {step: drawn(4, 1, 9, seed=step) for step in STEPS}
    reel = gathered(weights)
    largest, stage = reel.half_ranges()[0].item(), stage_of(reel)
    for shown, values in zip(decoded(evolution_gif(reel)), weights.values(), strict=True):
        for i in range(4):
            expected = enlarged(colours(curve(values[i, 0], largest, 28, 5), largest), stage.zoom)
            found = torch.from_numpy(shown)[stage.layout.box(i)]
            assert off(found, expected) <= 6, "of the palette every second level"


def test_of_many_channels_the_principal_curve_is_drawn() -> None:
    weights = {step: drawn(6, 64, 9, seed=step) for step in (0, 9)}
    reel = gathered(weights)
    film = film_strip(reel)
    for column, values in enumerate(weights.values()):
        for i in range(6):
            _, sizes, vectors = torch.linalg.svd(values[i].double())
            principal = (sizes[0] * vectors[0]).float()
            principal *= principal.sum().sign()
            largest = film.half_ranges[i].item()
            expected = colours(curve(principal, largest, 28, 5), largest)
            assert off(frame(film, i, column), expected) <= 3
    assert caption_lines(reel, "film", 2)[2] == (
        "each tile: the principal curve of 64 channels; taps left to right, red above zero, blue "
        "below"
    )


def test_one_tap_of_many_channels_is_what_a_1x1_layer_is() -> None:
    weights = {step: drawn(6, 64, 1, seed=step) for step in (0, 9)}
    film = film_strip(gathered(weights))
    flat = film_strip(gathered({step: values[..., None] for step, values in weights.items()}))
    below = flat.layout.top
    assert film.layout == flat.layout
    assert torch.equal(film.pixels[below:], flat.pixels[below:])


def test_points_that_share_a_pixel_show_their_extremes() -> None:
    kernel = torch.zeros(1, 1, 2000)
    kernel[0, 0, 1000], kernel[0, 0, 1001] = 1.0, -0.5
    picture = frame(film_strip(gathered({0: kernel})), 0, 0)
    assert picture.shape == (28, 84, 3)
    zero, high, low = (colours(torch.full((1, 1), v), 1.0)[0, 0] for v in (0.0, 1.0, -0.5))
    assert (picture[:14, 42] == high).all()
    assert (picture[14:21, 42] == low).all()
    assert (picture[21:, 42] == zero).all()
    assert (picture[:, :42] == zero).all()
    assert (picture[:, 43:] == zero).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 64])
def test_a_clip_is_drawn_slice_by_slice_as_the_kernel_grid_draws_it(channels: int) -> None:
    weights = {step: drawn(5, channels, 3, 4, 5, seed=step) for step in STEPS}
    reel = gathered(weights)
    film = film_strip(reel)
    moving, stage = last_moving(reel)
    count = 3 * (channels if channels == 2 else 1)
    zoom = film.layout.tile_height // 4
    for i in range(5):
        ends = film.half_ranges[i].item()
        for column, values in enumerate(weights.values()):
            grid = kernel_grid(values[i : i + 1], scale=ends)
            larger = grid.layout.tile_height // 4
            rule = 2 if channels == 3 else 1
            kernels = pictures_in(grid.tile(0), count, 5 * larger, rule)
            tile = frame(film, i, column)
            for found, kernel in zip(
                pictures_in(tile, count, 5 * zoom, rule), kernels, strict=True
            ):
                assert torch.equal(found, enlarged(kernel[::larger, ::larger], zoom))
        last = pictures_in(moving[stage.layout.box(i)], count, 5 * stage.zoom, rule=2)
        for found, kernel in zip(last, kernels, strict=True):
            assert torch.equal(found, enlarged(kernel[::larger, ::larger], stage.zoom))


def test_three_channels_of_a_slice_are_colours() -> None:
    weights = {step: drawn(2, 3, 2, 4, 4, seed=step) for step in (0, 5)}
    film = film_strip(gathered(weights))
    zoom = film.layout.tile_height // 4
    for column, values in enumerate(weights.values()):
        for i in range(2):
            slices = pictures_in(frame(film, i, column), 2, 4 * zoom, rule=2)
            for depth, found in enumerate(slices):
                expected = pixels_of(values[i, :, depth], film.half_ranges[i])
                assert torch.equal(found, enlarged(expected, zoom))


def test_of_many_slices_the_first_are_shown_and_the_caption_says_so() -> None:
    weights = drawn(2, 3, 40, 5, 5)
    reel = gathered({0: weights, 1: weights})
    assert reel.cut.slices == 24, "of 5 pixels and 2 between them, in 168"
    assert torch.equal(reel.shots[0].weights[1, 3 * 23 :], weights[1, :, 23])
    lines = caption_lines(reel, "film", 2)
    assert "each tile: slices 0 to 23 of 40, RGB = input channels 0, 1, 2; grey is zero" in lines


@pytest.mark.parametrize(
    ("shape", "line"),
    [
        ((8, 1, 31), "taps left to right, red above zero, blue below"),
        ((8, 3, 31), "each tile: input channels 0 to 2 of 3; taps left to right, red above"),
        ((8, 64, 1), "each tile: input channels 0 to 3 of 64; red is positive"),
        ((8, 1, 3, 3, 3), "each tile: slices 0 to 2 of 3; red is positive"),
        ((8, 2, 3, 3, 3), "each tile: slices 0 to 2 of 3 of input channels 0 to 1 of 2; red"),
        ((8, 64, 3, 3, 3), "each tile: slices 0 to 2 of 3 of the principal volume of 64 channels;"),
        ((8, 1, 9, 99, 99), "each tile: slice 0 of 9; red is positive"),
        ((8, 3, 1, 7, 7), "RGB = input channels 0, 1, 2; grey is zero"),
    ],
    ids=str,
)
def test_the_caption_tells_how_to_read_a_tile(shape: tuple[int, ...], line: str) -> None:
    assert caption_lines(gathered({0: torch.ones(shape)}), "film", 1)[2].startswith(line)


def test_a_tap_that_breaks_is_striped_where_it_stands() -> None:
    weights = {step: drawn(4, 1, 9, seed=step) for step in (0, 3)}
    whole = film_strip(gathered(weights))
    weights[3] = weights[3].clone()
    weights[3][2, 0, 4] = torch.nan
    reel = gathered(weights)
    film, (moving, stage) = film_strip(reel), last_moving(reel)
    stripes = {NON_FINITE_COLOURS[0], NON_FINITE_COLOURS[1]}
    tile = frame(film, 2, 1)
    assert {tuple(p) for p in tile[:, 20:25].reshape(-1, 3).tolist()} == stripes
    assert torch.equal(tile[:, :20], frame(whole, 2, 1)[:, :20])
    assert torch.equal(tile[:, 25:], frame(whole, 2, 1)[:, 25:])
    seen = moving[stage.layout.box(2)][:, 20 * stage.zoom : 25 * stage.zoom]
    assert {tuple(p) for p in seen.reshape(-1, 3).tolist()} == stripes
    assert "NaN or infinite in 1 of 4 filters (striped magenta): 2" in caption_lines(
        reel, "film", 2
    )


def test_a_weight_that_breaks_is_striped_in_its_slice() -> None:
    weights = {step: drawn(4, 3, 2, 5, 5, seed=step) for step in (0, 3)}
    weights[3][1, 2, 1] = torch.inf
    reel = gathered(weights)
    film, (moving, stage) = film_strip(reel), last_moving(reel)
    zoom = film.layout.tile_height // 5
    for tile, width, rule in (
        (frame(film, 1, 1), 5 * zoom, 2),
        (moving[stage.layout.box(1)], 5 * stage.zoom, 2),
    ):
        first, second = pictures_in(tile, 2, width, rule)
        magenta = torch.tensor(NON_FINITE_COLOURS[0])
        assert not (first == magenta).all(2).any()
        assert 0.3 < (second == magenta).all(2).float().mean() < 0.7


HOSTILE = [
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


@pytest.mark.parametrize("shape", HOSTILE, ids=str)
def test_not_even_noise_makes_them_too_large(shape: tuple[int, ...]) -> None:
    reel = noise(*shape, steps=range(24))
    assert reel.cut.pixels <= MOST_PIXELS
    film = film_strip(reel)
    assert film.layout.frames == 12
    assert film.pixels.shape[1] < 2200, "pixels: as wide as four channels have always been"
    assert len(to_png(film.pixels)) <= MOST_BYTES
    content = evolution_gif(reel)
    assert len(content) <= MOST_BYTES
    assert 12 <= len(decoded(content)) <= 24


def trained(conv: nn.Module, *size: int) -> dict[int, Tensor]:
    """A few steps towards another layer of its kind."""
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


def test_a_training_of_sound_and_of_clips_is_filmed(tmp_path: Path) -> None:
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
        film = film_strip(gathered(weights))
        image = Image.open(io.BytesIO(images[f"film/{name}"].content))
        below = film.layout.top
        assert np.array_equal(np.asarray(image)[below:], film.pixels[below:])
        assert len(decoded(images[f"evolution/{name}"].content)) == 6

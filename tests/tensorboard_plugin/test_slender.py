"""Kernels such as 1x64 in the Kernels tab: the same stretched weights as in Python's pictures."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from engine_page import Engine
from tab_page import Open, Site, assert_painted, opening, serving, unzoomed
from tab_runs import packed, write_run
from torch import Tensor

from kernelviz_callback.drawing.cells import cell_size, stretch, stretched_size
from kernelviz_callback.drawing.tiles import paint_tiles
from kernelviz_callback.filters.measures import largest_magnitude
from kernelviz_callback.tensorboard_plugin.codec import unpack_snapshot

pytestmark = pytest.mark.browser

STEPS = (0, 10, 20)
SHAPES = {
    "wide": (8, 1, 1, 64),
    "long": (8, 1, 1, 256),
    "high": (8, 2, 25, 1),
    "rows": (8, 3, 3, 64),
}


def _weights(layer: str, step: int) -> Tensor:
    """Round weights as the page has them."""
    return torch.from_numpy(unpack_snapshot(*packed(_exact(layer, step))).weights())


def _exact(layer: str, step: int) -> np.ndarray:
    generator = torch.Generator().manual_seed(len(layer))
    return (torch.randn(SHAPES[layer], generator=generator) * (1 + step / 20)).numpy()


@pytest.fixture(scope="module")
def site(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("slender")
    write_run(folder / "logs" / "run", {n: {s: _exact(n, s) for s in STEPS} for n in SHAPES})

    def is_read(timeline: Any) -> bool:
        return [len(of["snapshots"]) for run in timeline["runs"] for of in run["layers"]] == [
            3
        ] * len(SHAPES)

    with serving(browser, folder, is_read) as made:
        yield made


@pytest.fixture
def opened(site: Site) -> Iterator[Open]:
    with opening(site) as look:
        yield look


def _pictures(pixels: np.ndarray, zoom: int, size: tuple[int, int], count: int) -> list[np.ndarray]:
    """Cut the pictures out of a tile in one row, one pixel for each weight."""
    height, width = stretched_size(*size)
    down, across = cell_size(*size)
    small = unzoomed(pixels, zoom)
    parts = [small[:height, k * (width + 1) :][:, :width] for k in range(count)]
    for part in parts:
        blocks = part.reshape(size[0], down, size[1], across, 4)
        assert (blocks == blocks[:, :1, :, :1]).all(), "a weight is not one block"
    return [part[::down, ::across] for part in parts]


@pytest.mark.parametrize("layer", SHAPES)
def test_tiles_are_stretched(opened: Open, layer: str) -> None:
    tab = opened(runs=["run"], layer=layer, step=10, filter=3)
    weights, size = _weights(layer, 10), SHAPES[layer][2:]
    count = 2 if layer == "high" else 1
    grid = tab.grid("kernels", "run")
    height, width = stretched_size(*size)
    sides = height * grid.zoom, (count * (width + 1) - 1) * grid.zoom
    assert min(sides) >= 16
    ends = largest_magnitude(weights)
    for i in (0, 7):
        parts = _pictures(grid.tile(i, *sides), grid.zoom, size, count)
        for k, part in enumerate(parts):
            values = weights[i] if layer == "rows" else weights[i, k : k + 1]
            assert_painted(part, values, float(ends[i]))
    large = tab.pixels('canvas[data-kind="kernel"]')
    zoom = large.shape[0] // height
    values = weights[3] if layer == "rows" else weights[3, :1]
    assert_painted(_pictures(large, zoom, size, count)[0], values, float(ends[3]))


@pytest.mark.parametrize("layer", ["wide", "high"])
def test_the_film_strip_is_stretched(opened: Open, layer: str) -> None:
    tab = opened(runs=["run"], layer=layer, step=10, filter=6)
    weights = [_weights(layer, step)[6] for step in STEPS]
    height, _ = stretched_size(*SHAPES[layer][2:])
    end = max(float(own.abs().max()) for own in weights)
    for k, own in enumerate(weights):
        found = tab.pixels(f'[data-role="film"] button:nth-child({k + 1}) canvas')
        part = _pictures(found, found.shape[0] // height, SHAPES[layer][2:], 1)[0]
        assert_painted(part, own[:1], end)


def test_a_long_kernel_stays_in_its_place(opened: Open) -> None:
    tab = opened(runs=["run"], layer="long", step=20, filter=2)
    drawer = tab.role("drawer").bounding_box()
    frames = tab.role("film").locator("canvas").all()
    boxes = [one.bounding_box() for one in (*frames, tab.frame.locator("canvas[data-kind=kernel]"))]
    for box in boxes:
        assert box["x"] >= drawer["x"]
        assert box["x"] + box["width"] <= drawer["x"] + drawer["width"]
    for one, next_one in itertools.pairwise(boxes[:-1]):
        assert one["x"] + one["width"] <= next_one["x"]


def test_a_weight_of_a_stretched_kernel_can_be_read(opened: Open) -> None:
    tab = opened(runs=["run"], layer="wide", step=20, filter=2)
    box = tab.frame.locator('canvas[data-kind="kernel"]').bounding_box()
    for row, column in ((0.1, 5), (0.9, 60)):
        tab.page.mouse.move(
            box["x"] + (column + 0.5) / 64 * box["width"], box["y"] + row * box["height"]
        )
        text = tab.role("weight").text_content().replace("−", "-")
        assert text.startswith(f"row 0, column {column}: ")
        value = float(_weights("wide", 20)[2, 0, 0, column])
        assert float(text.split(": ")[1]) == pytest.approx(value, abs=6e-4)


def test_cells_are_those_of_pictures(engine: Engine) -> None:
    sizes = [(h, w) for h in (1, 2, 3, 7, 10, 16, 17) for w in (*range(1, 150), 256, 1000)]
    sizes += [(w, h) for h, w in sizes]
    found = engine(
        "return sizes.map(([height, width]) => { const c = weightSize({height, width}); "
        "return [c.height, c.width]; })",
        sizes=sizes,
    )
    assert [tuple(cell) for cell in found] == [cell_size(*size) for size in sizes]
    shapes = [[4, 2, *size] for size in sizes]
    planes = engine(
        "return shapes.map((s) => { const p = planeOf(s); return [p.height, p.width]; })",
        shapes=shapes,
    )
    assert [tuple(plane) for plane in planes] == [stretched_size(*size) for size in sizes]


@pytest.mark.parametrize("shape", SHAPES.values())
@pytest.mark.parametrize("is_spoilt", [False, True])
def test_stretched_tiles_equal_those_of_pictures(
    engine: Engine, shape: tuple[int, int, int, int], is_spoilt: bool
) -> None:
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    if is_spoilt:
        weights[:, 0, -1, -1] = torch.nan
    ends = largest_magnitude(weights)
    is_rgb = shape[1] == 3
    for zoom in (1, 3):
        found = engine(
            """const {layout, picture} = (() => {
              const cell = weightSize(kernelOf(shape));
              const {width, height} = tileSize(shape, channel, cell);
              const layout = atlasLayout(shape[0], width * zoom, height * zoom);
              return {layout, picture: paintAtlas(values, shape, ends, {channel, zoom, cell})};
            })();
            return {layout, picture};""",
            values=weights,
            shape=list(shape),
            ends=ends,
            zoom=zoom,
            channel="rgb" if is_rgb else "all",
        )
        bad = ~stretch(weights).isfinite()
        painted = paint_tiles(
            stretch(weights), ends, is_rgb=is_rgb, zoom=zoom, rule=zoom, non_finite=bad
        ).numpy()
        layout = found["layout"]
        for i, expected in enumerate(painted):
            row, column = divmod(i, layout["columns"])
            top, left = row * layout["tileHeight"], column * layout["tileWidth"]
            tile = found["picture"][top : top + expected.shape[0], left : left + expected.shape[1]]
            is_drawn = tile[..., 3] == 255
            np.testing.assert_array_equal(tile[..., :3][is_drawn], expected[is_drawn])
            assert is_drawn.mean() > 0.9

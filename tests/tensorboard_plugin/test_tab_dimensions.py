"""1-D and 3-D layers in the Kernels tab: curves, slices, and their texts."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tab_dimensions import STEPS, serving_dimensions, weights_of
from tab_page import Grid, Open, Site, Tab, assert_painted, opening, unzoomed
from torch import Tensor

from kernelviz_callback.drawing.curves import draw_curves
from kernelviz_callback.filters.measures import largest_magnitude

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving_dimensions(browser, tmp_path_factory.mktemp("dimensions")) as made:
        yield made


@pytest.fixture
def opened(site: Site) -> Iterator[Open]:
    with opening(site) as look:
        yield look


def _assert_curves(grid: Grid, weights: Tensor, ends: Tensor, height: int) -> None:
    """Compare every tile of a grid with the curves of its channels, which are in rows."""
    _, channels, taps = weights.shape
    wide = min(taps, 80)
    across = min(channels, (grid.width // grid.zoom + 1) // (wide + 1))
    down = -(-channels // across)
    sides = {"height": height * grid.zoom, "width": wide * grid.zoom}
    drawn = draw_curves(weights, ends, **sides)
    size = (down * (height + 1) - 1) * grid.zoom, (across * (wide + 1) - 1) * grid.zoom
    for i in range(len(weights)):
        tile = grid.tile(i, *size)
        for c in range(channels):
            row, column = divmod(c, across)
            top, left = row * (height + 1) * grid.zoom, column * (wide + 1) * grid.zoom
            found = tile[top : top + sides["height"], left : left + sides["width"]]
            assert_painted(found, drawn[i, c][None], float(ends[i]))


@pytest.mark.parametrize("scale", ["filter", "layer"])
def test_a_kernel_of_one_dimension_is_a_curve_around_zero(opened: Open, scale: str) -> None:
    tab = opened(runs=["all"], layer="audio", scale=scale)
    for step in (20, 0):
        tab.go(step)
        weights = weights_of("audio", step)
        own = largest_magnitude(weights)
        ends = own if scale == "filter" else own.amax().expand(32)
        _assert_curves(tab.grid("kernels", "all"), weights, ends, height=20)


def test_three_channels_of_a_signal_are_not_colours(opened: Open) -> None:
    tab = opened(runs=["all"], layer="stereo", step=10)
    weights = weights_of("stereo", 10)
    ends = largest_magnitude(weights)
    _assert_curves(tab.grid("kernels", "all"), weights, ends, height=6)
    assert not tab.frame.locator('fieldset[data-role="channel"]').is_visible()
    tab.select("channel", "2")
    _assert_curves(tab.grid("kernels", "all"), weights[:, 2:], ends, height=6)


def test_many_channels_of_a_signal_are_the_rows_of_a_matrix(opened: Open) -> None:
    tab = opened(runs=["all"], layer="deep", step=0, filter=1)
    grid, weights = tab.grid("kernels", "all"), weights_of("deep", 0)
    ends = largest_magnitude(weights)
    for i in range(4):
        pixels = unzoomed(grid.tile(i, 20 * grid.zoom, 3 * grid.zoom), grid.zoom)
        assert_painted(pixels, weights[i][None], float(ends[i]))
    _assert_readout(tab, (2, 3), (13, 20), "channel 13, tap 2", weights[1, 13, 2])
    tab.select("channel", "7")
    _assert_curves(tab.grid("kernels", "all"), weights[:, 7:8], ends, height=2)
    _assert_readout(tab, (1, 3), (0, 1), "channel 7, tap 1", weights[1, 7, 1])


def test_thousands_of_taps_share_pixels(opened: Open) -> None:
    tab = opened(runs=["all"], layer="long", step=0, filter=3)
    weights = weights_of("long", 0)
    _assert_curves(tab.grid("kernels", "all"), weights, largest_magnitude(weights), height=54)
    _assert_readout(tab, (1234, 3000), (0, 1), "tap 123", None)


def test_a_tap_that_is_not_finite_is_striped(opened: Open) -> None:
    tab = opened(runs=["all"], layer="spoilt", step=0)
    grid = tab.grid("kernels", "all")
    tile = grid.tile(2, 6 * grid.zoom, 9 * grid.zoom)
    for tap in range(9):
        column = tile[:, tap * grid.zoom : (tap + 1) * grid.zoom, :3]
        colours = {tuple(pixel) for pixel in column.reshape(-1, 3).tolist()}
        assert (colours == {(255, 0, 255), (0, 0, 0)}) == (tap == 4)


def test_colour_slices_are_in_a_row(opened: Open) -> None:
    tab = opened(runs=["all"], layer="video", step=10)
    grid, weights = tab.grid("kernels", "all"), weights_of("video", 10)
    ends = largest_magnitude(weights)
    for i in (0, 5, 11):
        pixels = unzoomed(grid.tile(i, 7 * grid.zoom, 23 * grid.zoom), grid.zoom)
        for s in range(3):
            assert_painted(pixels[:, 8 * s : 8 * s + 7], weights[i, :, s], float(ends[i]))
        assert (pixels[:, [7, 15], 3] == 0).all()
    tab.choose("channel", "1")
    grid = tab.grid("kernels", "all")
    pixels = unzoomed(grid.tile(5, 7 * grid.zoom, 23 * grid.zoom), grid.zoom)
    for s in range(3):
        assert_painted(pixels[:, 8 * s : 8 * s + 7], weights[5, 1:2, s], float(ends[5]))


@pytest.mark.parametrize(("layer", "filters"), [("video", (0, 11)), ("volume", (0, 4))])
def test_channels_are_rows_of_slices(opened: Open, layer: str, filters: tuple[int, ...]) -> None:
    tab = opened(runs=["all"], layer=layer, channel="all", step=20)
    grid, weights = tab.grid("kernels", "all"), weights_of(layer, 20)
    ends = largest_magnitude(weights)
    _, channels, slices, high, wide = weights.shape
    size = (channels * (high + 1) - 1) * grid.zoom, (slices * (wide + 1) - 1) * grid.zoom
    for i in filters:
        pixels = unzoomed(grid.tile(i, *size), grid.zoom)
        for c, s in np.ndindex(channels, slices):
            top, left = c * (high + 1), s * (wide + 1)
            found = pixels[top : top + high, left : left + wide]
            assert_painted(found, weights[i, c, s][None], float(ends[i]))


def test_many_slices_are_in_several_rows(opened: Open) -> None:
    tab = opened(runs=["all"], layer="clip", step=0)
    grid, weights = tab.grid("kernels", "all"), weights_of("clip", 0)
    end = float(largest_magnitude(weights)[2])
    pixels = unzoomed(grid.tile(2, 7 * grid.zoom, 31 * grid.zoom), grid.zoom)
    for s in range(16):
        top, left = 4 * (s // 8), 4 * (s % 8)
        found = pixels[top : top + 3, left : left + 3]
        assert_painted(found, weights[2, 0, s][None], end)


def _assert_readout(
    tab: Tab, across: tuple[int, int], down: tuple[int, int], where: str, value: Any
) -> None:
    """Point at a cell of the large kernel, given as its index and the number of cells."""
    box = tab.frame.locator('canvas[data-kind="kernel"]').bounding_box()
    x, y = ((at + 0.5) / count for at, count in (across, down))
    tab.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    place, _, numbers_text = tab.role("weight").text_content().partition(": ")
    if value is None:
        assert place.startswith(where)
        return
    assert place == where
    numbers = [
        float(each) for each in re.findall(r"-?\d+\.\d+(?:e-\d+)?", numbers_text.replace("−", "-"))
    ]
    assert numbers == pytest.approx(np.atleast_1d(value).tolist(), abs=6e-4)


def test_the_readout_names_slices_and_taps(opened: Open) -> None:
    tab = opened(runs=["all"], layer="audio", step=20, filter=9)
    weights = weights_of("audio", 20)
    for tap in (0, 17, 30):
        _assert_readout(tab, (tap, 31), (0, 1), f"tap {tap}", weights[9, 0, tap])
    tab = opened(runs=["all"], layer="stereo", step=20, filter=2)
    weights = weights_of("stereo", 20)
    _assert_readout(tab, (10 + 6, 19), (0, 2), "channel 1, tap 6", weights[2, 1, 6])
    tab = opened(runs=["all"], layer="video", step=0, filter=4)
    weights = weights_of("video", 0)
    for s, y, x in ((0, 0, 0), (1, 3, 5), (2, 6, 6)):
        where = f"slice {s}, row {y}, column {x}"
        _assert_readout(tab, (8 * s + x, 23), (y, 7), where, weights[4, :, s, y, x])
    tab.choose("channel", "all")
    where = "channel 2, slice 1, row 3, column 0"
    _assert_readout(tab, (8, 23), (19, 23), where, weights[4, 2, 1, 3, 0])


def test_arrow_keys_move_between_slices(opened: Open) -> None:
    tab = opened(runs=["all"], layer="video", step=0, filter=4)
    tab.frame.get_by_role("img", name="Kernel of filter 4").focus()
    for _ in range(9):
        tab.page.keyboard.press("ArrowRight")
    assert tab.role("weight").text_content().startswith("slice 1, row 0, column 1: R ")
    tab = opened(runs=["all"], layer="audio", step=0, filter=4)
    tab.frame.get_by_role("img", name="Kernel of filter 4").focus()
    for key in ["ArrowRight"] * 4 + ["ArrowDown", "ArrowLeft"]:
        tab.page.keyboard.press(key)
    assert tab.role("weight").text_content().startswith("tap 2: ")


@pytest.mark.parametrize(
    ("layer", "about", "why"),
    [
        ("audio", "32 filters, 1 × 31; 3 snapshots.", None),
        ("video", "12 filters, 3 × 3 × 7 × 7; 3 snapshots.", "reads several images at a time"),
    ],
)
def test_the_page_describes_the_layer_and_why_it_has_no_responses(
    opened: Open, layer: str, about: str, why: str | None
) -> None:
    tab = opened(runs=["all"], layer=layer, filter=3)
    assert tab.role("about-layer").text_content() == about
    message = tab.frame.locator('.pane.responses [data-role="pane-message"]')
    assert message.is_visible() == (why is not None)
    if why is not None:
        assert why in message.text_content()
        assert "Drop" not in message.text_content()
        assert why in tab.role("drawer").text_content()
    assert not tab.role("choose-probe").is_visible()
    assert not tab.frame.locator('fieldset[data-role="response"]').is_visible()
    tab.select("layer", "picture")
    tab.rest()
    assert tab.role("choose-probe").is_visible()
    responses = tab.frame.locator('canvas[data-kind="responses"]')
    assert responses.get_attribute("data-state") == "ready"
    assert "8 filters, 3 × 5 × 5" in tab.role("about-layer").text_content()


@pytest.mark.parametrize(("layer", "size"), [("audio", (20, 31)), ("video", (7, 23))])
def test_the_film_strip_has_every_step(opened: Open, layer: str, size: tuple[int, int]) -> None:
    tab = opened(runs=["all"], layer=layer, filter=6)
    frames = tab.role("film").locator("canvas")
    assert frames.count() == len(STEPS)
    weights = [weights_of(layer, step)[6:7] for step in STEPS]
    end = weights[-1].abs().max()
    for k, own in enumerate(weights):
        found = tab.pixels(f'[data-role="film"] button:nth-child({k + 1}) canvas')
        zoom = found.shape[1] // size[1]
        assert found.shape[:2] == (size[0] * zoom, size[1] * zoom)
        if layer == "video":
            assert_painted(unzoomed(found, zoom)[:, 8:15], own[0, :, 1], float(end))
        else:
            drawn = draw_curves(own, end[None], height=size[0] * zoom, width=size[1] * zoom)
            assert_painted(found, drawn[0], float(end))


def test_filters_are_matched_across_runs_if_shapes_are_equal(opened: Open) -> None:
    tab = opened(runs=["all", "turned video"], layer="video", match=1, step=0)
    tab.frame.locator("text=Mean cosine of the pairs 1.000").wait_for()
    tab.rest()
    assert tab.grid("kernels", "turned video").order == list(range(11, -1, -1))
    tab = opened(runs=["all", "turned audio"], layer="audio", match=1)
    said = "Filters of 1 × 31 and 1 × 1 × 31 weights cannot be matched."
    tab.frame.get_by_text(said).wait_for()

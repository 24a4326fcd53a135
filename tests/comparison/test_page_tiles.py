"""The tiles on the page of a comparison, pixel by pixel in a browser."""

import base64
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from comparison_pages import opening_pages, run_of_four, trained_layers
from torch import Tensor

from kernelviz_callback.comparison.compare import compare
from kernelviz_callback.comparison.comparison import Comparison
from kernelviz_callback.drawing.cells import stretch
from kernelviz_callback.drawing.curves import draw_curves
from kernelviz_callback.drawing.tiles import paint_tiles

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def run() -> Comparison:
    return run_of_four()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    with opening_pages(browser, tmp_path) as look:
        yield look


def _pixels(tab: Any, filter_index: int, plate: int) -> Tensor:
    """Read the pixels of a tile's canvas, shape (4, H, W)."""
    row = tab.locator("#filters tbody tr").filter(
        has=tab.get_by_text(re.compile(f"^{filter_index}$"))
    )
    row.scroll_into_view_if_needed()
    # As base64: a list of numbers would take seconds.
    height, width, data = (
        row.locator("canvas")
        .nth(plate)
        .evaluate(
            """(canvas) => {
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            let text = "";
            for (let at = 0; at < data.length; at += 8192) {
              text += String.fromCharCode(...data.subarray(at, at + 8192));
            }
            return [height, width, btoa(text)];
        }"""
        )
    )
    flat = torch.frombuffer(bytearray(base64.b64decode(data)), dtype=torch.uint8)
    return flat.reshape(height, width, 4).permute(2, 0, 1)


def _weights(comparison: Comparison) -> list[Tensor]:
    found = [w for w in (c.matched_weights() for c in comparison.columns) if w is not None]
    return [*found, found[-1] - found[0]]


def _largest(weights: Tensor) -> Tensor:
    return weights.where(weights.isfinite(), 0).abs().flatten(1).amax(1)


@pytest.mark.parametrize("scale", ["all", "tile", "filter"])
def test_tiles_are_the_weights(opened: Any, run: Comparison, scale: str) -> None:
    tab = opened(run)
    tab.check(f"input[value={scale}]", force=True)
    *columns, difference = _weights(run)
    row = torch.stack([_largest(w) for w in columns]).amax(0)
    for plate, weights in enumerate([*columns, difference]):
        own = _largest(weights)
        common = own.amax() if weights is difference else row.amax()
        of_row = own if weights is difference else row
        ends = {"all": common.expand(12), "tile": own, "filter": of_row}[scale]
        for i in (0, 3, 5, 11):
            found = _pixels(tab, i, plate)
            bad = ~weights[i : i + 1].isfinite()
            painted = paint_tiles(
                weights[i : i + 1],
                ends[i : i + 1],
                is_rgb=True,
                zoom=found.shape[1] // 5,
                non_finite=bad,
            )[0].movedim(-1, 0)
            rounding = 1 if scale == "filter" else 0
            assert (found[:3].int() - painted.int()).abs().max() <= rounding
            assert (found[3] == 255).all()
            assert found.shape[1] == (40 if bad.any() else 5)


def test_planes_are_the_channels(opened: Any) -> None:
    sensors = compare(*trained_layers(2, 4, 3, 3))
    tab = opened(sensors)
    weights = _weights(sensors)[0]
    half_range = torch.stack([_largest(w) for w in _weights(sensors)[:-1]]).amax()
    painted = paint_tiles(weights[:1], half_range[None], is_rgb=False)[0].movedim(-1, 0)
    found = _pixels(tab, 0, 0)
    assert found.shape == (4, 7, 7)
    for channel in range(4):
        y, x = (4 * place for place in divmod(channel, 2))
        expected = painted[:, :, 4 * channel : 4 * channel + 3]
        assert torch.equal(found[:3, y : y + 3, x : x + 3], expected)
    assert (found[3, 3] == 0).all()


@pytest.mark.parametrize(("points", "pixels"), [(24, 6), (32, 4), (600, 0.48)])
@pytest.mark.parametrize("scale", ["all", "tile", "filter"])
def test_curves_equal_those_of_the_picture(
    opened: Any, points: int, pixels: float, scale: str
) -> None:
    compared = compare(*trained_layers(2, 3, points))
    tab = opened(compared)
    tab.check(f"input[value={scale}]", force=True)
    every = _weights(compared)
    row = torch.stack([_largest(w) for w in every]).amax(0)
    for plate, weights in enumerate(every):
        own = _largest(weights)
        ends = {"all": row.amax().expand(12), "tile": own, "filter": row}[scale]
        width = round(points * pixels)
        for i in (0, 3, 5):
            found = _pixels(tab, i, plate)
            assert found.shape == (4, 3 * 97 - 1, width)  # three channels, below each other
            drawn = draw_curves(weights[i : i + 1], ends[i : i + 1], height=96, width=width)
            painted = (
                paint_tiles(drawn, ends[i : i + 1], is_rgb=False, non_finite=~drawn.isfinite())[0]
                .movedim(-1, 0)
                .int()
            )
            for channel in range(3):
                part = found[:3, 97 * channel : 97 * channel + 96].int()
                expected = painted[:, :, channel * (width + 1) :][:, :, :width]
                # The page has 254 levels, so the ends of a bar differ by a part of a pixel.
                differing = ((part - expected).abs() > 12).any(0).sum(0)
                assert differing.max() <= 4


def test_filters_of_one_tap_are_cells_in_1d_as_in_2d(opened: Any) -> None:
    of_signals, of_images = (compare(*trained_layers(2, 9, *taps)) for taps in ((1,), (1, 1)))
    found = _pixels(opened(of_signals), 0, 0)
    assert found.shape == (4, 5, 5)  # 3 x 3 cells of a pixel, with gaps
    assert torch.equal(found, _pixels(opened(of_images), 0, 0))


@pytest.mark.parametrize("channels", [3, 2])
def test_volumes_are_rows_of_slices(opened: Any, channels: int) -> None:
    compared = compare(*trained_layers(2, channels, 2, 4, 5))
    tab = opened(compared)
    weights = _weights(compared)
    half_range = torch.stack([_largest(w) for w in weights[:-1]]).amax()
    found = _pixels(tab, 7, 0)
    rows = 1 if channels == 3 else 2
    assert found.shape == (4, 5 * rows - 1, 11)
    for k in range(2):
        for c in range(rows):
            part = weights[0][7:8, :, k] if channels == 3 else weights[0][7:8, c : c + 1, k]
            expected = paint_tiles(part, half_range[None], is_rgb=channels == 3)[0].movedim(-1, 0)
            at = found[:3, 5 * c : 5 * c + 4, 6 * k : 6 * k + 5]
            assert torch.equal(at, expected)
    tab.locator(".number").first.click()
    tab.locator(".frame").first.focus()
    for key in ("ArrowDown", *["ArrowRight"] * 6):
        tab.keyboard.press(key)
    said = tab.locator("#weight").text_content().replace("−", "-")
    kind = "red green blue" if channels == 3 else "channel 0"
    assert said.startswith(f"Slice 1, row 1, column 1, {kind}: ")
    i = compared.most_changed()[0]
    expected = weights[0][i, : 3 if channels == 3 else 1, 1, 1, 1].tolist()
    read = [float(number) for number in said.split(": ")[1].split(", ")]
    assert read == pytest.approx(expected, abs=weights[0][i].abs().max().item() / 254 + 6e-3)


def test_taps_can_be_read(opened: Any) -> None:
    compared = compare(*trained_layers(2, 1, 24))
    tab = opened(compared)
    tab.locator(".number").first.click()
    tab.locator(".frame").first.focus()
    tab.keyboard.press("ArrowRight")
    said = tab.locator("#weight").text_content()
    assert said.startswith("Tap 1, channel 0: ")
    box = tab.locator(".frame").first.bounding_box()
    tab.mouse.move(box["x"] + box["width"] * 20.5 / 24, box["y"] + 20)
    assert tab.locator("#weight").text_content() == "Tap 20, channel 0"


@pytest.mark.parametrize("size", [(1, 64), (25, 1), (3, 64)])
@pytest.mark.parametrize("channels", [1, 3])
def test_slender_kernels_are_stretched(opened: Any, size: tuple[int, int], channels: int) -> None:
    compared = compare(*trained_layers(2, channels, *size))
    tab = opened(compared)
    every = _weights(compared)
    end = torch.stack([_largest(w) for w in every[:-1]]).amax()
    for i in (0, 7):
        expected = paint_tiles(stretch(every[0][i : i + 1]), end[None], is_rgb=channels == 3)[0]
        found = _pixels(tab, i, 0)
        assert torch.equal(found[:3], expected.movedim(-1, 0))
    assert tab.get_by_text("Each weight is drawn").count() == 1
    tab.locator(".number", has_text=re.compile("^7$")).click()
    box = tab.locator(".frame").first.bounding_box()
    tab.mouse.move(box["x"] + 0.5, box["y"] + box["height"] * (1 - 0.4 / size[0]))
    assert tab.locator("#weight").text_content().startswith(f"Row {size[0] - 1}, column 0, ")

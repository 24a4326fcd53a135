"""The pixels of the Kernels tab equal those that Python draws for weights and responses."""

import base64
import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tab_page import Open, Tab, assert_painted, unzoomed
from tab_prepared import (
    BASE,
    DEEP,
    GREY,
    GREY_PROBE,
    GROUPED,
    GROUPED_GEOMETRY,
    GROUPED_PROBE,
    LARGE,
    PROBE,
    SPOILT,
    STEPS,
    picture,
)
from torch import Tensor

from kernelviz_callback.filters.measures import largest_magnitude
from kernelviz_callback.filters.responses import channel_responses, summed_responses
from kernelviz_callback.health.verdict_names import VERDICT_COLOURS
from kernelviz_callback.probe.probe import Probe

pytestmark = pytest.mark.browser

FIRST, LAST = STEPS[0], STEPS[-1]
SOME = (0, 3, 7, 11)  # filters, one of them with a verdict


def _ends(values: Tensor, scale: str, run: dict[int, np.ndarray]) -> Tensor:
    own = largest_magnitude(values)
    widest = {"layer": own.max(), "run": torch.tensor(max(abs(w).max() for w in run.values()))}
    return own if scale == "filter" else widest[scale].expand(len(own)).float()


def _check_kernels(
    tab: Tab, run: str, values: Tensor, ends: Tensor, *, filters: Any = SOME, is_rgb: bool = False
) -> None:
    """Compare tiles with filters: as one colour picture, or channel by channel, in rows."""
    grid = tab.grid("kernels", run)
    assert grid.step == tab.step
    _, channels, height, width = values.shape
    planes = 1 if is_rgb else channels
    across = min(planes, (grid.width // grid.zoom + 1) // (width + 1))
    down = -(-planes // across)
    size = (down * (height + 1) - 1) * grid.zoom, (across * (width + 1) - 1) * grid.zoom
    for i in filters:
        pixels = unzoomed(grid.tile(i, *size), grid.zoom)
        for k in range(planes):
            y, x = divmod(k, across)
            top, left = y * (height + 1), x * (width + 1)
            found = pixels[top : top + height, left : left + width]
            assert_painted(found, values[i] if is_rgb else values[i, k : k + 1], float(ends[i]))
            rule = pixels[top : top + height, left + width : left + width + 1]
            assert (rule[..., 3] == 0).all()


@pytest.mark.parametrize("scale", ["filter", "layer", "run"])
def test_tiles_are_the_weights(opened: Open, scale: str) -> None:
    tab = opened(runs=["base"], layer="conv1")
    tab.choose("scale", scale)
    for step in (LAST, FIRST, 30) if scale == "run" else (30,):
        tab.go(step)
        weights = torch.from_numpy(BASE[step])
        ends = _ends(weights, scale, BASE)
        tab.choose("channel", "rgb")
        _check_kernels(tab, "base", weights, ends, is_rgb=True)
        for channel in (0, 2):
            tab.choose("channel", str(channel))
            _check_kernels(tab, "base", weights[:, channel : channel + 1], ends)
        tab.choose("channel", "all")
        _check_kernels(tab, "base", weights, ends)
        said = tab.frame.locator('.pane.kernels [data-role="scale-high"]').text_content()
        low, high = f"{ends.min():.3f}", f"{ends.max():.3f}"
        assert said == (f"±{low} to {high}" if scale == "filter" else f"+{high}")


@pytest.mark.parametrize(("kind", "of"), [("first", 0), ("previous", 100), ("pinned", 16)])
def test_tiles_are_differences(opened: Open, kind: str, of: int) -> None:
    tab = opened(runs=["base"], layer="conv1")
    if kind == "pinned":
        tab.go(of)
    tab.select("difference", kind)
    tab.go(150)
    change = torch.from_numpy(BASE[150] - BASE[of])
    for scale in ("filter", "layer"):
        tab.choose("scale", scale)
        _check_kernels(tab, "base", change, _ends(change, scale, BASE), is_rgb=True)
    tab.choose("channel", "1")
    _check_kernels(tab, "base", change[:, 1:2], _ends(change, scale, BASE))
    tab.go(of)
    grid = tab.grid("kernels", "base")
    if kind != "previous":
        assert set(np.unique(grid.tile(0, 7 * grid.zoom, 7 * grid.zoom)[..., 0])) == {247}


def test_values_without_a_scale_are_explained(opened: Open) -> None:
    tab = opened(runs=["base"], layer="conv1", step=16, filter=3)
    tab.select("difference", "pinned")
    tab.rest()
    note = tab.frame.locator('.pane.kernels [data-role="pane-note"]')
    assert note.text_content() == note.get_attribute("title") == "− step 16"
    for kind in ("kernels", "responses"):
        said = tab.frame.locator(f'.pane.{kind} [data-role="scale-high"]')
        assert said.text_content() == "no difference"
    assert "kernel, no difference" in tab.role("drawer").text_content()
    tab.go(30)
    tab.rest()
    assert said.text_content() != "no difference"


def test_layers_of_one_and_of_five_channels(opened: Open) -> None:
    tab = opened(runs=["grey"], step=0)
    weights = torch.from_numpy(GREY[0])
    _check_kernels(tab, "grey", weights, _ends(weights, "filter", GREY), filters=range(8))
    tab = opened(runs=["base"], layer="deep", step=60)
    weights = torch.from_numpy(DEEP[60])
    ends = _ends(weights, "filter", DEEP)
    _check_kernels(tab, "base", weights, ends, filters=range(6))
    tab.select("channel", "3")
    _check_kernels(tab, "base", weights[:, 3:4], ends, filters=range(6))


def test_a_large_layer_is_drawn_from_eight_bits(opened: Open) -> None:
    tab = opened(runs=["large"], step=10)
    weights = torch.from_numpy(LARGE[10])
    _check_kernels(tab, "large", weights, _ends(weights, "filter", LARGE), filters=(0, 31))


def test_weights_that_are_not_finite_are_striped(opened: Open) -> None:
    tab = opened(runs=["spoilt"], step=10)
    grid = tab.grid("kernels", "spoilt")
    zoom = grid.zoom
    for i, y, x in ((2, 3, 4), (1, 0, 0)):
        tile = grid.tile(i, 5 * zoom, 5 * zoom)
        block = tile[y * zoom : (y + 1) * zoom, x * zoom : (x + 1) * zoom, :3]
        colours = {tuple(pixel) for pixel in block.reshape(-1, 3).tolist()}
        assert colours == {(255, 0, 255), (0, 0, 0)}
        beside = torch.from_numpy(SPOILT[10][i])[:, 2:3, 2:3]
        end = largest_magnitude(torch.from_numpy(SPOILT[10]))[i]
        middle = tile[2 * zoom : 3 * zoom, 2 * zoom : 3 * zoom]
        assert_painted(unzoomed(middle, zoom), beside, float(end))


def test_a_verdict_frames_its_tile(opened: Open) -> None:
    tab = opened(runs=["base"], layer="conv1", step=30)
    grid = tab.grid("kernels", "base")
    for i in (3, 4):
        x, y, width, _ = grid.cell(i)
        frame = grid.pixels[y - 1, x : x + width]
        if i == 3:
            assert (frame == [*VERDICT_COLOURS["near-zero"], 255]).all()
        else:
            assert (frame == 0).all()


# Responses.


def _probe(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image)


def _check_responses(
    tab: Tab, run: str, expected: Tensor, ends: Tensor, filters: Any = SOME
) -> None:
    tab.rest()
    grid = tab.grid("responses", run)
    assert grid.step == tab.step
    for i in filters:
        found = grid.tile(i, *expected.shape[2:])
        assert_painted(found, expected[i], float(ends[i]))


@pytest.mark.parametrize(("zoom", "shrink"), [(8, 1), (4, 2)])
def test_response_tiles_equal_those_of_torch(opened: Open, zoom: int, shrink: int) -> None:
    tab = opened(runs=["base"], layer="conv1", zoom=zoom)
    for step in (LAST, FIRST):
        tab.go(step)
        weights = torch.from_numpy(BASE[step])
        tab.choose("channel", "rgb")
        for scale in ("layer", "filter"):
            tab.choose("scale", scale)
            expected = channel_responses(_probe(PROBE), weights, shrink=shrink)
            _check_responses(tab, "base", expected, _ends(expected, scale, {0: PROBE}))
        tab.choose("response", "sum")
        summed = summed_responses(_probe(PROBE), weights, shrink=shrink)
        _check_responses(tab, "base", summed, largest_magnitude(summed))
        tab.choose("response", "channels")
        tab.choose("channel", "1")
        one = expected[:, 1:2]
        _check_responses(tab, "base", one, largest_magnitude(one))


def test_responses_of_a_grouped_dilated_layer(opened: Open) -> None:
    tab = opened(runs=["grouped"], layer="dw", step=8, zoom=16)
    weights = torch.from_numpy(GROUPED[8])
    expected = summed_responses(_probe(GROUPED_PROBE), weights, **GROUPED_GEOMETRY)
    _check_responses(tab, "grouped", expected, largest_magnitude(expected), range(6))
    tab.choose("response", "channels")
    tab.click_tile(4, run="grouped")
    planes = channel_responses(_probe(GROUPED_PROBE), weights, **GROUPED_GEOMETRY)[4]
    found = tab.pixels('canvas[data-kind="response"]')
    assert found.shape == (56, 121, 4)
    for k, left in enumerate((0, 61)):
        assert_painted(found[:, left : left + 60], planes[k : k + 1], float(planes.abs().max()))
    assert (found[:, 60, 3] == 0).all()


def test_responses_of_a_one_channel_layer(opened: Open) -> None:
    tab = opened(runs=["grey"], step=200, zoom=12)
    expected = summed_responses(_probe(GREY_PROBE), torch.from_numpy(GREY[200]))
    _check_responses(tab, "grey", expected, largest_magnitude(expected), range(8))


def test_the_large_response_follows_the_slider_at_full_size(opened: Open) -> None:
    tab = opened(runs=["base"], layer="conv1", filter=5)
    for step in (LAST, FIRST, 60):
        tab.go(step)
        tab.rest()
        expected = channel_responses(_probe(PROBE), torch.from_numpy(BASE[step]))[5]
        found = tab.pixels('canvas[data-kind="response"]')
        assert found.shape == (56, 56, 4)
        assert_painted(found, expected, float(expected.abs().max()))


def _drop(tab: Tab, content: bytes, name: str) -> None:
    files = tab.frame.evaluate_handle(
        """([text, name]) => {
          const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
          const dropped = new DataTransfer();
          dropped.items.add(new File([bytes], name));
          return dropped;
        }""",
        [base64.b64encode(content).decode(), name],
    )
    for event in ("dragenter", "dragover", "drop"):
        tab.frame.dispatch_event("main", event, {"dataTransfer": files})


def _png(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    levels = np.rint(image * 255).astype(np.uint8).transpose(1, 2, 0)
    Image.fromarray(levels).save(content, "PNG")
    return content.getvalue()


@pytest.mark.parametrize("way", ["dropped", "chosen"])
def test_a_chosen_image_stays_in_the_browser(opened: Open, way: str) -> None:
    tab = opened(runs=["base"], layer="conv1", filter=2, step=30, zoom=8)
    tab.rest()
    own = picture(3, 62, 62)[::-1, ::-1].copy()
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(f"{request.method} {request.url}"))
    if way == "dropped":
        _drop(tab, _png(own), "mine.png")
    else:
        with tab.page.expect_file_chooser() as chooser:
            tab.role("choose-probe").click()
        chooser.value.set_files({"name": "mine.png", "mimeType": "", "buffer": _png(own)})
    tab.frame.get_by_text("mine.png, 62 × 62").wait_for()
    tab.rest()
    weights = torch.from_numpy(BASE[30])
    expected = channel_responses(_probe(own), weights)
    _check_responses(tab, "base", expected, largest_magnitude(expected))
    large = tab.pixels('canvas[data-kind="response"]')
    assert_painted(large, expected[2], float(expected[2].abs().max()))
    other = own[:, ::-1].copy()
    _drop(tab, _png(other), "mine.png")  # with the same name and size
    tab.frame.wait_for_function("document.body.dataset.responses === 'stale'")
    expected = channel_responses(_probe(other), weights)
    _check_responses(tab, "base", expected, largest_magnitude(expected))
    assert all(one.startswith("GET ") and "/timeline?" in one for one in asked)
    tab.role("run-probe").click()
    tab.frame.get_by_text("image, 62 × 62").wait_for()
    tab.rest()
    expected = channel_responses(_probe(PROBE), weights)
    _check_responses(tab, "base", expected, largest_magnitude(expected))


def test_a_dropped_image_is_converted_for_any_number_of_channels(opened: Open) -> None:
    tab = opened(runs=["base"], layer="deep", step=30, filter=4)
    message = tab.frame.locator('.pane.responses [data-role="pane-message"]')
    assert "reads 5 input channels; the probe (image) has 3" in message.text_content()
    assert "Drop an image" in message.text_content()
    _drop(tab, _png(PROBE), "mine.png")
    tab.frame.get_by_text("mine.png, 62 × 62").wait_for()
    tab.rest()
    note = tab.frame.locator('.pane.responses [data-role="pane-note"]').text_content()
    assert note.startswith("of the layer alone to mine.png, in grey in each of 5 channels")
    grey = Probe(_probe(PROBE), "mine.png").for_channels(1).repeat(5, 1, 1)
    expected = summed_responses(grey, torch.from_numpy(DEEP[30]))[4]
    found = tab.pixels('canvas[data-kind="response"]')
    assert_painted(found, expected, float(expected.abs().max()))


def test_a_file_that_is_not_an_image_is_reported(opened: Open) -> None:
    tab = opened(runs=["base"], step=0)
    _drop(tab, b"no image", "notes.txt")
    tab.frame.get_by_text("notes.txt is not an image").wait_for()

"""What the Kernels tab says about responses: of what, to which image, and at which size."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tab_page import Open, Site, Tab, assert_painted, opening, serving, unzoomed
from tab_prepared import BASE, PROBE, moving_weights, picture
from tab_runs import write_run
from torch import Tensor

from kernelviz_callback.filters.measures import largest_magnitude
from kernelviz_callback.filters.responses import channel_responses
from kernelviz_callback.probe.probe import Probe

pytestmark = pytest.mark.browser

STEP = 10
TINY_PROBE = picture(3, 8, 8)
RUNS = {
    "tiny": (moving_weights((0, STEP), (6, 3, 5, 5), 1), TINY_PROBE),
    "deep": (moving_weights((0, STEP), (6, 16, 3, 3), 2), picture(1, 60, 60)),
    "grey": (moving_weights((0, STEP), (6, 1, 3, 3), 3), PROBE),
}


@pytest.fixture(scope="module")
def runs(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("notes")
    for name, (weights, probe) in RUNS.items():
        write_run(folder / "logs" / name, weights, probe=probe)
    with serving(browser, folder, lambda timeline: len(timeline["runs"]) == 3) as made:
        yield made


@pytest.fixture
def shown(runs: Site) -> Iterator[Open]:
    with opening(runs) as look:
        yield look


def _note(tab: Tab) -> str:
    return tab.frame.locator('.pane.responses [data-role="pane-note"]').text_content()


def _ends(tab: Tab) -> list[float]:
    scale = tab.frame.locator(".pane.responses .scale")
    return [float(scale.get_attribute(f"data-{name}")) for name in ("low", "high")]


def _caption(tab: Tab) -> str:
    return tab.frame.locator(".plate figure:nth-child(2) figcaption").text_content()


def _full(step: int, shrink: int = 1) -> Tensor:
    weights = torch.from_numpy(BASE[step])
    return largest_magnitude(
        channel_responses(torch.from_numpy(PROBE), weights, shrink=shrink)
    ).flatten()


@pytest.mark.parametrize(("zoom", "shrink"), [(8, 1), (4, 2)])
def test_averaged_responses_are_called_averaged(opened: Open, zoom: int, shrink: int) -> None:
    tab = opened(runs=["base"], layer="conv1", zoom=zoom, filter=5, step=200)
    averaged = _full(200, shrink)
    assert _ends(tab) == pytest.approx([*map(float, averaged.aminmax())], rel=1e-3)
    assert _note(tab) == ("to image, averaged 2x2" if shrink == 2 else "to image")
    said = re.fullmatch(r"response at full size, ±(\S+)", _caption(tab))
    assert float(said[1]) == pytest.approx(float(_full(200)[5]), rel=1e-3)


def test_a_small_response_has_sharp_pixels(shown: Open) -> None:
    tab = shown(runs=["tiny"], step=STEP, filter=2)
    weights = torch.from_numpy(RUNS["tiny"][0][STEP])
    expected = channel_responses(torch.from_numpy(TINY_PROBE), weights)
    assert expected.shape == (6, 3, 4, 4)
    grid = tab.grid("responses", "tiny")
    zoom = min(grid.height, grid.width) // 4
    assert zoom > 4
    for i in range(6):
        found = unzoomed(grid.tile(i, 4 * zoom, 4 * zoom), zoom)
        assert_painted(found, expected[i], float(expected[i].abs().max()))
    style = "(canvas) => getComputedStyle(canvas).imageRendering"
    for enlarged in ('canvas[data-kind="response"]', "canvas.probe-picture"):
        assert tab.frame.locator(enlarged).evaluate(style) == "pixelated"


def test_responses_of_a_deeper_layer_are_called_those_of_the_layer_alone(shown: Open) -> None:
    tab = shown(runs=["deep"], step=STEP, filter=2)
    said = "of the layer alone to image, in each of 16 channels"
    assert _note(tab).startswith(said)
    assert tab.frame.get_by_role("img", name=f"Response of filter 2 {said}").is_visible()


def test_a_probe_that_is_read_in_grey_is_shown_in_grey(shown: Open) -> None:
    tab = shown(runs=["grey"], step=STEP)
    assert _note(tab).startswith("to image, in grey")
    assert tab.role("probe-name").text_content() == "image, 62 × 62, in grey"
    found = tab.pixels("canvas.probe-picture")[..., :3].astype(np.int16)
    grey = Probe(torch.from_numpy(PROBE), "image").for_channels(1)[0].numpy()
    assert abs(found - np.rint(grey * 255)[..., None]).max() <= 1
    tab = shown(runs=["tiny"], step=STEP)
    assert tab.role("probe-name").text_content() == "image, 8 × 8"
    found = tab.pixels("canvas.probe-picture")[..., :3]
    assert np.array_equal(found, np.rint(TINY_PROBE * 255).transpose(1, 2, 0))

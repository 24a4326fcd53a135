"""Frequency responses of 1-D layers in the Kernels tab."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from tab_dimensions import serving_dimensions, weights_of
from tab_page import Grid, Open, Site, assert_painted, opening
from torch import Tensor

from kernelviz_callback.drawing.curves import draw_curves
from kernelviz_callback.filters.frequency import frequency_gain

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving_dimensions(browser, tmp_path_factory.mktemp("dimensions")) as made:
        yield made


@pytest.fixture
def opened(site: Site) -> Iterator[Open]:
    with opening(site) as look:
        yield look


def _assert_gains(grid: Grid, gain: Tensor, ends: Tensor) -> None:
    """Compare every tile of a response grid with the gains, drawn from the bottom."""
    high = min(grid.height, int(1.5 * grid.width))
    drawn = draw_curves(gain[:, None], ends, height=high, width=grid.width, base="bottom")
    for i in range(len(gain)):
        assert_painted(grid.tile(i, high, grid.width), drawn[i], float(ends[i]))


def _ends(gain: Tensor, scale: str) -> Tensor:
    own = gain.amax(1)
    return own if scale == "filter" else own.amax().expand(len(own))


@pytest.mark.parametrize("layer", ["audio", "stereo", "deep", "long", "spread", "broad"])
@pytest.mark.parametrize("scale", ["filter", "layer"])
def test_the_responses_to_a_signal_are_frequency_responses(
    opened: Open, layer: str, scale: str
) -> None:
    run = "broad" if layer == "broad" else "all"
    tab = opened(runs=[run], layer=layer, scale=scale)
    for step in (20, 0):
        tab.go(step)
        tab.rest()
        gain = frequency_gain(weights_of(layer, step), dilation=3 if layer == "spread" else 1)
        grid = tab.grid("responses", run)
        assert grid.step == step
        assert grid.order == tab.grid("kernels", run).order
        _assert_gains(grid, gain, _ends(gain, scale))


def test_channels_and_differences_have_frequency_responses(opened: Open) -> None:
    tab = opened(runs=["all"], layer="stereo", step=20)
    tab.select("channel", "2")
    tab.rest()
    gain = frequency_gain(weights_of("stereo", 20)[:, 2:])
    _assert_gains(tab.grid("responses", "all"), gain, _ends(gain, "filter"))
    tab.select("channel", "all")
    tab.select("difference", "first")
    tab.rest()
    gain = frequency_gain(weights_of("stereo", 20) - weights_of("stereo", 0))
    _assert_gains(tab.grid("responses", "all"), gain, _ends(gain, "filter"))


def test_a_filter_with_nan_has_no_frequency_response(opened: Open) -> None:
    tab = opened(runs=["all"], layer="spoilt", step=0)
    grid = tab.grid("responses", "all")
    found = grid.tile(2, grid.height, grid.width)[..., :3].reshape(-1, 3).tolist()
    assert {tuple(pixel) for pixel in found} == {(255, 0, 255), (0, 0, 0)}
    gain = frequency_gain(weights_of("spoilt", 0)[:2])
    drawn = draw_curves(
        gain[:, None], gain.amax(1), height=grid.height, width=grid.width, base="bottom"
    )
    assert_painted(grid.tile(1, grid.height, grid.width), drawn[1], float(gain[1].max()))


@pytest.mark.parametrize(("layer", "dilation"), [("audio", 1), ("spread", 3), ("broad", 1)])
@pytest.mark.parametrize("scale", ["filter", "layer"])
def test_the_opened_filter_has_a_frequency_response(
    opened: Open, layer: str, dilation: int, scale: str
) -> None:
    run = "broad" if layer == "broad" else "all"
    tab = opened(runs=[run], layer=layer, scale=scale, filter=5)
    for step in (20, 0):
        tab.go(step)
        tab.rest()
        gain = frequency_gain(weights_of(layer, step), dilation=dilation)
        end = _ends(gain, scale)[5:6]
        found = tab.pixels('canvas[data-kind="response"]')
        height, width, _ = found.shape
        assert height == round(width * 56 / 129) > 100
        drawn = draw_curves(gain[5:6, None], end, height=height, width=width, base="bottom")
        assert_painted(found, drawn[0], float(end))


def test_the_page_names_frequency_responses(opened: Open) -> None:
    tab = opened(runs=["broad"], layer="broad", filter=3)
    pane = tab.frame.locator(".pane.responses")
    assert pane.locator("h2").text_content() == "Frequency responses"
    part = f"of the first {weights_of('broad', 0).shape[1]} of 600 channels"
    note = pane.locator('[data-role="pane-note"]').text_content()
    assert note == f"{part}, 0 to half the sampling rate"
    tops = frequency_gain(weights_of("broad", 20)).amax(1)
    said = pane.locator('[data-role="scale-high"]').text_content()
    low, high = re.fullmatch(r"top: (\S+) to (\S+)", said).groups()
    assert [float(low), float(high)] == pytest.approx([*map(float, tops.aminmax())], rel=0.01)
    caption = tab.frame.locator(".plate figure:nth-child(2) figcaption").text_content()
    assert caption.startswith(f"frequency response {part}, 0 to half the sampling rate, top: ")
    assert tab.frame.get_by_role("img", name="Frequency response of filter 3").is_visible()


def test_switching_between_1d_and_2d_layers(opened: Open) -> None:
    tab = opened(runs=["all"], layer="audio", filter=3)
    title = tab.frame.locator(".pane.responses h2")
    caption = tab.frame.locator(".plate figure:nth-child(2) figcaption")
    gain = frequency_gain(weights_of("audio", 20))
    for _ in range(2):
        assert title.text_content() == "Frequency responses"
        assert caption.text_content().startswith("frequency response, 0 to")
        _assert_gains(tab.grid("responses", "all"), gain, gain.amax(1))
        tab.select("layer", "picture")
        tab.rest()
        assert title.text_content() == "Responses"
        assert caption.text_content().startswith("response at full size, ±")
        tab.select("layer", "audio")
        tab.rest()

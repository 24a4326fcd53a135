"""The panes of the Kernels tab: a view always looks the same, independent of earlier views."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tab_page import Open, Tab, link_to
from tab_prepared import STEPS

pytestmark = pytest.mark.browser

SMALL = {"width": 1150, "height": 500}  # wide enough for an unfolded side bar


@pytest.fixture
def with_image(opened: Open, tmp_path: Path) -> Open:
    """Open tabs with responses to an image so large that they are shrunk to the tiles."""
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")

    def look(**view: Any) -> Tab:
        tab = opened(**view)
        tab.role("probe-file").set_input_files(tmp_path / "noise.png")
        tab.role("probe-name").get_by_text("noise.png").wait_for()
        tab.rest()
        return tab

    return look


def _responses(tab: Tab) -> tuple[str, np.ndarray]:
    """Return the end of the scale of the responses, and their pixels."""
    said = tab.frame.locator('.pane.responses [data-role="scale-high"]').text_content()
    return said, tab.grid("responses", "large").pixels


def _await(tab: Tab, expected: tuple[str, np.ndarray]) -> None:
    """Wait for responses. The page begins to compute them only when the slider rests."""
    tab.frame.locator(".pane.responses").get_by_text(expected[0], exact=True).wait_for()
    tab.rest()
    np.testing.assert_array_equal(_responses(tab)[1], expected[1])


@pytest.mark.parametrize("scale", ["filter", "run"])
def test_responses_are_the_same_for_the_same_view(with_image: Open, scale: str) -> None:
    view = {"runs": ["large"], "channel": 0, "scale": scale}
    whole, beside_drawer = (_responses(with_image(**view, **more)) for more in ({}, {"filter": 3}))
    small = _responses(with_image(settings={"viewport": SMALL}, **view))
    assert len({whole[0], beside_drawer[0], small[0]}) == 3
    tab = with_image(**view)
    tab.click_tile(3, run="large")
    _await(tab, beside_drawer)
    tab.page.keyboard.press("Escape")
    _await(tab, whole)
    tab.page.set_viewport_size(SMALL)
    _await(tab, small)


def test_the_focus_stays_when_a_run_is_added_before_it(opened: Open) -> None:
    tab = opened(runs=["other"], layer="conv1")
    tab.frame.locator('.pane.kernels [data-role="tiles"]').focus()
    link = link_to(runs=["base", "other"], layer="conv1")
    tab.frame.evaluate("(link) => { location.hash = `kernels&${link}`; }", link)
    tab.frame.locator('canvas[data-kind="kernels"][data-run="base"]').wait_for()
    tab.rest()
    panes = tab.frame.locator(".pane.kernels").evaluate_all(
        "(panes) => panes.map((pane) => [pane.ariaLabel, pane.contains(document.activeElement)])"
    )
    assert panes == [
        ["Kernels of base, layer conv1", False],
        ["Kernels of other, layer conv1", True],
    ]


def test_a_layer_shown_again_is_drawn_at_once(opened: Open) -> None:
    tab = opened(runs=["base"], layer="conv1", step=STEPS[4], verdict="near-zero")
    held: list[Any] = []
    tab.page.route("**/kernels/snapshots?*", lambda route: held.append(route))
    tab.frame.evaluate(
        """async () => {
          const layer = document.querySelector('select[data-role="layer"]');
          for (const name of ["deep", "conv1"]) {
            layer.value = name;
            layer.dispatchEvent(new Event("change"));
            for (let k = 0; k < 3; k++) await new Promise(requestAnimationFrame);
          }
        }"""
    )
    assert held
    tab.page.unroute("**/kernels/snapshots?*")
    for route in held:
        route.continue_()
    tab.rest()
    assert tab.grid("kernels", "base").step == STEPS[4]

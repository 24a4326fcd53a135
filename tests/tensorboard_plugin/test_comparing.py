"""Runs side by side in the Kernels tab, and the order of their filters."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from tab_page import Open, Site, Tab, assert_painted, link_to, unzoomed
from tab_prepared import BASE, OTHER, OTHER_STEPS, PROBE, STEPS

from kernelviz_callback.comparison.matching import cosines
from kernelviz_callback.filters.responses import channel_responses

pytestmark = pytest.mark.browser

FAINT, BRIGHT = range(40, 100), 255  # opacity of a tile, of 255


def _check(tab: Tab, run: str, weights: np.ndarray, filters: Any) -> None:
    grid = tab.grid("kernels", run)
    side = 7 * grid.zoom
    for i in filters:
        own = torch.from_numpy(weights[i])
        assert_painted(unzoomed(grid.tile(i, side, side), grid.zoom), own, float(own.abs().max()))


def _ordered(tab: Tab, expected: Any, run: str = "base") -> None:
    """Wait until the tiles have an order, which the page computes in a worker."""
    tab.frame.wait_for_selector(
        f'canvas[data-kind="kernels"][data-run="{run}"]'
        f'[data-order="{",".join(str(i) for i in expected)}"]',
        timeout=10_000,
    )
    tab.rest()


def test_two_runs_share_the_slider(opened: Open) -> None:
    tab = opened(runs=["base"], layer="conv1")
    tab.role("runs").get_by_label("other").check()
    tab.rest()
    steps = sorted({*STEPS, *OTHER_STEPS})
    assert tab.role("slider").get_attribute("aria-valuemax") == str(len(steps) - 1)
    tab.page.keyboard.press("Home")
    for step in steps:
        tab.wait("Number(body.step) === given", step)
        tab.drawn()
        for run, of in (("base", BASE), ("other", OTHER)):
            own = max(s for s in of if s <= step)
            assert tab.grid("kernels", run).step == own
            if step in (0, 5, 50, 300):
                _check(tab, run, of[own], (0, 9))
        tab.page.keyboard.press("ArrowRight")
    tab.go(50)
    notes = tab.frame.locator('.pane.kernels [data-role="pane-note"]').all_text_contents()
    assert ["step 30" in note for note in notes] == [True, False]
    tab.role("runs").get_by_label("base").uncheck()
    tab.drawn()
    assert tab.frame.locator('canvas[data-run="base"]').count() == 0
    tab.role("runs").get_by_label("other").click()
    assert tab.role("runs").get_by_label("other").is_checked()


def test_two_runs_on_one_scale(opened: Open) -> None:
    tab = opened(runs=["base", "other"], layer="conv1", step=4, scale="run")
    legend = tab.role("legend").locator("[data-verdict=near-zero] b")
    assert legend.text_content() == "1 · 0"
    end = max(np.abs(w).max() for of in (BASE, OTHER) for w in of.values())
    for run, weights in (("base", BASE[4]), ("other", OTHER[0])):
        grid = tab.grid("kernels", run)
        side = 7 * grid.zoom
        for i in (0, 9):
            found = unzoomed(grid.tile(i, side, side), grid.zoom)
            assert_painted(found, torch.from_numpy(weights[i]), float(end))


def test_the_scale_of_responses_does_not_depend_on_earlier_views(opened: Open) -> None:
    tab = opened(runs=["base", "other"], layer="conv1", step=300, scale="run")
    for step in (300, 4):
        tab.go(step)
        tab.rest()
        shrunk = {name: tab.grid("responses", name) for name in ("base", "other")}
        ends = {
            float(
                tab.frame.locator('.pane.responses [data-role="scale-high"]').nth(k).text_content()
            )
            for k in range(2)
        }
        assert len(ends) == 1, shrunk
        again = opened(runs=["base", "other"], layer="conv1", step=step, scale="run")
        for name, grid in shrunk.items():
            assert np.array_equal(grid.pixels, again.grid("responses", name).pixels)
        again.page.close()


def test_a_run_that_is_not_loaded_does_not_keep_the_scale_of_another_step(
    site: Site, opened: Open
) -> None:
    page = site.page()
    asked: list[str] = []

    def answer(route: Any) -> None:
        asked.append(route.request.url)
        if len(asked) == 1:
            route.continue_()  # the last snapshot and the first

    page.route(re.compile(r"snapshots\?run=other"), answer)
    page.goto(site.entry(link_to(runs=["base", "other"], layer="conv1", scale="run", zoom=8)))
    tab = Tab(page, page.main_frame)
    tab.wait("body.responses === 'ready'")
    tab.role("step").fill("50")
    tab.role("step").press("Enter")
    own = channel_responses(torch.from_numpy(PROBE), torch.from_numpy(BASE[30])).abs().max()
    drawn = 'canvas[data-kind="responses"][data-run="base"][data-state="ready"][data-step="30"]'
    tab.frame.locator(drawn).wait_for()
    said = tab.frame.locator('.pane.responses [data-role="scale-high"]').first.text_content()
    assert float(said) == pytest.approx(own.item(), abs=2e-3)


def test_the_tab_key_visits_panes_in_their_order(opened: Open) -> None:
    tab = opened(runs=["other"], layer="conv1")
    tab.role("runs").get_by_label("base").check()
    tab.rest()
    places = tab.frame.locator(".pane").evaluate_all(
        "(panes) => panes.map((pane) => [pane.offsetTop, pane.offsetLeft])"
    )
    assert len(places) == 4
    assert places == sorted(places)


def _partners(one: np.ndarray, other: np.ndarray) -> dict[int, int]:
    similarity = cosines(torch.from_numpy(one), torch.from_numpy(other)).numpy()
    rows, columns = linear_sum_assignment(similarity, maximize=True)
    return dict(zip(rows.tolist(), columns.tolist(), strict=True))


def _chance() -> float:
    """Return the mean cosine of matched filters of noise, over many draws."""
    rng = np.random.default_rng(0)
    means = []
    for _ in range(100):
        one, other = rng.standard_normal((12, 3, 7, 7)), rng.standard_normal((10, 3, 7, 7))
        similarity = cosines(torch.from_numpy(one), torch.from_numpy(other)).numpy()
        means.append(similarity[linear_sum_assignment(similarity, maximize=True)].mean())
    return float(np.mean(means))


def test_pairs_of_filters_equal_those_of_scipy(opened: Open) -> None:
    tab = opened(runs=["base", "other"], layer="conv1")
    tab.role("match").check()
    partners = _partners(BASE[200], OTHER[120])
    _ordered(tab, [partners[i] for i in range(12) if i in partners], "other")
    one, other = (torch.from_numpy(w).flatten(1) for w in (BASE[200], OTHER[120]))
    pairs = torch.cosine_similarity(one[[*partners]], other[[*partners.values()]])
    said = tab.frame.get_by_text("Mean cosine of the pairs").text_content()
    mean, chance = (float(number) for number in re.findall(r"\d\.\d+", said))
    assert mean == pytest.approx(pairs.mean().item(), abs=2e-3)
    assert chance == pytest.approx(_chance(), abs=0.03)
    alone = set(range(12)) - set(partners)
    assert len(alone) == 2
    grid = tab.grid("kernels", "base")
    for i in range(12):
        alpha = int(grid.tile(i, 2, 2)[0, 0, 3])
        assert alpha in FAINT if i in alone else alpha == BRIGHT
    assert (tab.grid("kernels", "other").pixels[..., 3] > 250).any()
    some = min(partners)
    tab.click_tile(some)
    titles = tab.role("drawer").locator(".plate h3").all_text_contents()
    assert titles == ["base", f"other, filter {partners[some]}"]
    for run, number in (("base", some), ("other", partners[some])):
        selector = f'canvas[data-kind="kernel"][data-run="{run}"]'
        zoom = int(tab.frame.locator(selector).get_attribute("data-zoom"))
        own = torch.from_numpy({"base": BASE[200], "other": OTHER[300]}[run][number])
        assert_painted(unzoomed(tab.pixels(selector), zoom), own, float(own.abs().max()))
    tab.page.mouse.move(*tab.tile_at("kernels", "base", some))
    lines = tab.role("tip").locator("span").all_text_contents()
    [partner_line] = [line for line in lines if line.startswith("other: ")]
    number, cosine = re.fullmatch(r"other: filter (\d+), cosine ([−\d.]+)", partner_line).groups()
    both = torch.from_numpy(BASE[200][some]).ravel(), torch.from_numpy(OTHER[300][int(number)])
    expected = torch.cosine_similarity(both[0], both[1].ravel(), dim=0)
    assert int(number) == partners[some]
    assert float(cosine.replace("−", "-")) == pytest.approx(expected.item(), abs=2e-3)
    tab.page.mouse.move(*tab.tile_at("kernels", "base", min(alone)))
    tab.role("tip").get_by_text("no partner in other").wait_for()


def test_a_run_without_the_layer_shows_a_message(opened: Open) -> None:
    tab = opened(runs=["base", "grey"], layer="conv1", step=16)
    _check(tab, "base", BASE[16], (0, 5))
    said = tab.frame.get_by_text("This run has no layer conv1. It has grey.")
    assert said.is_visible()
    assert tab.role("match").is_disabled()
    tab.frame.select_option('select[data-role="layer"]', "grey")
    tab.frame.get_by_text("This run has no layer grey. It has conv1, deep.").wait_for()


def test_filters_of_different_sizes_are_not_matched(opened: Open, site: Site) -> None:
    tab = opened(runs=["base", "long"], layer="conv1")
    assert tab.role("match").is_disabled()
    assert tab.frame.get_by_text("Filters of 3 × 7 × 7 and 3 × 5 × 5 weights").is_visible()


def _ranked(values: np.ndarray) -> list[int]:
    return np.argsort(-values, kind="stable").tolist()


def _lengths(weights: np.ndarray) -> np.ndarray:
    return np.linalg.norm(weights.reshape(len(weights), -1), axis=1)


def test_filters_are_ordered_by_a_number(opened: Open) -> None:
    tab = opened(runs=["base"], layer="conv1")
    by_norm = _ranked(_lengths(BASE[200]))
    by_change = _ranked(_lengths(BASE[200] - BASE[0]) / _lengths(BASE[0]))
    for order, expected in (("norm", by_norm), ("drift", by_change), ("index", range(12))):
        tab.select("order", order)
        _ordered(tab, expected)
        _check(tab, "base", BASE[200], (0, 7))
        assert tab.grid("responses", "base").order == list(expected)
    tab.select("order", "norm")
    tab.go(0)
    _ordered(tab, by_norm)  # tiles keep their places while the slider moves
    assert tab.frame.get_by_text("As of step 200.").is_visible()
    tab.role("reorder").click()
    _ordered(tab, _ranked(_lengths(BASE[0])))
    tab.role("reorder").wait_for(state="hidden")


def test_filters_with_the_worst_verdict_come_first(opened: Open) -> None:
    tab = opened(runs=["base"], layer="conv1", step=100, order="health", ordered=100)
    _ordered(tab, [3, 5, 1, 0, 2, 4, *range(6, 12)])
    grid = tab.grid("kernels", "base")
    assert grid.cell(3)[:2] == (grid.gap, grid.gap)


def test_a_layer_change_under_the_mouse_raises_no_error(opened: Open) -> None:
    tab = opened(runs=["base", "grey"], layer="conv1", filter=3)
    tab.frame.evaluate(
        """() => {
          const tiles = document.querySelector('.pane.kernels [data-role="tiles"]');
          const frame = document.querySelector('[data-role="drawer"] .frame');
          const layer = document.querySelector('select[data-role="layer"]');
          layer.value = "grey";
          layer.dispatchEvent(new Event("change"));
          for (const element of [tiles, frame]) {
            const { left, top } = element.getBoundingClientRect();
            const at = { clientX: left + 20, clientY: top + 20 };
            for (const name of ["pointermove", "click", "pointerleave"]) {
              element.dispatchEvent(new PointerEvent(name, at));
            }
          }
        }"""
    )
    tab.drawn()
    assert tab.grid("kernels", "grey").step == STEPS[-1]

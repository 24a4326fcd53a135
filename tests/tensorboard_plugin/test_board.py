"""The Kernels tab inside TensorBoard: opening it, links to a view, and failures."""

from typing import Any

import numpy as np
import pytest
from tab_page import SECONDS, Open, Site, Tab, frame_of, opening

pytestmark = pytest.mark.browser

DATA = "**/data/plugin/kernels/*"


def _to_tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def _shows_a_scalar(page: Any) -> None:
    page.get_by_text("loss").first.wait_for(timeout=SECONDS)


def test_the_tab_is_listed_and_opens(site: Site, opened: Open) -> None:
    page = site.page()
    page.goto(site.board.url)
    with page.expect_response("**/plugin_entry.html?name=kernels") as answered:
        _to_tab(page, "Kernels")
    policy = answered.value.headers["content-security-policy"]
    assert "script-src 'self' 'unsafe-eval' 'sha256-" in policy
    tab = Tab(page, frame_of(page))
    tab.rest()
    assert "plugin_entry.html?name=kernels" in tab.frame.url
    assert page.url.endswith("#kernels")
    assert tab.frame.title() == "Kernels"
    shown = tab.role("runs").get_by_role("checkbox", checked=True)
    assert [one.get_attribute("data-run") for one in shown.all()] == ["long"]  # the latest
    page.keyboard.press("Home")  # keys work at once
    tab.wait("Number(body.step) === 0")


def test_an_address_restores_the_view(site: Site, opened: Open) -> None:
    tab = opened(whole=True, runs=["base"])
    tab.go(16)
    tab.choose("scale", "layer")
    tab.choose("channel", "1")
    tab.select("difference", "first")
    tab.select("order", "norm")
    tab.click_tile(5)
    tab.go(30)
    tab.rest()
    parts = ["runs=base", "step=30", "scale=layer", "channel=1", "order=norm", "filter=5"]
    tab.page.wait_for_function(
        "(parts) => parts.every((part) => location.hash.includes(`p.kernels.${part}`))", arg=parts
    )
    again = Tab(site.page(), None)
    again.page.goto(tab.page.url)
    again.frame = frame_of(again.page)
    again.rest()
    assert again.step == 30
    assert again.role("filter-title").text_content() == "Filter 5"
    for kind in ("kernels", "responses"):
        one, other = (which.grid(kind, "base") for which in (tab, again))
        assert one.order == other.order != list(range(12))
        assert np.array_equal(one.pixels, other.pixels)
    assert again.page.url == tab.page.url


def test_an_edited_address_changes_the_view(opened: Open) -> None:
    tab = opened(whole=True, runs=["base"], step=16)
    tab.page.evaluate("location.hash = '#kernels&p.kernels.runs=other&p.kernels.step=50'")
    tab.wait("Number(body.step) === 50")
    tab.drawn()
    assert tab.grid("kernels", "other").step == 50


def test_a_link_is_copied(site: Site, opened: Open) -> None:
    settings = {"permissions": ["clipboard-read", "clipboard-write"]}
    tab = opened(whole=True, settings=settings, runs=["base"], step=16, layer="deep")
    tab.role("copy-link").click()
    tab.frame.get_by_text("Link copied").first.wait_for()
    copied = tab.page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(f"{site.board.url}/#kernels&")
    for part in ("p.kernels.runs=base", "p.kernels.layer=deep", "p.kernels.step=16"):
        assert part in copied


def test_a_missing_run_of_a_link_is_reported(opened: Open) -> None:
    tab = opened(runs=["gone", "base"], layer="missing", step=7)
    assert tab.step == 4
    notes = tab.role("notes").locator("li").all_text_contents()
    assert "There is no run gone." in notes
    assert any("no layer missing" in note for note in notes)
    assert tab.role("notes").locator("li").first.is_visible()
    assert "There is no run gone." in tab.role("banner").text_content()


def test_other_tabs_work_and_coming_back_keeps_the_view(opened: Open) -> None:
    tab = opened(whole=True, runs=["base"], step=0)
    tab.click_tile(5)
    tab.go(16)
    for name in ("Scalars", "Time Series"):
        _to_tab(tab.page, name)
        _shows_a_scalar(tab.page)
        _to_tab(tab.page, "Kernels")
        tab.frame = frame_of(tab.page)
        tab.drawn()
        assert tab.step == 16
        assert tab.role("filter-title").text_content() == "Filter 5"


def test_the_reload_button_of_tensorboard_requests_the_timeline(opened: Open) -> None:
    tab = opened(whole=True, runs=["base"], step=0)
    with tab.page.expect_request("**/kernels/timeline?*", timeout=2000):
        tab.page.locator("button.reload-button").click()


def test_other_tabs_work_if_a_module_does_not_load(site: Site) -> None:
    with opening(site):
        page = site.page()
        page.route("**/plugin/kernels/index.js", lambda route: route.abort())
        page.goto(f"{site.board.url}/#kernels")
        frame_of(page)
        for name in ("Scalars", "Time Series"):
            _to_tab(page, name)
            _shows_a_scalar(page)
        assert all("index.js" in each for each in site.complaints)
        site.complaints.clear()


def test_a_server_that_stops_and_starts_again(site: Site, opened: Open) -> None:
    tab = opened(runs=["base"], step=16)
    before = tab.grid("kernels", "base").pixels
    tab.page.route(DATA, lambda route: route.abort())
    banner = tab.frame.locator('[data-role="banner"]', has_text="TensorBoard")
    banner.wait_for()
    assert np.array_equal(tab.grid("kernels", "base").pixels, before)
    tab.page.keyboard.press("ArrowRight")
    tab.wait("Number(body.step) === 30")
    tab.page.unroute(DATA)
    banner.wait_for(state="hidden")
    site.complaints.clear()
    tab.rest()


def test_a_server_that_does_not_answer_at_first(site: Site) -> None:
    with opening(site):
        page = site.page()
        page.route(DATA, lambda route: route.abort(), times=4)
        page.route("**/kernels/*.js", lambda route: route.continue_())
        page.route("**/kernels/*.css", lambda route: route.continue_())
        page.goto(site.entry())
        tab = Tab(page, page.main_frame)
        tab.wait("body.state === 'error'")
        assert "Is it still running?" in tab.role("state").text_content()
        tab.wait("body.state === 'ready'")
        assert not tab.role("state").is_visible()
        site.complaints.clear()

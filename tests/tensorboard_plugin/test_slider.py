"""Changing the step: the slider over all snapshots, play, keys, and a typed step."""

from typing import Any

import pytest
from tab_page import Open, Site, Tab, link_to
from tab_prepared import LONG_STEPS, STEPS

pytestmark = pytest.mark.browser

FRAMES = """(count) => new Promise((done) => {
  const next = () => (count-- ? requestAnimationFrame(next) : done());
  next();
})"""
# How many snapshots a second the slider showed, by the clock of the page, over so many of them.
PACE = """(over) => new Promise((done) => {
  const slider = document.querySelector('[data-role="slider"]');
  const at = () => Number(slider.getAttribute("aria-valuenow"));
  const from = at(), begun = performance.now();
  const look = () => {
    if (at() - from < over) requestAnimationFrame(look);
    else done((1000 * (at() - from)) / (performance.now() - begun));
  };
  look();
})"""


def _press(tab: Tab, key: str, step: int) -> None:
    tab.page.keyboard.press(key)
    tab.wait("Number(body.step) === given", step)


def test_the_slider_reaches_every_snapshot(opened: Open) -> None:
    tab = opened(runs=["long"])
    assert (tab.data("loaded"), tab.data("snapshots")) == ("1000", "1000")
    assert "1,000 snapshots" in tab.role("about-layer").text_content()
    tab.frame.get_by_role("progressbar").wait_for(state="hidden")
    assert tab.step == LONG_STEPS[-1]
    slider = tab.role("slider")
    assert slider.get_attribute("aria-valuemax") == "999"
    box = slider.bounding_box()
    middle = box["y"] + box["height"] / 2
    mouse = tab.page.mouse
    mouse.move(box["x"] + box["width"] / 2, middle)
    mouse.down()
    tab.wait("Number(body.step) > 3000 && Number(body.step) < 7000")
    for x, step in ((box["x"] - 30, 0), (box["x"] + box["width"] + 30, LONG_STEPS[-1])):
        mouse.move(x, middle)
        tab.wait("Number(body.step) === given", step)
        tab.drawn()
        assert tab.grid("kernels", "long").step == step
    mouse.up()


def test_keys_move_the_slider(opened: Open) -> None:
    tab = opened(runs=["long"])
    _press(tab, "Home", 0)
    _press(tab, "ArrowLeft", 0)
    _press(tab, "ArrowRight", 10)
    _press(tab, "Shift+ArrowRight", 110)
    _press(tab, "Shift+ArrowLeft", 10)
    _press(tab, "End", LONG_STEPS[-1])
    _press(tab, "ArrowLeft", LONG_STEPS[-2])
    tab.role("slider").focus()
    _press(tab, "Home", 0)
    _press(tab, "ArrowUp", 10)
    _press(tab, "PageUp", 110)
    _press(tab, "PageDown", 10)
    _press(tab, "ArrowDown", 0)
    assert tab.role("slider").get_attribute("aria-valuetext") == "step 0"
    tab.frame.locator('[data-role="live"]', has_text="Step 0 of 9990").wait_for(state="attached")


def test_a_step_can_be_typed(opened: Open) -> None:
    tab = opened(runs=["long"])
    field = tab.role("step")
    for typed, step in (("120", 120), ("129", 120), ("1,234", 1230), ("99999999", 9990), ("-5", 0)):
        field.fill(typed)
        field.press("Enter")
        tab.wait("Number(body.step) === given", step)
        assert field.input_value() == str(step)
    field.fill("soon")
    field.press("Enter")
    assert field.input_value() == "0"
    assert tab.step == 0
    _press(tab, "ArrowRight", 10)
    field.fill("5000")
    field.press("Escape")
    assert field.input_value() == "10"
    _press(tab, "ArrowRight", 20)


def test_keys_control_the_slider_after_a_click(opened: Open) -> None:
    tab = opened(runs=["base"], layer="conv1", step=16)
    tab.click_tile(5)
    _press(tab, "ArrowRight", 30)
    tab.choose("scale", "layer")
    _press(tab, "ArrowLeft", 16)
    tab.role("legend").get_by_role("button").first.click()
    _press(tab, "Home", 0)
    tab.role("next-filter").click()
    tab.page.keyboard.press("Escape")
    tab.role("drawer").wait_for(state="hidden")
    assert tab.role("slider").evaluate("(slider) => slider === document.activeElement")
    tab.page.keyboard.press("Space")
    tab.wait("Number(body.step) > 0")


def test_keys_in_a_text_field_do_not_move_the_slider(opened: Open) -> None:
    tab = opened(runs=["base"], step=16)
    field = tab.role("step")
    field.focus()
    for key in ("ArrowLeft", "ArrowRight", "Home", "End", "Space", "[", "]"):
        field.press(key)
    assert field.input_value() != "16"
    tab.frame.locator('select[data-role="order"]').focus()
    for key in ("End", "Home"):
        tab.page.keyboard.press(key)
    tab.frame.evaluate(FRAMES, 10)
    assert tab.step == 16
    assert not tab.role("drawer").is_visible()
    assert tab.role("play").get_attribute("aria-label") == "Play"


@pytest.mark.parametrize("speed", [20, 60])
def test_play_keeps_its_speed_and_pause_stops_it(opened: Open, speed: int) -> None:
    tab = opened(runs=["long"], step=0)
    tab.role("speed").select_option(str(speed))
    tab.role("play").click()
    tab.wait("Number(body.step) > 50")
    assert tab.role("play").get_attribute("aria-label") == "Pause"
    assert tab.frame.evaluate(PACE, 1.5 * speed) == pytest.approx(speed, rel=0.15)
    tab.role("play").click()
    tab.drawn()
    stopped = tab.step
    assert 0 < stopped < LONG_STEPS[-1]
    tab.frame.evaluate(FRAMES, 20)
    assert tab.step == stopped == tab.grid("kernels", "long").step
    tab.rest()
    assert tab.grid("responses", "long").step == stopped


def test_space_plays_to_the_end_and_again_from_the_start(opened: Open) -> None:
    # A busy browser shows fewer steps, to keep the speed. At this one it has time for most of them.
    tab = opened(runs=["base"], speed=4)
    seen = tab.frame.evaluate_handle(
        """() => {
          const steps = [];
          new MutationObserver(() => steps.push(Number(document.body.dataset.step)))
            .observe(document.body, { attributeFilter: ["data-step"] });
          return steps;
        }"""
    )
    tab.page.keyboard.press("Space")
    tab.wait("given.includes(0)", seen)
    tab.frame.locator('[data-role="play"][aria-label="Play"]').wait_for()
    steps = sorted(set(seen.json_value()), key=seen.json_value().index)
    assert steps == sorted(steps)
    assert {0, STEPS[-1]} <= set(steps) <= set(STEPS)
    assert len(steps) > len(STEPS) / 2
    tab.page.keyboard.press("Space")
    tab.page.keyboard.press("Space")
    assert tab.role("play").get_attribute("aria-label") == "Play"


def test_moving_the_slider_stops_play(opened: Open) -> None:
    tab = opened(runs=["long"], step=0, speed=10)
    tab.page.keyboard.press("Space")
    tab.wait("Number(body.step) > 0")
    tab.page.keyboard.press("ArrowRight")
    assert tab.role("play").get_attribute("aria-label") == "Play"


def test_the_axis_shows_and_changes_its_scale(opened: Open) -> None:
    tab = opened(runs=["base"], layer="conv1", step=16)
    kind, needle = tab.role("axis"), tab.frame.locator(".lane .needle")
    assert kind.text_content() == "log"
    before = needle.bounding_box()["x"]
    kind.click()
    tab.drawn()
    assert kind.text_content() == "linear"
    assert needle.bounding_box()["x"] < before - 100
    tab.frame.wait_for_function("location.hash.includes('axis=linear')")
    tab.page.reload()
    tab.rest()
    assert kind.text_content() == "linear"
    kind.click()
    tab.drawn()
    assert needle.bounding_box()["x"] == pytest.approx(before, abs=2)
    assert opened(runs=["long"]).role("axis").text_content() == "linear"


def test_marks_are_placed_where_verdicts_began(opened: Open) -> None:
    tab = opened(runs=["base"], layer="conv1", step=0)
    marks = tab.frame.get_by_role("group", name="Where verdicts began").get_by_role("button")
    labels = [mark.get_attribute("aria-label") for mark in marks.all()]
    assert labels == [
        "step 4: near-zero, 1 filter",
        "step 30: silent, 1 filter",
        "step 100: duplicate, 1 filter; step 100: frozen, 1 filter",
    ]
    marks.nth(1).click()
    tab.wait("Number(body.step) === 30")
    legend = tab.role("legend")
    assert legend.inner_text().split() == [
        "near-zero",
        "1",
        "silent",
        "1",
        "duplicate",
        "0",
        "frozen",
        "0",
    ]
    box, slider = marks.nth(1).bounding_box(), tab.role("slider").bounding_box()
    needle = tab.frame.locator(".lane .needle").bounding_box()
    assert box["x"] + box["width"] / 2 == pytest.approx(needle["x"] + needle["width"] / 2, abs=1.5)
    assert slider["x"] < needle["x"] < slider["x"] + slider["width"]


def test_a_snapshot_that_is_still_loading_is_waited_for(site: Site, opened: Open) -> None:
    held: list[Any] = []
    page = site.page()
    page.route("**/kernels/snapshots?*", lambda route: held.append(route))
    page.goto(site.entry(link_to(runs=["base"], layer="conv1", verdict="near-zero")))
    tab = Tab(page, page.main_frame)
    page.wait_for_event("request", lambda request: "snapshots" in request.url)
    while not held:
        tab.frame.evaluate(FRAMES, 1)
    held.pop(0).continue_()  # the first request: the last snapshot and the first
    tab.wait("body.state === 'ready' && body.responses === 'ready'")
    tab.role("legend").get_by_role("button").first.click()  # verdicts that are not loaded yet
    for step in (100, 30):
        tab.role("step").fill(str(step))
        tab.role("step").press("Enter")
        tab.wait("Number(body.step) === given", step)
        assert tab.grid("kernels", "base").step == STEPS[-1]
        assert tab.frame.locator(".pane.kernels .spinner").is_visible()
        needle = tab.frame.locator(".lane .needle").bounding_box()
        mark = tab.frame.locator(f'.mark[data-step="{step}"]').bounding_box()
        assert needle["x"] == pytest.approx(mark["x"] + mark["width"] / 2, abs=2)
    page.unroute("**/kernels/snapshots?*")
    for route in held:
        route.continue_()
    tab.rest()
    assert tab.grid("kernels", "base").step == 30

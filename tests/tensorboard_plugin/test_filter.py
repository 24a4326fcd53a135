"""The selected filter of the Kernels tab: its values, verdicts, film strip and curves."""

import re
from math import log1p

import numpy as np
import pytest
import torch
from tab_page import Open, Tab, assert_painted, unzoomed
from tab_prepared import BASE, DEEP, STEPS

pytestmark = pytest.mark.browser


def _numbers(text: str) -> list[float]:
    return [float(one) for one in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", text.replace("−", "-"))]


def _read(tab: Tab, across: float, down: float) -> str:
    """Return the readout with the mouse at a place of the enlarged kernel, in shares of it."""
    box = tab.frame.locator('canvas[data-kind="kernel"]').bounding_box()
    tab.page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])
    return tab.role("weight").text_content()


def test_a_click_on_a_tile_opens_its_filter_with_values_under_the_mouse(opened: Open) -> None:
    tab = opened(runs=["base"], layer="conv1", step=16)
    assert not tab.role("drawer").is_visible()
    tab.click_tile(7)
    assert tab.role("filter-title").text_content() == "Filter 7"
    for row, column in ((0, 0), (6, 2), (3, 5), (6, 6)):
        said = _read(tab, (column + 0.5) / 7, (row + 0.5) / 7)
        where, values = said.split(": ")
        assert where == f"row {row}, column {column}"
        assert values.split()[::2] == ["R", "G", "B"]
        assert _numbers(values) == pytest.approx(BASE[16][7, :, row, column].tolist(), abs=2e-3)
    tab.go(200)
    said = tab.role("weight").text_content()
    if said:  # the mouse is still there
        assert _numbers(said)[2:] == pytest.approx(BASE[200][7, :, 6, 6].tolist(), abs=2e-3)
    pixels = unzoomed(
        tab.pixels('canvas[data-kind="kernel"]'),
        int(tab.frame.locator('canvas[data-kind="kernel"]').get_attribute("data-zoom")),
    )
    weights = torch.from_numpy(BASE[200][7])
    assert_painted(pixels, weights, float(weights.abs().max()))


def test_values_of_a_layer_of_many_channels(opened: Open) -> None:
    tab = opened(runs=["base"], layer="deep", step=8, filter=2)
    tab.select("channel", "4")
    where, value = _read(tab, 0.5, 0.5).split(": ")
    assert where == "channel 4, row 1, column 1"
    assert _numbers(value) == pytest.approx([DEEP[8][2, 4, 1, 1]], abs=2e-3)


def test_values_are_read_by_keyboard(opened: Open) -> None:
    tab = opened(runs=["base"], layer="conv1", step=16, filter=3)
    tab.frame.get_by_role("img", name="Kernel of filter 3").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        tab.page.keyboard.press(key)
    where, values = tab.role("weight").text_content().split(": ")
    row, column = (int(one) for one in _numbers(where))
    assert (row, column) in {(1, 1), (1, 2)}
    assert _numbers(values) == pytest.approx(BASE[16][3, :, row, column].tolist(), abs=2e-3)
    assert tab.step == 16


def test_verdicts_are_described_in_words(opened: Open) -> None:
    tab = opened(runs=["base"], layer="conv1", step=30, filter=3)
    items = tab.role("verdicts").locator("[data-verdict]")
    assert [one.get_attribute("data-verdict") for one in items.all()] == ["near-zero", "silent"]
    assert all(len(text.split()) > 4 for text in items.all_text_contents())
    assert [row.text_content() for row in tab.role("health").locator(".health-row").all()] == [
        "near-zero",
        "silent",
    ]
    tab.go(200)
    assert items.count() == 0
    tab.click_tile(5)
    assert items.all_text_contents() == ["duplicate is nearly the same as another filter"]


def test_the_film_strip_covers_the_run_on_one_scale(opened: Open) -> None:
    tab = opened(runs=["base"], layer="conv1", step=16, filter=9)
    frames = tab.role("film").locator("button")
    steps = [int(frame.get_attribute("data-step")) for frame in frames.all()]
    assert {0, 200} < set(steps) <= set(STEPS)
    assert steps == sorted(steps)
    end = max(np.abs(BASE[step][9]).max() for step in steps)
    for step in steps:
        pixels = tab.pixels(f'[data-role="film"] button[data-step="{step}"] canvas')
        found = unzoomed(pixels, pixels.shape[0] // 7)
        assert_painted(found, torch.from_numpy(BASE[step][9]), float(end))
    for frame, step in zip(frames.all()[::2], steps[::2], strict=True):
        frame.click()
        tab.wait("Number(body.step) === given", step)
        tab.drawn()
        assert frame.get_attribute("aria-current") == "step"
        assert tab.role("film").locator("[aria-current]").count() == 1
    between = next(step for step in STEPS if step not in steps)
    tab.go(between)
    assert tab.role("film").locator("[aria-current]").count() == 0
    passed = tab.role("film").locator(".passed").get_attribute("data-step")
    assert int(passed) == max(step for step in steps if step < between)


def test_curves_show_the_numbers_of_the_filter(opened: Open) -> None:
    tab = opened(runs=["base"], layer="conv1", filter=4)
    first = BASE[0][4]
    norms = [float(np.linalg.norm(BASE[step][4])) for step in STEPS]
    moved = [float(np.linalg.norm(BASE[s][4] - first) / np.linalg.norm(first)) for s in STEPS]
    for kind, values in (("norm", norms), ("change", moved)):
        line = tab.role(f"{kind}-curve").locator("path")
        while len(_numbers(line.get_attribute("d") or "")) < 2 * len(
            STEPS
        ):  # the curve is redrawn at intervals
            tab.drawn()
        points = np.array(_numbers(line.get_attribute("d"))).reshape(-1, 2)
        np.testing.assert_allclose(
            points[:, 0] / 1000, [log1p(s) / log1p(200) for s in STEPS], atol=1e-3
        )
        heights = (points[:, 1] - 96) / (4 - 96)  # 0 is at the bottom, the largest at the top
        np.testing.assert_allclose(heights, np.array(values) / max(values), atol=1e-3)
        for step in (30, 200):
            tab.go(step)
            [said] = _numbers(tab.role(f"{kind}-now").text_content())
            assert said == pytest.approx(values[STEPS.index(step)], abs=2e-3)
    box = tab.role("change-curve").locator(".curve-room").bounding_box()
    tab.page.mouse.click(box["x"] + 1, box["y"] + 10)
    tab.wait("Number(body.step) === 0")
    [said] = _numbers(tab.role("change-now").text_content())
    assert said == 0
    drifts = [np.linalg.norm(BASE[s] - BASE[0]) / np.linalg.norm(BASE[0]) for s in STEPS]
    tab.go(100)
    assert _numbers(tab.role("drift").text_content()) == pytest.approx([drifts[8]], abs=2e-3)


def test_keys_select_the_next_filter(opened: Open) -> None:
    tab = opened(runs=["base"], layer="conv1", step=16)
    title = tab.role("filter-title")
    for key, name in (("]", "Filter 0"), ("]", "Filter 1"), ("[", "Filter 0"), ("[", "Filter 0")):
        tab.page.keyboard.press(key)
        tab.drawn()
        assert title.text_content() == name
    tab.page.keyboard.press("Escape")
    tab.role("drawer").wait_for(state="hidden")
    tab.role("tiles").focus()
    for key, name in (("Home", 0), ("ArrowRight", 1), ("ArrowDown", None), ("End", 11)):
        tab.page.keyboard.press(key)
        tab.drawn()
        number = 1 + tab.grid("kernels", "base").columns if name is None else name
        assert title.text_content() == f"Filter {number}"
        chosen = tab.role("tiles").locator("[aria-selected=true]")
        assert chosen.count() == 1
        assert tab.role("tiles").get_attribute("aria-activedescendant") == chosen.get_attribute(
            "id"
        )
    tab.role("close").click()
    tab.role("drawer").wait_for(state="hidden")
    assert tab.step == 16


def test_hovering_a_tile_marks_its_response(opened: Open) -> None:
    tab = opened(runs=["base"], layer="conv1", step=30)
    for kind in ("kernels", "responses"):
        tab.page.mouse.move(*tab.tile_at(kind, "base", 8))
        tab.role("tip").wait_for()
        assert tab.role("tip").locator("span").first.text_content() == "filter 8"
        for other in ("kernels", "responses"):
            ring = tab.frame.locator(f".pane.{other} .ring.hover").bounding_box()
            x, y = tab.tile_at(other, "base", 8)
            assert ring["x"] + ring["width"] / 2 == pytest.approx(x, abs=1)
            assert ring["y"] + ring["height"] / 2 == pytest.approx(y, abs=1)
    norm, change = (
        _numbers(text)[0] for text in tab.role("tip").locator("span").all_text_contents()[1:3]
    )
    weights, first = BASE[30][8], BASE[0][8]
    assert norm == pytest.approx(np.linalg.norm(weights), abs=2e-3)
    assert change == pytest.approx(
        np.linalg.norm(weights - first) / np.linalg.norm(first), abs=2e-3
    )
    tab.page.keyboard.press("ArrowRight")
    tab.role("tip").wait_for(state="hidden")
    assert not tab.frame.locator(".ring.hover:visible").count()
    tab.page.mouse.move(*tab.tile_at("kernels", "base", 7))
    tab.role("tip").wait_for()
    tab.click_tile(5)
    tab.role("drawer").wait_for()
    tab.drawn()
    assert not tab.frame.locator(".ring.hover:visible").count()
    assert not tab.role("tip").is_visible()


def test_a_click_on_a_verdict_makes_other_filters_faint(opened: Open) -> None:
    tab = opened(runs=["base"], layer="conv1", step=100)
    chip = tab.role("legend").get_by_role("button", name="duplicate")
    chip.click()
    tab.rest()
    assert chip.get_attribute("aria-pressed") == "true"
    for kind in ("kernels", "responses"):
        grid = tab.grid(kind, "base")
        alphas = {i: int(grid.tile(i, 2, 2)[0, 0, 3]) for i in range(12)}
        assert alphas.pop(5) == 255
        assert max(alphas.values()) < 128
    chip.click()
    tab.drawn()
    assert tab.grid("kernels", "base").tile(0, 2, 2)[0, 0, 3] == 255

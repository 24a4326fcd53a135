"""How the page of a comparison behaves in a browser: order, choice, dialog, colours, width."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from comparison_pages import (
    HOSTILE,
    opening_pages,
    run_of_four,
    trained_layers,
    with_hostile_name,
)
from torch import nn

from kernelviz_callback.comparison.compare import compare
from kernelviz_callback.comparison.comparison import Comparison
from kernelviz_callback.health.verdicts import Verdict

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def run() -> Comparison:
    return run_of_four()


@pytest.fixture(scope="module")
def planes() -> Comparison:
    return compare(*trained_layers(2, 20, 3, 3))


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    with opening_pages(browser, tmp_path) as look:
        yield look


def filters_shown(tab: Any) -> list[int]:
    return [int(text) for text in tab.locator("#filters .number").all_text_contents()]


def test_filters_are_sorted_by_keyboard(opened: Any, run: Comparison) -> None:
    tab = opened(run)
    assert filters_shown(tab) == run.most_changed()
    head = tab.get_by_role("columnheader", name="Cosine", exact=True)
    head.get_by_role("button").focus()
    tab.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    cosine = run.last.cosine_to_first.nan_to_num(9.0)
    assert filters_shown(tab) == cosine.argsort(stable=True).tolist()
    tab.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert filters_shown(tab)[-1] == 5


def test_filters_are_chosen_by_number_and_verdict(opened: Any, run: Comparison) -> None:
    tab = opened(run)
    tab.fill("#which", "2, 4-6")
    assert sorted(filters_shown(tab)) == [2, 4, 5, 6]
    tab.select_option("#verdict", "non-finite")
    assert filters_shown(tab) == [5]
    assert tab.locator("#count").text_content().startswith("1 of 12 filters")
    assert "new: non-finite" in tab.locator("#filters tbody .verdicts").first.text_content()
    tab.fill("#which", "99")
    assert tab.locator("#none").is_visible()


def test_a_filter_is_opened_and_read_by_keyboard(opened: Any, run: Comparison) -> None:
    tab = opened(run)
    second = run.most_changed()[1]
    tab.locator(".number").first.focus()
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Enter")
    dialog = tab.get_by_role("dialog", name=f"Filter {second}")
    assert dialog.is_visible()
    assert dialog.locator("canvas").count() == 5
    dialog.locator(".frame").first.focus()
    tab.keyboard.press("ArrowRight")
    weights = run.first.matched_weights()
    assert weights is not None
    said = tab.locator("#weight").text_content().replace("−", "-")
    assert said.startswith("Row 0, column 1, red green blue: ")
    read = [float(number) for number in said.split(": ")[1].split(", ")]
    step = weights[second].abs().max().item() / 254
    assert read == pytest.approx(weights[second, :, 0, 1].tolist(), abs=step + 6e-3)
    tab.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert tab.evaluate("document.activeElement.textContent") == str(second)


def test_the_chart_describes_each_filter(opened: Any, run: Comparison) -> None:
    tab = opened(run)
    chart = tab.get_by_role("slider", name="change of each filter")
    assert chart.locator(".faint-line").count() == 12
    chart.focus()
    tab.keyboard.press("End")
    least = run.most_changed()[-1]
    change = run.last.change_from_first[least].item()
    assert (
        chart.get_attribute("aria-valuetext") == f"Filter {least}: change {change:.3f} at step 30"
    )
    tab.keyboard.press("Enter")
    assert tab.get_by_role("dialog", name=f"Filter {least}").is_visible()


def test_two_checkpoints_have_bars(opened: Any, planes: Comparison) -> None:
    tab = opened(planes)
    known = int(planes.last.change_from_first.isfinite().sum())
    assert tab.locator("#chart rect.bar").count() == known == 11


@pytest.mark.parametrize("where", ["layer", "label", "statement", "reason"])
def test_hostile_names_are_shown_as_text(opened: Any, run: Comparison, where: str) -> None:
    tab = opened(with_hostile_name(run, where))
    tab.on("dialog", lambda _: pytest.fail("a name was run"))
    tab.locator(".number", has_text=re.compile("^0$")).click()
    assert HOSTILE in tab.evaluate("document.body.innerText")


def test_other_networks_have_partners(opened: Any) -> None:
    torch.manual_seed(2)
    compared = compare(nn.Conv2d(3, 9, 7), nn.Conv2d(3, 6, 5))
    tab = opened(compared)
    assert filters_shown(tab) == compared.most_changed()
    assert tab.get_by_text("no partner").count() > 0
    assert tab.get_by_role("columnheader", name="Change").count() == 0
    tab.locator(".number").last.click()
    assert tab.locator("#detail-tiles canvas").count() == 2


def test_without_tiles_there_are_numbers(opened: Any, run: Comparison) -> None:
    bare = replace(run, columns=tuple(replace(c, weights=None) for c in run.columns))
    tab = opened(bare)
    assert len(filters_shown(tab)) == 12
    assert tab.locator("#filters canvas").count() == 0
    assert not tab.locator("#scales").is_visible()


def test_light_and_dark_have_enough_contrast(opened: Any, run: Comparison) -> None:
    for scheme, other in (("light", "dark"), ("dark", "light")):
        tab = opened(run, color_scheme=scheme)
        here = _lightness(tab)
        assert (here["paper"] > here["ink"]) == (scheme == "light")
        for colour in ("ink", "faint", "accent"):
            assert _contrast(here["paper"], here[colour]) >= 4.5  # WCAG 2.2, 1.4.3 (AA)
            assert _contrast(here["raised"], here[colour]) >= 4.5
        assert _contrast(here["paper"], here["edge"]) >= 3  # 1.4.11
        tab.get_by_role("button", name="Dark").press("Enter")
        assert (_lightness(tab)["paper"] > 0.5) == (other == "light")


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_horizontal_scrolling_on_the_page(opened: Any, run: Comparison, width: int) -> None:
    tab = opened(with_hostile_name(run, "label"), viewport={"width": width, "height": 800})
    fits = "document.documentElement.scrollWidth <= innerWidth"
    assert tab.evaluate(fits)
    tab.locator(".number").first.click()
    assert tab.evaluate(fits)
    assert tab.evaluate("document.querySelector('dialog').scrollWidth <= innerWidth")


def _lightness(tab: Any) -> dict[str, float]:
    """Return the relative luminance of the colours of the page, as WCAG defines it."""
    found = tab.evaluate(
        """["paper", "raised", "ink", "faint", "accent", "edge"].map((name) => {
            const probe = document.body.appendChild(document.createElement("i"));
            probe.style.color = `var(--${name})`;
            const colour = getComputedStyle(probe).color;
            probe.remove();
            return [name, colour];
        })"""
    )
    return {name: _luminance(colour) for name, colour in found}


def _luminance(colour: str) -> float:
    shares = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_the_table_is_as_wide_as_it_needs_before_the_chart_stands_beside_it(opened: Any) -> None:
    compared = compare(*trained_layers(4, 3, 5, 5))
    kinds = ("near-zero", "silent", "duplicate", "dominating", "frozen", "noise-like")
    verdicts = tuple(Verdict(i, name, "") for i, name in enumerate(kinds))
    columns = tuple(
        replace(c, label=f"step-0000{k:04}", health=replace(c.health, verdicts=verdicts))
        for k, c in enumerate(compared.columns)
    )
    tab = opened(replace(compared, columns=columns), viewport={"width": 1280, "height": 900})
    inner, outer = tab.evaluate(
        "() => { const box = document.querySelector('#numbers').parentElement;"
        " return [box.scrollWidth, box.clientWidth]; }"
    )
    assert inner == outer

"""The accessibility of the Kernels tab: names, focus, contrast, and a narrow window."""

from typing import Any

import pytest
from tab_page import Open

pytestmark = pytest.mark.browser

CONTROLS = {
    "button",
    "checkbox",
    "combobox",
    "image",
    "img",
    "link",
    "listbox",
    "option",
    "progressbar",
    "radio",
    "radiogroup",
    "searchbox",
    "slider",
    "textbox",
}
# Texts whose contrast with their background is too low: WCAG 2.2, 1.4.3.
LOW_CONTRAST = """() => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const luminance = () => {
    const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map((level) => {
      const share = level / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const fill = (colour) => {
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
  };
  const low = [];
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].filter((node) => node.nodeType === 3 && node.data.trim());
    const style = getComputedStyle(element);
    if (!own.length || !element.checkVisibility({ visibilityProperty: true })) continue;
    if (element.matches(":disabled, script, style, option, .unseen")) continue;
    fill("white");
    const behind = [];
    for (let each = element; each; each = each.parentElement) behind.unshift(each);
    for (const each of behind) fill(getComputedStyle(each).backgroundColor);
    const back = luminance();
    fill(style.color);
    const front = luminance();
    const contrast = (Math.max(back, front) + 0.05) / (Math.min(back, front) + 0.05);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (contrast < (isLarge ? 3 : 4.5)) low.push(`${contrast.toFixed(2)} ${own[0].data}`);
  }
  return low;
}"""
# The name of the focused element, and whether its focus is visible.
FOCUSED = """() => {
  const element = document.activeElement;
  const next = element.nextElementSibling ?? element; // of a radio, where its text is
  const drawn = [[element], [next], [element, "::before"]].map((one) => getComputedStyle(...one));
  return {
    name: element.dataset.role ?? element.name,
    tag: element.tagName,
    isVisible: drawn.some(({ outlineStyle, outlineWidth }) =>
      outlineStyle !== "none" && parseFloat(outlineWidth) >= 2),
    isInSight: element.checkVisibility(),
  };
}"""


# A view with everything: two runs, a selected filter, verdicts, a pinned step, another order.
FULL: dict[str, Any] = {
    "runs": ["base", "other"],
    "layer": "conv1",
    "step": 30,
    "filter": 3,
    "difference": "pinned",
    "pinned": 4,
    "order": "norm",
    "match": 1,
}


@pytest.mark.parametrize("view", [{"runs": ["long"]}, {"runs": ["base"], "layer": "deep"}, FULL])
def test_every_control_has_a_name(opened: Open, view: dict[str, Any]) -> None:
    tab = opened(**view)
    tab.frame.wait_for_selector("[role=option][aria-label]", state="attached")
    tree = tab.page.context.new_cdp_session(tab.page).send("Accessibility.getFullAXTree")
    nodes = [node for node in tree["nodes"] if not node["ignored"]]
    controls = [node for node in nodes if node["role"]["value"] in CONTROLS]
    nameless = [node["role"] for node in controls if not node.get("name", {}).get("value", "")]
    assert nameless == []
    roles = [node["role"]["value"] for node in controls]
    assert roles.count("option") >= 6
    assert roles.count("slider") == 1
    landmarks = {node["role"]["value"] for node in nodes}
    assert {"main", "navigation", "heading"} <= landmarks
    names = [node["name"]["value"] for node in controls if node["role"]["value"] == "slider"]
    assert names == ["Step"]


def test_a_tile_is_named_with_its_numbers(opened: Open) -> None:
    tab = opened(runs=["base"], layer="conv1", step=30)
    tile = tab.role("tiles").get_by_role("option").nth(3)
    tab.frame.wait_for_selector("[role=option][aria-label]", state="attached")
    name = tile.get_attribute("aria-label")
    assert name.startswith("filter 3, norm ")
    assert name.endswith("near-zero, silent")


def test_the_tab_key_reaches_every_control_with_a_visible_focus(opened: Open) -> None:
    tab = opened(**FULL)
    seen: dict[str, Any] = {}
    for _ in range(90):
        tab.page.keyboard.press("Tab")
        focused = tab.frame.evaluate(FOCUSED)
        if focused["tag"] == "BODY":
            break
        assert focused["isInSight"], focused
        assert focused["isVisible"], focused
        seen.setdefault(focused["name"], focused)
    expected = {"layer", "scale", "channel", "difference", "order", "match", "play", "step"}
    expected |= {"slider", "speed", "copy-link", "tiles", "close", "next-filter", "choose-probe"}
    assert expected <= set(seen)


def test_escape_closes_the_filter_from_any_focus(opened: Open) -> None:
    for role in ("tiles", "close", "slider"):
        tab = opened(runs=["base"], layer="conv1", step=30, filter=3)
        tab.role(role).first.focus()
        tab.page.keyboard.press("Escape")
        tab.role("drawer").wait_for(state="hidden")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_in_light_and_dark(opened: Open, scheme: str) -> None:
    tab = opened(settings={"color_scheme": scheme}, **FULL)
    assert tab.frame.evaluate("document.documentElement.dataset.theme") == scheme
    assert tab.frame.evaluate(LOW_CONTRAST) == []
    tab.page.mouse.move(*tab.tile_at("kernels", "base", 3))
    tab.role("tip").wait_for()
    assert tab.frame.evaluate(LOW_CONTRAST) == []


def test_the_theme_follows_tensorboard(opened: Open) -> None:
    tab = opened(whole=True, runs=["base"])
    theme = "document.documentElement.dataset.theme"
    assert tab.frame.evaluate(theme) == "light"
    tab.page.evaluate("document.body.classList.add('dark-mode')")
    tab.frame.wait_for_function(f"{theme} === 'dark'")
    dark = tab.frame.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(int(part) for part in dark.strip("rgb()").split(",")) < 150


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_no_horizontal_scrolling(opened: Open, width: int) -> None:
    tab = opened(settings={"viewport": {"width": width, "height": 800}}, **FULL)
    fits = "document.documentElement.scrollWidth <= innerWidth"
    assert tab.frame.evaluate(fits)
    tab.frame.evaluate("document.querySelector('[data-role=\"side\"]').open = true")
    assert tab.frame.evaluate(fits)
    wide = tab.frame.evaluate(
        "[...document.querySelectorAll('button, select, input, canvas')].filter((each) =>"
        " each.checkVisibility() && each.getBoundingClientRect().right > innerWidth + 1)"
        ".map((each) => each.outerHTML.slice(0, 100))"
    )
    assert wide == []


def test_the_page_is_usable_on_a_phone(opened: Open) -> None:
    settings = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}
    tab = opened(settings=settings, runs=["base"], layer="conv1", step=16)
    canvas = tab.frame.locator('canvas[data-kind="kernels"]')
    canvas.scroll_into_view_if_needed()
    tab.page.touchscreen.tap(*tab.tile_at("kernels", "base", 2))
    tab.role("filter-title").wait_for()
    assert tab.role("filter-title").text_content() == "Filter 2"
    size = tab.role("play").bounding_box()
    assert min(size["width"], size["height"]) >= 40

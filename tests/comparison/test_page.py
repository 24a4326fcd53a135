"""The page of a comparison: its content, and its behaviour in a browser."""

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kernelviz_callback.comparison.compare import compare
from kernelviz_callback.comparison.comparison import FILTER_NUMBERS, Comparison
from kernelviz_callback.comparison.page import MOST_CHANNELS, MOST_WEIGHTS, comparison_page
from kernelviz_callback.drawing.curves import draw_curves
from kernelviz_callback.drawing.tiles import paint_tiles
from kernelviz_callback.health.verdicts import Verdict

_KINDS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
HOSTILE = "</script><script>alert(1)</script><!--"


def _trained(count: int, *shape: int, filters: int = 12) -> list[nn.Module]:
    """Make a layer that drifts; in the last copy one filter is near zero and one has a NaN."""
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(filters, *shape, generator=generator) * 0.1
    layers = []
    for k in range(count):
        layer = _KINDS[len(shape) - 1](shape[0], filters, shape[1:])
        noise = torch.randn(weights.shape, generator=generator) * 0.02 * k
        layer.weight.data = weights + noise * torch.rand(
            filters, *[1] * len(shape), generator=generator
        )
        layers.append(layer)
    layers[-1].weight.data[3] *= 0.01
    layers[-1].weight.data[(5, 0, *[min(1, taps - 1) for taps in shape[1:]])] = torch.nan
    return layers


@pytest.fixture(scope="module")
def run() -> Comparison:
    compared = compare(*_trained(4, 3, 5, 5))
    columns = tuple(replace(c, step=10 * k, epoch=k) for k, c in enumerate(compared.columns))
    return replace(compared, columns=columns)


@pytest.fixture(scope="module")
def planes() -> Comparison:
    return compare(*_trained(2, 20, 3, 3))


@pytest.fixture(scope="module")
def sensors() -> Comparison:
    return compare(*_trained(2, 4, 3, 3))


def _data(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_the_page_needs_no_other_file(run: Comparison) -> None:
    page = comparison_page(run)
    linked = re.findall(r"""(?:src|href|action)\s*=\s*["']([^"']*)""", page)
    assert linked
    assert all(link.startswith(("#", "data:")) for link in linked)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(|import\s*\(", page)
    assert "innerHTML" not in page
    assert comparison_page(run) == page


def test_the_page_has_the_numbers_of_the_comparison(run: Comparison) -> None:
    data, known = _data(comparison_page(run)), run.to_dict()
    assert data["order"] == run.most_changed()
    assert data["statements"] == known["statements"]
    for entry, expected in zip(data["checkpoints"], known["checkpoints"], strict=True):
        for name in ("name", "label", "layer", "step", "epoch", "shape", "match", "numbers"):
            assert entry[name] == expected[name]
        for name in FILTER_NUMBERS:
            values = [row[name] for row in expected["filters"]]
            assert entry["filters"][name] == [
                None if x is None else pytest.approx(x, rel=1e-3) for x in values
            ]


@pytest.mark.parametrize("where", ["layer", "label", "statement", "reason"])
def test_no_name_can_end_the_script(run: Comparison, where: str) -> None:
    page = comparison_page(_hostile(run, where))
    assert "<script>alert" not in page
    assert page.count("<script") == comparison_page(run).count("<script")
    assert HOSTILE in json.dumps(_data(page))


def test_a_file_name_with_invalid_bytes_is_kept(run: Comparison) -> None:
    column = replace(run.first, layer="caf\udce9", label="\udce9")
    page = comparison_page(replace(run, columns=(column, *run.columns[1:])))
    assert page.encode()
    assert _data(page)["layer"] == "caf\udce9"


def test_page_of_512_filters_is_small() -> None:
    page = comparison_page(compare(*_trained(8, 3, 7, 7, filters=512)))
    assert len(page.encode()) <= 1_500_000


def test_many_channels_of_one_weight_are_cut_with_a_note() -> None:
    layers = [nn.Conv2d(20, 12, 1), nn.Conv2d(20, 12, 1)]
    data = _data(comparison_page(compare(*layers, match="index")))
    assert {plate["planes"] for plate in data["plates"]} == {MOST_CHANNELS}
    assert data["notes"] == [f"Of 20 input channels, tiles show the first {MOST_CHANNELS}."]


def test_many_channels_are_mixed_with_a_note(planes: Comparison) -> None:
    data = _data(comparison_page(planes))
    assert [(plate["planes"], plate["mixed"]) for plate in data["plates"]] == [(1, 20)] * 3
    [note] = data["notes"]
    assert note.startswith("Each tile is one mixture of 20 input channels")


def test_the_most_changed_filters_of_a_huge_layer_are_pictured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kernelviz_callback.comparison.page.MOST_WEIGHTS", 5 * 3 * 75 + 1)
    data = _data(comparison_page(compare(*_trained(2, 3, 5, 5))))
    assert data["tiled"] == 5
    assert len(data["plates"][0]["own"]) == 5
    assert "5 filters that changed most" in data["notes"][0]
    assert MOST_WEIGHTS > 512 * 9 * 147


def test_without_weights_there_are_numbers(run: Comparison) -> None:
    bare = replace(run, columns=tuple(replace(c, weights=None) for c in run.columns))
    data = _data(comparison_page(bare))
    assert (data["plates"], data["tiled"]) == ([], 0)
    half = replace(run, columns=(*run.columns[:-1], replace(run.last, weights=None)))
    assert any(
        "The last that is pictured" in note for note in _data(comparison_page(half))["notes"]
    )


def _hostile(run: Comparison, where: str) -> Comparison:
    first = run.first
    if where == "statement":
        return replace(run, statements=(HOSTILE,))
    if where == "reason":
        verdicts = (Verdict(0, "duplicate", HOSTILE),)
        first = replace(first, health=replace(first.health, verdicts=verdicts))
    else:
        first = replace(first, **{where: HOSTILE})
    return replace(run, columns=(first, *run.columns[1:]))


# In a browser.


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Open the page of a comparison from the disk; it must not raise errors or fetch anything."""
    complaints: list[str] = []
    tabs = []

    def look(comparison: Comparison, **settings: Any) -> Any:
        path = tmp_path / f"compare {len(tabs)}.html"
        path.write_text(comparison_page(comparison), encoding="utf-8")
        tab = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, **settings})
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: _note_fetch(request.url, path, complaints))
        tab.goto(path.as_uri())
        tab.wait_for_selector("#filters tbody tr", state="attached")
        tabs.append(tab)
        return tab

    yield look
    for tab in tabs:
        tab.close()
    assert complaints == []


def _note_fetch(url: str, path: Path, complaints: list[str]) -> None:
    if url != path.as_uri() and not url.startswith("data:"):
        complaints.append(f"fetched {url}")


def _filters_shown(tab: Any) -> list[int]:
    return [int(text) for text in tab.locator("#filters .number").all_text_contents()]


def _pixels(tab: Any, filter_index: int, plate: int) -> Tensor:
    """Read the pixels of a tile's canvas, shape (4, H, W)."""
    row = tab.locator("#filters tbody tr").filter(
        has=tab.get_by_text(re.compile(f"^{filter_index}$"))
    )
    row.scroll_into_view_if_needed()
    # As base64: a list of numbers would take seconds.
    height, width, data = (
        row.locator("canvas")
        .nth(plate)
        .evaluate(
            """(canvas) => {
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            let text = "";
            for (let at = 0; at < data.length; at += 8192) {
              text += String.fromCharCode(...data.subarray(at, at + 8192));
            }
            return [height, width, btoa(text)];
        }"""
        )
    )
    flat = torch.frombuffer(bytearray(base64.b64decode(data)), dtype=torch.uint8)
    return flat.reshape(height, width, 4).permute(2, 0, 1)


def _weights(comparison: Comparison) -> list[Tensor]:
    found = [w for w in (c.matched_weights() for c in comparison.columns) if w is not None]
    return [*found, found[-1] - found[0]]


def _largest(weights: Tensor) -> Tensor:
    return weights.where(weights.isfinite(), 0).abs().flatten(1).amax(1)


@pytest.mark.browser
@pytest.mark.parametrize("scale", ["all", "tile", "filter"])
def test_tiles_are_the_weights(opened: Any, run: Comparison, scale: str) -> None:
    tab = opened(run)
    tab.check(f"input[value={scale}]", force=True)
    *columns, difference = _weights(run)
    row = torch.stack([_largest(w) for w in columns]).amax(0)
    for plate, weights in enumerate([*columns, difference]):
        own = _largest(weights)
        common = own.amax() if weights is difference else row.amax()
        of_row = own if weights is difference else row
        ends = {"all": common.expand(12), "tile": own, "filter": of_row}[scale]
        for i in (0, 3, 5, 11):
            found = _pixels(tab, i, plate)
            bad = ~weights[i : i + 1].isfinite()
            painted = paint_tiles(
                weights[i : i + 1],
                ends[i : i + 1],
                is_rgb=True,
                zoom=found.shape[1] // 5,
                non_finite=bad,
            )[0].movedim(-1, 0)
            rounding = 1 if scale == "filter" else 0
            assert (found[:3].int() - painted.int()).abs().max() <= rounding
            assert (found[3] == 255).all()
            assert found.shape[1] == (40 if bad.any() else 5)


@pytest.mark.browser
def test_planes_are_the_channels(opened: Any, sensors: Comparison) -> None:
    tab = opened(sensors)
    weights = _weights(sensors)[0]
    half_range = torch.stack([_largest(w) for w in _weights(sensors)[:-1]]).amax()
    painted = paint_tiles(weights[:1], half_range[None], is_rgb=False)[0].movedim(-1, 0)
    found = _pixels(tab, 0, 0)
    assert found.shape == (4, 7, 7)
    for channel in range(4):
        y, x = (4 * place for place in divmod(channel, 2))
        expected = painted[:, :, 4 * channel : 4 * channel + 3]
        assert torch.equal(found[:3, y : y + 3, x : x + 3], expected)
    assert (found[3, 3] == 0).all()


@pytest.mark.browser
@pytest.mark.parametrize(("points", "pixels"), [(24, 6), (32, 4), (600, 0.48)])
@pytest.mark.parametrize("scale", ["all", "tile", "filter"])
def test_curves_equal_those_of_the_picture(
    opened: Any, points: int, pixels: float, scale: str
) -> None:
    compared = compare(*_trained(2, 3, points))
    tab = opened(compared)
    tab.check(f"input[value={scale}]", force=True)
    every = _weights(compared)
    row = torch.stack([_largest(w) for w in every]).amax(0)
    for plate, weights in enumerate(every):
        own = _largest(weights)
        ends = {"all": row.amax().expand(12), "tile": own, "filter": row}[scale]
        width = round(points * pixels)
        for i in (0, 3, 5):
            found = _pixels(tab, i, plate)
            assert found.shape == (4, 3 * 97 - 1, width)  # three channels, below each other
            drawn = draw_curves(weights[i : i + 1], ends[i : i + 1], height=96, width=width)
            painted = (
                paint_tiles(drawn, ends[i : i + 1], is_rgb=False, non_finite=~drawn.isfinite())[0]
                .movedim(-1, 0)
                .int()
            )
            for channel in range(3):
                part = found[:3, 97 * channel : 97 * channel + 96].int()
                expected = painted[:, :, channel * (width + 1) :][:, :, :width]
                # The page has 254 levels, so the ends of a bar differ by a part of a pixel.
                differing = ((part - expected).abs() > 12).any(0).sum(0)
                assert differing.max() <= 4


@pytest.mark.browser
def test_filters_of_one_tap_are_cells_in_1d_as_in_2d(opened: Any) -> None:
    of_signals, of_images = (compare(*_trained(2, 9, *taps)) for taps in ((1,), (1, 1)))
    found = _pixels(opened(of_signals), 0, 0)
    assert found.shape == (4, 5, 5)  # 3 x 3 cells of a pixel, with gaps
    assert torch.equal(found, _pixels(opened(of_images), 0, 0))


@pytest.mark.browser
@pytest.mark.parametrize("channels", [3, 2])
def test_volumes_are_rows_of_slices(opened: Any, channels: int) -> None:
    compared = compare(*_trained(2, channels, 2, 4, 5))
    tab = opened(compared)
    weights = _weights(compared)
    half_range = torch.stack([_largest(w) for w in weights[:-1]]).amax()
    found = _pixels(tab, 7, 0)
    rows = 1 if channels == 3 else 2
    assert found.shape == (4, 5 * rows - 1, 11)
    for k in range(2):
        for c in range(rows):
            part = weights[0][7:8, :, k] if channels == 3 else weights[0][7:8, c : c + 1, k]
            expected = paint_tiles(part, half_range[None], is_rgb=channels == 3)[0].movedim(-1, 0)
            at = found[:3, 5 * c : 5 * c + 4, 6 * k : 6 * k + 5]
            assert torch.equal(at, expected)
    tab.locator(".number").first.click()
    tab.locator(".frame").first.focus()
    for key in ("ArrowDown", *["ArrowRight"] * 6):
        tab.keyboard.press(key)
    said = tab.locator("#weight").text_content().replace("−", "-")
    kind = "red green blue" if channels == 3 else "channel 0"
    assert said.startswith(f"Slice 1, row 1, column 1, {kind}: ")
    i = compared.most_changed()[0]
    expected = weights[0][i, : 3 if channels == 3 else 1, 1, 1, 1].tolist()
    read = [float(number) for number in said.split(": ")[1].split(", ")]
    assert read == pytest.approx(expected, abs=weights[0][i].abs().max().item() / 254 + 6e-3)


@pytest.mark.browser
def test_taps_can_be_read(opened: Any) -> None:
    compared = compare(*_trained(2, 1, 24))
    tab = opened(compared)
    tab.locator(".number").first.click()
    tab.locator(".frame").first.focus()
    tab.keyboard.press("ArrowRight")
    said = tab.locator("#weight").text_content()
    assert said.startswith("Tap 1, channel 0: ")
    box = tab.locator(".frame").first.bounding_box()
    tab.mouse.move(box["x"] + box["width"] * 20.5 / 24, box["y"] + 20)
    assert tab.locator("#weight").text_content() == "Tap 20, channel 0"


@pytest.mark.browser
def test_filters_are_sorted_by_keyboard(opened: Any, run: Comparison) -> None:
    tab = opened(run)
    assert _filters_shown(tab) == run.most_changed()
    head = tab.get_by_role("columnheader", name="Cosine", exact=True)
    head.get_by_role("button").focus()
    tab.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    cosine = run.last.cosine_to_first.nan_to_num(9.0)
    assert _filters_shown(tab) == cosine.argsort(stable=True).tolist()
    tab.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert _filters_shown(tab)[-1] == 5


@pytest.mark.browser
def test_filters_are_chosen_by_number_and_verdict(opened: Any, run: Comparison) -> None:
    tab = opened(run)
    tab.fill("#which", "2, 4-6")
    assert sorted(_filters_shown(tab)) == [2, 4, 5, 6]
    tab.select_option("#verdict", "non-finite")
    assert _filters_shown(tab) == [5]
    assert tab.locator("#count").text_content().startswith("1 of 12 filters")
    assert "new: non-finite" in tab.locator("#filters tbody .verdicts").first.text_content()
    tab.fill("#which", "99")
    assert tab.locator("#none").is_visible()


@pytest.mark.browser
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


@pytest.mark.browser
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


@pytest.mark.browser
def test_two_checkpoints_have_bars(opened: Any, planes: Comparison) -> None:
    tab = opened(planes)
    known = int(planes.last.change_from_first.isfinite().sum())
    assert tab.locator("#chart rect.bar").count() == known == 11


@pytest.mark.browser
@pytest.mark.parametrize("where", ["layer", "label", "statement", "reason"])
def test_hostile_names_are_shown_as_text(opened: Any, run: Comparison, where: str) -> None:
    tab = opened(_hostile(run, where))
    tab.on("dialog", lambda _: pytest.fail("a name was run"))
    tab.locator(".number", has_text=re.compile("^0$")).click()
    assert HOSTILE in tab.evaluate("document.body.innerText")


@pytest.mark.browser
def test_other_networks_have_partners(opened: Any) -> None:
    torch.manual_seed(2)
    compared = compare(nn.Conv2d(3, 9, 7), nn.Conv2d(3, 6, 5))
    tab = opened(compared)
    assert _filters_shown(tab) == compared.most_changed()
    assert tab.get_by_text("no partner").count() > 0
    assert tab.get_by_role("columnheader", name="Change").count() == 0
    tab.locator(".number").last.click()
    assert tab.locator("#detail-tiles canvas").count() == 2


@pytest.mark.browser
def test_without_tiles_there_are_numbers(opened: Any, run: Comparison) -> None:
    bare = replace(run, columns=tuple(replace(c, weights=None) for c in run.columns))
    tab = opened(bare)
    assert len(_filters_shown(tab)) == 12
    assert tab.locator("#filters canvas").count() == 0
    assert not tab.locator("#scales").is_visible()


@pytest.mark.browser
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


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_horizontal_scrolling_on_the_page(opened: Any, run: Comparison, width: int) -> None:
    tab = opened(_hostile(run, "label"), viewport={"width": width, "height": 800})
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

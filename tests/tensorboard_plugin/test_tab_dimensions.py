"""1-D and 3-D layers in the Kernels tab: curves, slices, and their texts."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from engine_page import Engine
from tab_page import Grid, Open, Site, Tab, assert_painted, opening, serving, unzoomed
from tab_runs import packed, write_run
from torch import Tensor, nn

from kernelviz_callback import KernelWatcher
from kernelviz_callback.drawing.colour import diverging, to_levels
from kernelviz_callback.drawing.curves import draw_curves
from kernelviz_callback.filters.frequency import frequency_gain
from kernelviz_callback.filters.measures import largest_magnitude
from kernelviz_callback.tensorboard_plugin.codec import unpack_snapshot

pytestmark = pytest.mark.browser

STEPS = (0, 10, 20)
LAYERS = {
    "picture": lambda: nn.Conv2d(3, 8, 5),
    "audio": lambda: nn.Conv1d(1, 32, 31),
    "stereo": lambda: nn.Conv1d(3, 6, 9),
    "deep": lambda: nn.Conv1d(20, 4, 3),
    "long": lambda: nn.Conv1d(1, 4, 3000),
    "spoilt": lambda: nn.Conv1d(1, 4, 9),
    "spread": lambda: nn.Conv1d(2, 6, 9, dilation=3),
    "video": lambda: nn.Conv3d(3, 12, (3, 7, 7)),
    "volume": lambda: nn.Conv3d(2, 5, (4, 3, 5)),
    "clip": lambda: nn.Conv3d(1, 3, (16, 3, 3)),
}
BROAD = {
    "broad": lambda: nn.Conv1d(600, 64, 9)
}  # more channels than are stored, so in a run of its own


def _model() -> nn.ModuleDict:
    torch.manual_seed(3)
    model = nn.ModuleDict({name: make() for name, make in (LAYERS | BROAD).items()})
    with torch.no_grad():
        model["spoilt"].weight[2, 0, 4] = torch.nan
    return model


def _weights(layer: str, step: int) -> Tensor:
    """Round weights as the page has them: to 16 or to 8 bits."""
    exact = _model()[layer].weight.detach() * (1 + step / 20)
    return torch.from_numpy(unpack_snapshot(*packed(exact.numpy())).weights())


@pytest.fixture(scope="module")
def site(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Write a run with layers of all dimensions, and one whose layers have the same names."""
    folder = tmp_path_factory.mktemp("dimensions")
    model = _model()
    broad = {step: (model["broad"].weight.detach() * (1 + step / 20)).numpy() for step in STEPS}
    sides = {key: [1] for key in ("stride", "padding", "dilation")}
    write_run(folder / "logs" / "broad", broad, layer="broad", geometry=sides)
    del model["broad"]
    first = {name: layer.weight.detach().clone() for name, layer in model.items()}
    with KernelWatcher(model, folder / "logs" / "all", layers="*", health=False) as watcher:
        for step in STEPS:
            with torch.no_grad():
                for name, layer in model.items():
                    layer.weight.copy_(first[name] * (1 + step / 20))
            watcher.snapshot(step)
    turned = {"video": first["video"].flip(0), "audio": first["audio"][:, :, None]}
    for name, weights in turned.items():
        sides = dict.fromkeys(("stride", "padding", "dilation"), [1] * (weights.ndim - 2))
        path = folder / "logs" / f"turned {name}"
        write_run(path, {0: weights.numpy()}, layer=name, geometry=sides)
    with serving(browser, folder, _has_all) as made:
        yield made


def _has_all(timeline: Any) -> bool:
    counts = {
        run["name"]: [len(of["snapshots"]) for of in run["layers"]] for run in timeline["runs"]
    }
    return len(counts) == 4 and counts.get("all") == [len(STEPS)] * len(LAYERS)


@pytest.fixture
def opened(site: Site) -> Iterator[Open]:
    with opening(site) as look:
        yield look


def _assert_curves(grid: Grid, weights: Tensor, ends: Tensor, height: int) -> None:
    """Compare every tile of a grid with the curves of its channels, which are in rows."""
    _, channels, taps = weights.shape
    wide = min(taps, 80)
    across = min(channels, (grid.width // grid.zoom + 1) // (wide + 1))
    down = -(-channels // across)
    sides = {"height": height * grid.zoom, "width": wide * grid.zoom}
    drawn = draw_curves(weights, ends, **sides)
    size = (down * (height + 1) - 1) * grid.zoom, (across * (wide + 1) - 1) * grid.zoom
    for i in range(len(weights)):
        tile = grid.tile(i, *size)
        for c in range(channels):
            row, column = divmod(c, across)
            top, left = row * (height + 1) * grid.zoom, column * (wide + 1) * grid.zoom
            found = tile[top : top + sides["height"], left : left + sides["width"]]
            assert_painted(found, drawn[i, c][None], float(ends[i]))


@pytest.mark.parametrize("scale", ["filter", "layer"])
def test_a_kernel_of_one_dimension_is_a_curve_around_zero(opened: Open, scale: str) -> None:
    tab = opened(runs=["all"], layer="audio", scale=scale)
    for step in (20, 0):
        tab.go(step)
        weights = _weights("audio", step)
        own = largest_magnitude(weights)
        ends = own if scale == "filter" else own.amax().expand(32)
        _assert_curves(tab.grid("kernels", "all"), weights, ends, height=20)


def test_three_channels_of_a_signal_are_not_colours(opened: Open) -> None:
    tab = opened(runs=["all"], layer="stereo", step=10)
    weights = _weights("stereo", 10)
    ends = largest_magnitude(weights)
    _assert_curves(tab.grid("kernels", "all"), weights, ends, height=6)
    assert not tab.frame.locator('fieldset[data-role="channel"]').is_visible()
    tab.select("channel", "2")
    _assert_curves(tab.grid("kernels", "all"), weights[:, 2:], ends, height=6)


def test_many_channels_of_a_signal_are_the_rows_of_a_matrix(opened: Open) -> None:
    tab = opened(runs=["all"], layer="deep", step=0, filter=1)
    grid, weights = tab.grid("kernels", "all"), _weights("deep", 0)
    ends = largest_magnitude(weights)
    for i in range(4):
        pixels = unzoomed(grid.tile(i, 20 * grid.zoom, 3 * grid.zoom), grid.zoom)
        assert_painted(pixels, weights[i][None], float(ends[i]))
    _assert_readout(tab, (2, 3), (13, 20), "channel 13, tap 2", weights[1, 13, 2])
    tab.select("channel", "7")
    _assert_curves(tab.grid("kernels", "all"), weights[:, 7:8], ends, height=2)
    _assert_readout(tab, (1, 3), (0, 1), "channel 7, tap 1", weights[1, 7, 1])


def test_thousands_of_taps_share_pixels(opened: Open) -> None:
    tab = opened(runs=["all"], layer="long", step=0, filter=3)
    weights = _weights("long", 0)
    _assert_curves(tab.grid("kernels", "all"), weights, largest_magnitude(weights), height=54)
    _assert_readout(tab, (1234, 3000), (0, 1), "tap 123", None)


def test_a_tap_that_is_not_finite_is_striped(opened: Open) -> None:
    tab = opened(runs=["all"], layer="spoilt", step=0)
    grid = tab.grid("kernels", "all")
    tile = grid.tile(2, 6 * grid.zoom, 9 * grid.zoom)
    for tap in range(9):
        column = tile[:, tap * grid.zoom : (tap + 1) * grid.zoom, :3]
        colours = {tuple(pixel) for pixel in column.reshape(-1, 3).tolist()}
        assert (colours == {(255, 0, 255), (0, 0, 0)}) == (tap == 4)


# Frequency responses of 1-D filters.


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
        gain = frequency_gain(_weights(layer, step), dilation=3 if layer == "spread" else 1)
        grid = tab.grid("responses", run)
        assert grid.step == step
        assert grid.order == tab.grid("kernels", run).order
        _assert_gains(grid, gain, _ends(gain, scale))


def test_channels_and_differences_have_frequency_responses(opened: Open) -> None:
    tab = opened(runs=["all"], layer="stereo", step=20)
    tab.select("channel", "2")
    tab.rest()
    gain = frequency_gain(_weights("stereo", 20)[:, 2:])
    _assert_gains(tab.grid("responses", "all"), gain, _ends(gain, "filter"))
    tab.select("channel", "all")
    tab.select("difference", "first")
    tab.rest()
    gain = frequency_gain(_weights("stereo", 20) - _weights("stereo", 0))
    _assert_gains(tab.grid("responses", "all"), gain, _ends(gain, "filter"))


def test_a_filter_with_nan_has_no_frequency_response(opened: Open) -> None:
    tab = opened(runs=["all"], layer="spoilt", step=0)
    grid = tab.grid("responses", "all")
    found = grid.tile(2, grid.height, grid.width)[..., :3].reshape(-1, 3).tolist()
    assert {tuple(pixel) for pixel in found} == {(255, 0, 255), (0, 0, 0)}
    gain = frequency_gain(_weights("spoilt", 0)[:2])
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
        gain = frequency_gain(_weights(layer, step), dilation=dilation)
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
    part = f"of the first {_weights('broad', 0).shape[1]} of 600 channels"
    note = pane.locator('[data-role="pane-note"]').text_content()
    assert note == f"{part}, 0 to half the sampling rate"
    tops = frequency_gain(_weights("broad", 20)).amax(1)
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
    gain = frequency_gain(_weights("audio", 20))
    for _ in range(2):
        assert title.text_content() == "Frequency responses"
        assert caption.text_content().startswith("frequency response, 0 to")
        _assert_gains(tab.grid("responses", "all"), gain, gain.amax(1))
        tab.select("layer", "picture")
        tab.rest()
        assert title.text_content() == "Responses"
        assert caption.text_content().startswith("response, ±")
        tab.select("layer", "audio")
        tab.rest()


def test_colour_slices_are_in_a_row(opened: Open) -> None:
    tab = opened(runs=["all"], layer="video", step=10)
    grid, weights = tab.grid("kernels", "all"), _weights("video", 10)
    ends = largest_magnitude(weights)
    for i in (0, 5, 11):
        pixels = unzoomed(grid.tile(i, 7 * grid.zoom, 23 * grid.zoom), grid.zoom)
        for s in range(3):
            assert_painted(pixels[:, 8 * s : 8 * s + 7], weights[i, :, s], float(ends[i]))
        assert (pixels[:, [7, 15], 3] == 0).all()
    tab.choose("channel", "1")
    grid = tab.grid("kernels", "all")
    pixels = unzoomed(grid.tile(5, 7 * grid.zoom, 23 * grid.zoom), grid.zoom)
    for s in range(3):
        assert_painted(pixels[:, 8 * s : 8 * s + 7], weights[5, 1:2, s], float(ends[5]))


@pytest.mark.parametrize(("layer", "filters"), [("video", (0, 11)), ("volume", (0, 4))])
def test_channels_are_rows_of_slices(opened: Open, layer: str, filters: tuple[int, ...]) -> None:
    tab = opened(runs=["all"], layer=layer, channel="all", step=20)
    grid, weights = tab.grid("kernels", "all"), _weights(layer, 20)
    ends = largest_magnitude(weights)
    _, channels, slices, high, wide = weights.shape
    size = (channels * (high + 1) - 1) * grid.zoom, (slices * (wide + 1) - 1) * grid.zoom
    for i in filters:
        pixels = unzoomed(grid.tile(i, *size), grid.zoom)
        for c, s in np.ndindex(channels, slices):
            top, left = c * (high + 1), s * (wide + 1)
            found = pixels[top : top + high, left : left + wide]
            assert_painted(found, weights[i, c, s][None], float(ends[i]))


def test_many_slices_are_in_several_rows(opened: Open) -> None:
    tab = opened(runs=["all"], layer="clip", step=0)
    grid, weights = tab.grid("kernels", "all"), _weights("clip", 0)
    end = float(largest_magnitude(weights)[2])
    pixels = unzoomed(grid.tile(2, 7 * grid.zoom, 31 * grid.zoom), grid.zoom)
    for s in range(16):
        top, left = 4 * (s // 8), 4 * (s % 8)
        found = pixels[top : top + 3, left : left + 3]
        assert_painted(found, weights[2, 0, s][None], end)


def _assert_readout(
    tab: Tab, across: tuple[int, int], down: tuple[int, int], where: str, value: Any
) -> None:
    """Point at a cell of the large kernel, given as its index and the number of cells."""
    box = tab.frame.locator('canvas[data-kind="kernel"]').bounding_box()
    x, y = ((at + 0.5) / count for at, count in (across, down))
    tab.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    place, _, numbers_text = tab.role("weight").text_content().partition(": ")
    if value is None:
        assert place.startswith(where)
        return
    assert place == where
    numbers = [
        float(each) for each in re.findall(r"-?\d+\.\d+(?:e-\d+)?", numbers_text.replace("−", "-"))
    ]
    assert numbers == pytest.approx(np.atleast_1d(value).tolist(), abs=6e-4)


def test_the_readout_names_slices_and_taps(opened: Open) -> None:
    tab = opened(runs=["all"], layer="audio", step=20, filter=9)
    weights = _weights("audio", 20)
    for tap in (0, 17, 30):
        _assert_readout(tab, (tap, 31), (0, 1), f"tap {tap}", weights[9, 0, tap])
    tab = opened(runs=["all"], layer="stereo", step=20, filter=2)
    weights = _weights("stereo", 20)
    _assert_readout(tab, (10 + 6, 19), (0, 2), "channel 1, tap 6", weights[2, 1, 6])
    tab = opened(runs=["all"], layer="video", step=0, filter=4)
    weights = _weights("video", 0)
    for s, y, x in ((0, 0, 0), (1, 3, 5), (2, 6, 6)):
        where = f"slice {s}, row {y}, column {x}"
        _assert_readout(tab, (8 * s + x, 23), (y, 7), where, weights[4, :, s, y, x])
    tab.choose("channel", "all")
    where = "channel 2, slice 1, row 3, column 0"
    _assert_readout(tab, (8, 23), (19, 23), where, weights[4, 2, 1, 3, 0])


def test_arrow_keys_move_between_slices(opened: Open) -> None:
    tab = opened(runs=["all"], layer="video", step=0, filter=4)
    tab.frame.get_by_role("img", name="Kernel of filter 4").focus()
    for _ in range(9):
        tab.page.keyboard.press("ArrowRight")
    assert tab.role("weight").text_content().startswith("slice 1, row 0, column 1: R ")
    tab = opened(runs=["all"], layer="audio", step=0, filter=4)
    tab.frame.get_by_role("img", name="Kernel of filter 4").focus()
    for key in ["ArrowRight"] * 4 + ["ArrowDown", "ArrowLeft"]:
        tab.page.keyboard.press(key)
    assert tab.role("weight").text_content().startswith("tap 2: ")


@pytest.mark.parametrize(
    ("layer", "about", "why"),
    [
        ("audio", "32 filters, 1 × 31; 3 snapshots.", None),
        ("video", "12 filters, 3 × 3 × 7 × 7; 3 snapshots.", "reads several images at a time"),
    ],
)
def test_the_page_describes_the_layer_and_why_it_has_no_responses(
    opened: Open, layer: str, about: str, why: str | None
) -> None:
    tab = opened(runs=["all"], layer=layer, filter=3)
    assert tab.role("about-layer").text_content() == about
    message = tab.frame.locator('.pane.responses [data-role="pane-message"]')
    assert message.is_visible() == (why is not None)
    if why is not None:
        assert why in message.text_content()
        assert "Drop" not in message.text_content()
        assert why in tab.role("drawer").text_content()
    assert not tab.role("choose-probe").is_visible()
    assert not tab.frame.locator('fieldset[data-role="response"]').is_visible()
    tab.select("layer", "picture")
    tab.rest()
    assert tab.role("choose-probe").is_visible()
    responses = tab.frame.locator('canvas[data-kind="responses"]')
    assert responses.get_attribute("data-state") == "ready"
    assert "8 filters, 3 × 5 × 5" in tab.role("about-layer").text_content()


@pytest.mark.parametrize(("layer", "size"), [("audio", (20, 31)), ("video", (7, 23))])
def test_the_film_strip_has_every_step(opened: Open, layer: str, size: tuple[int, int]) -> None:
    tab = opened(runs=["all"], layer=layer, filter=6)
    frames = tab.role("film").locator("canvas")
    assert frames.count() == len(STEPS)
    weights = [_weights(layer, step)[6:7] for step in STEPS]
    end = weights[-1].abs().max()
    for k, own in enumerate(weights):
        found = tab.pixels(f'[data-role="film"] button:nth-child({k + 1}) canvas')
        zoom = found.shape[1] // size[1]
        assert found.shape[:2] == (size[0] * zoom, size[1] * zoom)
        if layer == "video":
            assert_painted(unzoomed(found, zoom)[:, 8:15], own[0, :, 1], float(end))
        else:
            drawn = draw_curves(own, end[None], height=size[0] * zoom, width=size[1] * zoom)
            assert_painted(found, drawn[0], float(end))


def test_filters_are_matched_across_runs_if_shapes_are_equal(opened: Open) -> None:
    tab = opened(runs=["all", "turned video"], layer="video", match=1, step=0)
    tab.frame.locator("text=Mean cosine of the pairs 1.000").wait_for()
    tab.rest()
    assert tab.grid("kernels", "turned video").order == list(range(11, -1, -1))
    tab = opened(runs=["all", "turned audio"], layer="audio", match=1)
    said = "Filters of 1 × 31 and 1 × 1 × 31 weights cannot be matched."
    tab.frame.get_by_text(said).wait_for()


@pytest.mark.parametrize("taps", [1, 2, 9, 40, 333])
@pytest.mark.parametrize("is_spoilt", [False, True])
def test_curves_equal_those_of_pictures(engine: Engine, taps: int, is_spoilt: bool) -> None:
    values = torch.randn(taps, generator=torch.Generator().manual_seed(taps))
    if is_spoilt:
        values[taps // 2] = torch.inf
    for height, width, end in ((20, 40, 2.0), (6, 120, 0.5), (2, 40, 0.0)):
        found = engine(
            """const picture = new ImageData(width, height);
            const pixels = new Uint32Array(picture.data.buffer);
            paintCurve(pixels, 0, width, values, height, width, end);
            return picture;""",
            values=values,
            height=height,
            width=width,
            end=end,
        )
        ends = torch.tensor([end])
        drawn = draw_curves(values[None, None], ends, height=height, width=width)[0]
        bad = ~drawn[0].isfinite()
        expected = diverging(to_levels(drawn.nan_to_num(), ends))[0].permute(1, 2, 0)
        assert bad.any() == is_spoilt
        np.testing.assert_array_equal(found[..., :3][~bad], expected.numpy()[~bad])
        assert (found[..., 3] == 255).all()
        assert (found[..., 1][bad] == 0).all()


@pytest.mark.parametrize(
    ("shape", "dilation"),
    [((3, 1, 1), 1), ((4, 3, 31), 2), ((2, 5, 9), 100), ((2, 1, 257), 1), ((1, 2, 700), 3)],
)
def test_gains_equal_those_of_pictures(
    engine: Engine, shape: tuple[int, int, int], dilation: int
) -> None:
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    script = """const series = {geometry: {dilation: [dilation]}};
        const request = gainRequest({series, shape}, values, channel);
        return Array.from({length: shape[0]}, (_, filter) => gainOf(request, filter));"""
    given = {"values": weights, "shape": list(shape), "dilation": dilation}
    found = np.array(engine(script, channel="all", **given))
    expected = frequency_gain(weights, dilation=dilation)
    np.testing.assert_allclose(found, expected, atol=2e-6 * float(expected.max()))
    last = shape[1] - 1
    found = np.array(engine(script, channel=last, **given))
    expected = frequency_gain(weights[:, last:], dilation=dilation)
    np.testing.assert_allclose(found, expected, atol=2e-6 * float(expected.max()))

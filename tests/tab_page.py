"""The Kernels tab in Chromium, from a real TensorBoard with prepared runs, and reading its content.

Tests wait for the data attributes of the body, in which the page describes its state.
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from tab_boards import Board, served
from tab_prepared import LONG_STEPS, STEPS, write_logs
from torch import Tensor

from kernelviz_callback.drawing.colour import diverging, to_levels
from kernelviz_callback.drawing.tiles import paint_tiles

SECONDS = 30_000  # milliseconds: more than anything takes


def link_to(**view: Any) -> str:
    """Make the part of an address that restores a view."""
    named = {
        key: ",".join(quote(one, safe="") for one in view[key]) for key in view if key == "runs"
    }
    pairs = {**view, **named}
    return "&".join(f"p.kernels.{key}={quote(str(value), safe='')}" for key, value in pairs.items())


Open = Callable[..., "Tab"]


class Tab:
    """An open Kernels tab: ``frame`` is its frame, ``page`` the tab of the browser around it."""

    def __init__(self, page: Any, frame: Any) -> None:
        self.page, self.frame = page, frame

    def wait(self, condition: str, argument: Any = None) -> None:
        """Wait for a JavaScript expression of ``body`` (the page's data attributes), ``given``."""
        script = f"(given) => {{ const body = document.body.dataset; return {condition}; }}"
        self.frame.wait_for_function(script, arg=argument, timeout=SECONDS)

    def drawn(self) -> None:
        """Wait until the view is loaded and the kernels are drawn."""
        self.frame.evaluate(
            "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )
        self.wait("body.state === 'ready' && body.loaded === body.snapshots")

    def rest(self) -> None:
        """Wait until the responses are computed and drawn too."""
        self.drawn()
        self.wait("body.responses === 'ready'")

    def role(self, name: str) -> Any:
        return self.frame.locator(f'[data-role="{name}"]')

    @property
    def step(self) -> int:
        return int(self.data("step"))

    def data(self, name: str) -> str:
        return self.frame.evaluate("(name) => document.body.dataset[name]", name)

    def go(self, step: int) -> None:
        """Type a step to jump to, and wait for everything to follow."""
        self.role("step").fill(str(step))
        self.role("step").press("Enter")
        self.wait("Number(body.step) === given", step)
        self.drawn()

    def choose(self, role: str, value: str) -> None:
        """Choose one of several radio buttons."""
        self.frame.check(f'fieldset[data-role="{role}"] input[value="{value}"]', force=True)
        self.drawn()

    def select(self, role: str, value: str) -> None:
        self.frame.select_option(f'select[data-role="{role}"]', value)
        self.drawn()

    def pixels(self, selector: str) -> np.ndarray:
        """Read the pixels of a canvas: shape (H, W, 4)."""
        return self._read(selector)[0]

    def grid(self, kind: str, run: str) -> "Grid":
        """Read the grid of a run; ``kind`` is "kernels" or "responses"."""
        return Grid(*self._read(f'canvas[data-kind="{kind}"][data-run={json.dumps(run)}]'))

    def _read(self, selector: str) -> tuple[np.ndarray, Mapping[str, str]]:
        """Read pixels and data attributes of a canvas at the same time."""
        height, width, data, about = self.frame.locator(selector).evaluate(
            """(canvas) => {
              const { width, height } = canvas;
              const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
              let text = "";
              for (let at = 0; at < data.length; at += 8192) {
                text += String.fromCharCode(...data.subarray(at, at + 8192));
              }
              return [height, width, btoa(text), { ...canvas.dataset }];
            }"""
        )
        pixels = np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)
        return pixels, about

    def tile_at(self, kind: str, run: str, filter_index: int) -> tuple[float, float]:
        """Return the middle of a tile in the browser's tab, for the mouse."""
        grid = self.grid(kind, run)
        selector = f'canvas[data-kind="{kind}"][data-run={json.dumps(run)}]'
        box = self.frame.locator(selector).bounding_box()
        x, y, width, height = grid.cell(filter_index)
        ratio = box["width"] / grid.pixels.shape[1]
        return box["x"] + (x + width / 2) * ratio, box["y"] + (y + height / 2) * ratio

    def click_tile(self, filter_index: int, run: str = "base", kind: str = "kernels") -> None:
        self.page.mouse.click(*self.tile_at(kind, run, filter_index))
        self.role("filter-title").wait_for()
        self.rest()

    def address(self) -> str:
        return self.page.evaluate("location.href")


class Grid:
    """The pixels of a grid, and the places of its tiles."""

    def __init__(self, pixels: np.ndarray, data: Mapping[str, str]) -> None:
        self.pixels, self.step = pixels, int(data.get("step", -1))
        self.order = [int(one) for one in data["order"].split(",")]
        names = ("columns", "zoom", "gap", "cellWidth", "cellHeight")
        self.columns, self.zoom, self.gap, self.width, self.height = (int(data[n]) for n in names)

    def cell(self, filter_index: int) -> tuple[int, int, int, int]:
        """Return x, y, width and height of a filter's tile."""
        row, column = divmod(self.order.index(filter_index), self.columns)
        x = self.gap + column * (self.width + self.gap)
        return x, self.gap + row * (self.height + self.gap), self.width, self.height

    def tile(self, filter_index: int, height: int, width: int) -> np.ndarray:
        """Return the pixels of a tile of a given size, in the middle of its cell."""
        x, y, wide, high = self.cell(filter_index)
        left, top = x + (wide - width) // 2, y + (high - height) // 2
        return self.pixels[top : top + height, left : left + width]


def unzoomed(pixels: np.ndarray, zoom: int) -> np.ndarray:
    """Return one pixel of each block of ``zoom`` x ``zoom`` equal pixels."""
    height, width, _ = pixels.shape
    blocks = pixels.reshape(height // zoom, zoom, width // zoom, zoom, 4)
    assert (blocks == blocks[:, :1, :, :1]).all(), "a weight is not one sharp square"
    return blocks[:, 0, :, 0]


def assert_painted(found: np.ndarray, values: Tensor, end: float, levels_off: int = 1) -> None:
    """Compare pixels, shape (H, W, 4), with one plane or three colour planes, shape (C, H, W)."""
    assert (found[..., 3] == 255).all()
    half_range = torch.tensor([end])
    colours = torch.from_numpy(found[..., :3].astype(np.int16)).permute(2, 0, 1)
    if len(values) == 3:
        expected = paint_tiles(values[None], half_range, is_rgb=True)[0].movedim(-1, 0)
        assert (colours - expected.short()).abs().max() <= levels_off
        return
    levels = to_levels(values, half_range).short()
    off = range(-levels_off, levels_off + 1)
    near = torch.stack([diverging((levels + d).clamp(1, 255).byte())[0] for d in off])
    assert ((near - colours).abs().amax(1) == 0).any(0).all()


class Site:
    """A TensorBoard and a browser; ``complaints`` must stay empty."""

    def __init__(self, board: Board, browser: Any) -> None:
        self.board, self.browser = board, browser
        self.complaints: list[str] = []

    def page(self, **settings: Any) -> Any:
        """Open a page in a browser context of its own, and note its errors."""
        size = {"viewport": {"width": 1280, "height": 900}}
        context = self.browser.new_context(**{**size, **settings})
        page = context.new_page()
        watch(page, self.board.url, self.complaints)
        return page

    def open(self, whole: bool = False, settings: Any = None, **view: Any) -> Tab:
        """Open the tab with a view.

        Args:
            whole: Open all of TensorBoard, not only the document of the frame, which is quicker.
            settings: Settings of the browser context.
            view: The view, as the address holds it.
        """
        page = self.page(**(settings or {}))
        link = link_to(**view)
        page.goto(f"{self.board.url}/#kernels&{link}" if whole else self.entry(link))
        tab = Tab(page, frame_of(page) if whole else page.main_frame)
        tab.rest()
        return tab

    def entry(self, link: str = "") -> str:
        """Return the address of the frame's document."""
        return f"{self.board.url}/data/plugin_entry.html?name=kernels#{link}"


@contextmanager
def serving(
    browser: Any, folder: Path, is_read: Callable[[Any], bool], *flags: str
) -> Iterator[Site]:
    """Serve ``logs`` in a folder, and wait until TensorBoard has read it."""
    logs = folder / "logs"
    with served(f"--logdir={logs}", *flags, log=folder / "tensorboard.log") as board:
        board.until(is_read)
        yield Site(board, browser)


@contextmanager
def prepared_board(folder: Path) -> Iterator[Board]:
    """Write the prepared runs into an empty folder and serve them."""
    logs = folder / "logs"
    write_logs(logs)
    with served(f"--logdir={logs}", log=folder / "tensorboard.log") as board:
        board.until(_has_all)
        yield board


def _has_all(timeline: Any) -> bool:
    counts = {run["name"]: len(run["layers"][-1]["snapshots"]) for run in timeline["runs"]}
    steps = {"base": STEPS, "grey": STEPS, "grouped": STEPS, "long": LONG_STEPS}
    return {name: len(of) for name, of in steps.items()}.items() <= counts.items()


@contextmanager
def opening(made: Site) -> Iterator[Callable[..., Tab]]:
    """Open tabs of a site, close them, and check that no error was noted."""
    made.complaints.clear()
    yield made.open
    for context in made.browser.contexts:
        context.close()
    assert made.complaints == [], made.complaints


def watch(page: Any, url: str, complaints: list[str]) -> None:
    """Note errors of scripts, of the console (a violated CSP among them), and foreign requests."""

    def said(message: Any) -> None:
        source = message.location["url"]
        is_ours = "plugin/kernels" in source or "plugin_entry" in source
        if message.type == "error" or (is_ours and message.type == "warning"):
            complaints.append(f"{message.text} ({source})")

    def asked(request: Any) -> None:
        if not request.url.startswith((url, "data:", "blob:")):
            complaints.append(f"asked {request.url}")

    # Only a document outside of a frame is asked for an icon.
    page.route("**/favicon.ico", lambda route: route.fulfill(body=b""))
    page.on("console", said)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", asked)


def frame_of(page: Any) -> Any:
    """Find the frame of the tab in TensorBoard's page."""
    element = page.wait_for_selector("iframe[src*='plugin_entry']", timeout=SECONDS)
    return element.content_frame()

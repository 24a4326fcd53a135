"""Open the Kernels tab in a browser that records when something was drawn, for `tab.py`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Frame, Page

WINDOW = {"width": 1280, "height": 800}
PLAYED = 3  # seconds
DRAGGED = 150  # positions of the pointer, over the whole slider
PATIENCE = 60  # seconds
SETTLED = 50  # milliseconds until the page has recorded what it drew

# Record what was drawn: [milliseconds since 1970 at the next frame, element, attribute, value].
_RECORDER = """
const now = () => performance.timeOrigin + performance.now();
window.record = [];
if (location.pathname.endsWith("plugin_entry.html")) {
  new MutationObserver((changes) => {
    const drawn = changes.flatMap(({ target, attributeName, oldValue }) => {
      const value = target.getAttribute(attributeName);
      return value === oldValue ? [] : [[target.dataset.kind ?? "page", attributeName, value]];
    });
    requestAnimationFrame(() => window.record.push(...drawn.map((one) => [now(), ...one])));
  }).observe(document, {
    subtree: true, attributeOldValue: true,
    attributeFilter: ["data-step", "data-loaded", "data-responses"],
  });
} else {
  document.addEventListener("click", () => window.record.push(now()), { capture: true });
}
"""

# Move the pointer once per frame, as Chromium does for a mouse. The test driver waits for an answer
# to each move; its own speed would be measured instead.
_SWEEP = """
async (places) => {
  const lane = document.querySelector("[data-role=slider]"), box = lane.getBoundingClientRect();
  for (let k = 1; k <= places; k++) {
    await new Promise(requestAnimationFrame);
    const clientX = box.left + (box.width * k) / places;
    lane.dispatchEvent(new PointerEvent("pointermove", { clientX }));
  }
}
"""


class Tab:
    """The tab in a page of its own: do what a user does, and measure when the result is visible."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.frame: Frame = page.main_frame

    def open(self, url: str, view: str = "") -> tuple[float, float]:
        """Load TensorBoard with the tab open.

        Returns:
            Seconds until TensorBoard opens the tab, and from then until kernels are visible.
        """
        self.page.goto(f"{url}/#kernels{view}", wait_until="commit")
        self._find()
        opened = self._origin(self.frame)
        return opened - self._origin(self.page.main_frame), self._first("kernels") - opened

    def click(self, url: str) -> float:
        """Load TensorBoard and click on the tab; return the seconds until kernels are visible."""
        self.page.goto(f"{url}/#timeseries", wait_until="networkidle")
        self.page.get_by_role("tab", name="Kernels").click()
        self._find()
        return self._first("kernels") - self.page.evaluate("record.at(-1)") / 1e3

    def load(self, count: int) -> float:
        """Return the seconds from opening the tab until ``count`` snapshots are in the browser."""
        self.until("data-loaded", count)
        return self._first("page", "data-loaded", str(count)) - self._origin(self.frame)

    def until(self, attribute: str, value: object) -> None:
        """Wait until an attribute of the page has a value."""
        self.frame.wait_for_selector(f'body[{attribute}="{value}"]', timeout=PATIENCE * 1e3)

    def record(self) -> list[list[Any]]:
        """Return what was recorded since the last call."""
        self.page.wait_for_timeout(SETTLED)
        return self.frame.evaluate("record.splice(0)")

    def pictures(self) -> list[float]:
        """Return the times at which kernels were drawn since the last call, in seconds."""
        drawn = {at for at, *what in self.record() if what[:2] == ["kernels", "data-step"]}
        return [at / 1e3 for at in sorted(drawn)]

    def play(self) -> list[float]:
        """Play for some seconds at the highest speed; return the times of new pictures."""
        self.frame.press("body", "Home")
        fastest = self.frame.locator("[data-role=speed] option").last.get_attribute("value")
        self.frame.select_option("[data-role=speed]", fastest)
        self.frame.click("[data-role=play]")
        self.page.wait_for_timeout(500)
        self.record()
        self.page.wait_for_timeout(PLAYED * 1e3)
        pictures = self.pictures()
        self.frame.click("[data-role=play]")
        return pictures

    def drag(self) -> list[float]:
        """Drag the slider from one end to the other; return the times of new pictures."""
        self.frame.hover("[data-role=slider]", position={"x": 2, "y": 9})
        self.page.mouse.down()
        self.record()
        self.frame.evaluate(_SWEEP, DRAGGED)
        pictures = self.pictures()
        self.page.mouse.up()
        return pictures

    def respond(self, step: int) -> float:
        """Go to a new step; return the seconds from then until all responses are drawn."""
        self.until("data-responses", "ready")
        self.record()
        self.frame.fill("[data-role=step]", str(step))
        self.frame.press("[data-role=step]", "Enter")
        self.until("data-step", step)
        self.until("data-responses", "ready")
        record = self.record()
        moved = next(at for at, *what in record if what == ["page", "data-step", str(step)])
        done = [at for at, *what in record if what == ["page", "data-responses", "ready"]]
        return (done[-1] - moved) / 1e3

    def enlarge(self) -> None:
        """Enlarge the first filter."""
        self.frame.locator("[data-role=tiles]").first.click(position={"x": 12, "y": 12})
        self.frame.wait_for_selector("[data-role=drawer]")

    def megabytes(self) -> float:
        """Return the memory of the page's scripts and of the weights that they hold, in MB."""
        self.page.context.new_cdp_session(self.page).send("HeapProfiler.collectGarbage")
        return self.frame.evaluate("performance.memory.usedJSHeapSize") / 1e6

    def _find(self) -> None:
        frame = self.page.wait_for_selector("iframe").content_frame()
        assert frame is not None
        self.frame = frame
        self.frame.wait_for_selector("body[data-state=ready]")

    def _first(self, by: str, attribute: str = "data-step", value: str | None = None) -> float:
        self.page.wait_for_timeout(SETTLED)
        wanted = [by, attribute] if value is None else [by, attribute, value]
        record = self.frame.evaluate("record")
        return next(at / 1e3 for at, *what in record if what[: len(wanted)] == wanted)

    def _origin(self, frame: Frame) -> float:
        return frame.evaluate("performance.timeOrigin") / 1e3


@contextmanager
def tab(browser: Browser) -> Iterator[Tab]:
    """Open a page in a new browser profile, with an empty cache."""
    context = browser.new_context(viewport=WINDOW)
    context.add_init_script(_RECORDER)
    yield Tab(context.new_page())
    context.close()

"""A page in Chromium with the tab's modules that compute, and arrays to and from it.

A script is the body of an asynchronous function. It sees the exports of the modules and the
arguments by their names; arrays arrive as typed arrays and come back as flat NumPy arrays.
"""

import base64
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import kernelviz_callback

STATIC = Path(kernelviz_callback.__file__).parent / "tensorboard_plugin" / "static"
ENGINE = (
    "decode",
    "source",
    "series",
    "loader",
    "paint",
    "convolve",
    "matching",
    "responder",
    "taps",
    "gains",
    "tile_layout",
)
CHROMIUM = shutil.which("chromium")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# Typed arrays as base64: as lists of numbers they would take seconds.
_BRIDGE = """() => {
  window.fromPython = (value) => {
    if (!value?.type) return value;
    const bytes = Uint8Array.from(atob(value.data), (character) => character.charCodeAt(0));
    return value.type === "ArrayBuffer" ? bytes.buffer : new window[value.type](bytes.buffer);
  };
  window.toPython = (value) => {
    if (Array.isArray(value)) return value.map(toPython);
    if (value === null || typeof value !== "object") return value;
    if (value instanceof ImageData) {
      return {...toPython(value.data), shape: [value.height, value.width, 4]};
    }
    if (!ArrayBuffer.isView(value)) return mapped(value, toPython);
    const bytes = new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
    let text = "";
    for (let at = 0; at < bytes.length; at += 8192) {
      text += String.fromCharCode(...bytes.subarray(at, at + 8192));
    }
    return {type: value.constructor.name, data: btoa(text)};
  };
  window.mapped = (object, change) =>
    Object.fromEntries(Object.entries(object).map(([key, value]) => [key, change(value)]));
}"""
_LOAD = """async (addresses) => {
  const load = (address) => import(new URL(address, document.baseURI));
  window.engine ??= Object.assign({}, ...await Promise.all(addresses.map(load)));
  return Object.keys(window.engine);
}"""
_TYPES = {
    "float32": "Float32Array",
    "float64": "Float64Array",
    "int32": "Int32Array",
    "uint8": "Uint8Array",
    "uint16": "Uint16Array",
}
_DTYPES = {name: dtype for dtype, name in _TYPES.items()} | {"Uint8ClampedArray": "uint8"}

Engine = Callable[..., Any]


@contextmanager
def chromium() -> Iterator[Any]:
    """Start a headless browser; skip the test if there is none."""
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH to run the page with")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


@contextmanager
def engine_page(browser: Any) -> Iterator[Engine]:
    """Open a page that is served from the folder of the modules; it must not raise errors."""
    with _served() as address:
        page = browser.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        yield install(page)
        page.close()
        assert complaints == [], complaints


def install(page: Any) -> Engine:
    """Load the modules into an open page, and return a function that runs scripts with them."""
    page.evaluate(_BRIDGE)
    exports = page.evaluate(_LOAD, [f"{name}.js" for name in ENGINE])

    def run(script: str, **given: Any) -> Any:
        text = f"""async (given) => {{
            const {{{", ".join(exports)}}} = window.engine;
            {{
                const {{{", ".join(given)}}} = mapped(given, fromPython);
                return toPython(await (async () => {{ {script} }})());
            }}
        }}"""
        packed = {name: _to_page(value) for name, value in given.items()}
        return _from_page(page.evaluate(text, packed))

    return run


class _Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path != "/":
            super().do_GET()
            return
        page = b'<!doctype html><link rel="icon" href="data:,"><title>engine</title>'
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def _served() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(STATIC)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def _to_page(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"type": "ArrayBuffer", "data": base64.b64encode(value).decode()}
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"type": _TYPES[value.dtype.name], "data": data}
    return value


def _from_page(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_page(one) for one in value]
    if not isinstance(value, dict):
        return value
    if value.get("type") not in _DTYPES:
        return {key: _from_page(one) for key, one in value.items()}
    array = np.frombuffer(base64.b64decode(value["data"]), _DTYPES[value["type"]])
    return array.reshape(value["shape"]) if "shape" in value else array

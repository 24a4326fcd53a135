"""TensorBoard with the Kernels tab, as a real server or in this process, and requests to it."""

import json
import re
import struct
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

from werkzeug.test import Client

with warnings.catch_warnings():
    # TensorBoard's copy of bleach.
    warnings.filterwarnings("ignore", "html5lib's sanitizer is deprecated")
    from tensorboard import program
    from tensorboard.backend import application
    from tensorboard.backend.event_processing.data_ingester import LocalDataIngester

ROUTE = "/data/plugin/kernels"
SECONDS = 60  # more than TensorBoard needs


class Answer(NamedTuple):
    status: int
    content: bytes
    mime_type: str

    def json(self) -> Any:
        return json.loads(self.content)


@dataclass
class Board:
    """A TensorBoard: ``get`` fetches an address.

    ``url`` and ``process`` are those of a server. ``prefix`` stands before the names of all runs.
    """

    get: Callable[[str], Answer]
    url: str = ""
    process: subprocess.Popen[str] | None = None
    prefix: str = ""

    def ask(self, name: str, **query: Any) -> Answer:
        return self.get(f"{ROUTE}/{name}?{urlencode(query)}")

    def timeline(self, **query: Any) -> Any:
        return self.ask("timeline", **query).json()

    def run(self, name: str) -> Any:
        """Return the entry of a run in the timeline, or None."""
        return next((run for run in self.timeline()["runs"] if run["name"] == name), None)

    def payloads(self, run: str, layer: str, ids: Sequence[str]) -> list[bytes]:
        """Request payloads of any number of snapshots, in requests like those of the page."""
        found: list[bytes] = []
        for first in range(0, len(ids), 64):
            some = ids[first : first + 64]
            answer = self.ask("snapshots", run=run, layer=layer, ids=",".join(some))
            assert answer.status == 200, answer
            found += split(answer.content)
        return found

    def until(self, is_ready: Callable[[Any], bool]) -> Any:
        """Wait until the timeline fulfils a condition, and return it."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            timeline = self.timeline()
            if is_ready(timeline):
                return timeline
            time.sleep(0.1)
        raise TimeoutError(f"still: {str(timeline)[:1000]}")


def split(answer: bytes) -> list[bytes]:
    """Split an answer of ``/snapshots`` into its payloads."""
    (count,) = struct.unpack_from("<I", answer)
    at, found = 4 + 4 * count, []
    for length in struct.unpack_from(f"<{count}I", answer, 4):
        found.append(answer[at : at + length])
        at += length
    assert at == len(answer)
    return found


@contextmanager
def served(*flags: str, log: Path) -> Iterator[Board]:
    """Start ``tensorboard`` as a user does, with any flags; ``log`` receives its output."""
    command = [sys.executable, "-m", "tensorboard.main", "--port=0", "--host=127.0.0.1", *flags]
    with log.open("w") as output, subprocess.Popen(command, stderr=output, text=True) as process:
        try:
            url = _address(process, log)
            yield Board(lambda path: _fetched(url + path), url, process)
        finally:
            process.terminate()


def in_process(*flags: str, wrap: Callable[[Any], Any] = lambda provider: provider) -> Board:
    """Build TensorBoard's application here, with all of its plugins and the Python loader.

    It has read everything when this returns. ``wrap`` may put something between the plugins and
    TensorBoard's data.
    """
    board = program.TensorBoard()
    fixed = ["--load_fast=false", "--reload_task=blocking", "--reload_interval=0"]
    board.configure(["tensorboard", *fixed, *flags])
    ingester = LocalDataIngester(board.flags)
    ingester.start()
    app = application.TensorBoardWSGIApp(
        board.flags,
        board.plugin_loaders,
        wrap(ingester.data_provider),
        board.assets_zip_provider,
        ingester.deprecated_multiplexer,
    )
    client = Client(app)

    def get(path: str) -> Answer:
        response = client.get(path)
        return Answer(response.status_code, response.data, response.mimetype)

    return Board(get)


def _address(process: subprocess.Popen[str], log: Path) -> str:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and process.poll() is None:
        if found := re.search(r"at (http://\S+?)/? \(Press", log.read_text()):
            return found[1]
        time.sleep(0.05)
    raise RuntimeError(f"TensorBoard did not start: {log.read_text()}")


def _fetched(address: str) -> Answer:
    try:
        with urlopen(address) as reply:
            return Answer(reply.status, reply.read(), reply.headers.get_content_type())
    except HTTPError as error:
        return Answer(error.code, error.read(), error.headers.get_content_type())

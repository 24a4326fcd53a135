"""The sources of the data: a real TensorBoard, or a report."""

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_page import STATIC, install
from tab_boards import Board, served
from tab_runs import DIGEST, GEOMETRY, random_weights, write_run

from kernelviz_callback.filters.responses import channel_responses
from kernelviz_callback.tensorboard_plugin.codec import pack_probe, pack_snapshot, unpack_snapshot

HOSTILE = "a</script><script>alert(1)</script>&b=c#d+e"
_JAVASCRIPT = "text/javascript"
SHAPE = (9, 3, 5, 5)
STEPS = range(0, 200, 2)
PROBE = np.random.default_rng(5).random((3, 40, 50)).astype(np.float32)

# All weights of the first layer of the first run, the probe, and a response grid of the last.
READ = """
const { runs } = await source.timeline();
const [layer] = runs[0].layers, [probe] = runs[0].probes;
const series = new Series(source, runs[0].name);
series.update(layer);
series.load(5);
await series.require(3);
const pause = () => new Promise((resolve) => setTimeout(resolve, 5));
while (series.loadedCount < series.entries.length) await pause();
const last = series.entries.length - 1;
const seen = await decodeProbe(await source.probe(runs[0].name, probe.digest), probe);
const responder = new Responder(source);
const request = {planes: seen.planes, probeShape: seen.shape, kernels: series.weights(last),
  shape: layer.shape, shrink: 2};
const chunks = [];
await new Promise((resolve) => responder.grid(request, (chunk) => {
  chunks.push(chunk.data);
  if (chunk.done) resolve();
}));
return {weights: series.entries.map((_, index) => series.weights(index)), planes: seen.planes,
  chunks, hasWorker: responder.worker !== null, name: runs[0].name, layer: layer.name};
"""


def _stored() -> dict[int, tuple[Any, bytes]]:
    about = {"layer": HOSTILE, "epoch": 0, "wall_time": 0.0, "attempt": 1, "geometry": GEOMETRY}
    weights = random_weights(STEPS, SHAPE)
    return {step: pack_snapshot(w, step=step, **about) for step, w in weights.items()}


def _check(found: dict[str, Any]) -> None:
    stored = [unpack_snapshot(*each).weights() for each in _stored().values()]
    np.testing.assert_array_equal(found["weights"], [w.ravel() for w in stored])
    np.testing.assert_array_equal(found["planes"], PROBE.ravel())
    responses = channel_responses(torch.from_numpy(PROBE), torch.from_numpy(stored[-1]), shrink=2)
    np.testing.assert_allclose(
        np.concatenate(found["chunks"]), responses.numpy().ravel(), atol=1e-5
    )
    assert found["hasWorker"]
    assert found["layer"] == HOSTILE


@pytest.mark.browser
@pytest.mark.parametrize("flags", [(), ("--load_fast=false", "--path_prefix=/some/where")])
def test_all_data_of_a_real_tensorboard_is_read(
    browser: Any, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    write_run(tmp_path / "run & more", random_weights(STEPS, SHAPE), layer=HOSTILE, probe=PROBE)
    log = tmp_path / "said.txt"
    with served(f"--logdir={tmp_path}", *flags, log=log) as board, _opened(browser, board) as page:
        engine = install(page)
        _wait(lambda: engine("return (await new TabSource().timeline()).runs.length"))
        _check(engine(f"const source = new TabSource(); {READ}"))
        again = engine("""const source = new TabSource();
            const {revision} = await source.timeline();
            return [revision, await source.timeline(revision)];""")
        assert again[1] == {"revision": again[0], "unchanged": True}
        nothing = engine(
            "return new TabSource().payloads('run & more', layer, ['0-1', '../x'])", layer=HOSTILE
        )
        assert nothing == [None, None]
        said = engine("return new TabSource().payloads('no', 'x', ['0-1']).catch((e) => e.message)")
        assert "'no'" in said
        said = engine(
            "return new TabSource().probe(run, '0').catch((e) => e.message)", run="run & more"
        )
        assert "'0'" in said


@pytest.mark.browser
def test_a_failed_request_is_sent_again(browser: Any, tmp_path: Path) -> None:
    write_run(tmp_path / "run", random_weights(range(3), SHAPE))
    log = tmp_path / "said.txt"
    with served(f"--logdir={tmp_path}", log=log) as board, _opened(browser, board) as page:
        engine = install(page)
        _wait(lambda: engine("return (await new TabSource().timeline()).runs.length"))
        page.route("**/timeline*", lambda route: route.abort(), times=1)
        assert engine("return (await new TabSource().timeline()).runs[0].name") == "run"
        page.route("**/timeline*", lambda route: route.abort())
        said = engine("return new TabSource().timeline().catch((error) => error.message)")
        assert said == "TensorBoard does not answer. Is it still running?"
        cut = b"\3\0\0\0\1\0\0\0"
        page.route("**/snapshots*", lambda route: route.fulfill(body=cut))
        said = engine("return new TabSource().payloads('run', 'x', ['a']).catch((e) => e.message)")
        assert said == "TensorBoard's answer was cut off."


@contextmanager
def _opened(browser: Any, board: Board) -> Iterator[Any]:
    """Open the document of the tab's frame, without starting the tab."""
    page = browser.new_page()
    nothing = "export const render = () => {};"
    page.route("**/index.js", lambda route: route.fulfill(body=nothing, content_type=_JAVASCRIPT))
    page.goto(f"{board.url}/data/plugin_entry.html?name=kernels")
    yield page
    page.close()


def _wait(is_true: Callable[[], Any]) -> None:
    """Wait for a condition: TensorBoard reads the runs after it has begun to answer."""
    end = time.monotonic() + 30
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.1)


# The report.

MODULES = sorted(path.name for path in STATIC.glob("*.js"))
_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+\.js)";\n', re.MULTILINE)
_TOP_LEVEL = re.compile(
    r"^(?:export )?(?:async )?(?:function\*?|class|const|let|var) (\w+)", re.MULTILINE
)


def _text(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


def _bundled(*names: str) -> str:
    """Join modules into one script, each after the modules that it imports."""
    ordered: dict[str, str] = {}

    def take(name: str) -> None:
        if name not in ordered:
            for _, imported in _IMPORT.findall(_text(name)):
                take(imported)
            ordered[name] = re.sub(r"^export ", "", _IMPORT.sub("", _text(name)), flags=re.M)

    for name in names:
        take(name)
    return "\n".join(ordered.values())


def test_modules_can_be_joined_into_one_script() -> None:
    names = [name for module in MODULES for name in _TOP_LEVEL.findall(_text(module))]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice
    for module in MODULES:
        rest = _IMPORT.sub("", _text(module))
        assert not re.search(r"^import |import\(|import\.meta|^export (default|\{|\*)", rest, re.M)
        assert all(" as " not in names for names, _ in _IMPORT.findall(_text(module)))


@pytest.mark.browser
@pytest.mark.parametrize("kind", ["module", "text/javascript"])
def test_a_report_is_read_from_the_disk(browser: Any, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "report.html"
    script = _bundled("source.js", "series.js", "responder.js", "decode.js")
    as_json = json.dumps(_report()).replace("<", "\\u003c")
    path.write_text(
        f"""<!doctype html><meta charset="utf-8"><title>report</title>
        <script type="application/json" id="kernels-data">{as_json}</script>
        <script type="text/plain" id="kernels-worker">{_bundled("worker.js")}</script>
        <script type="{kind}">{script}
        window.engine = {{EmbeddedSource, Series, Responder, decodeProbe}};</script>""",
        encoding="utf-8",
    )
    complaints: list[str] = []
    page = browser.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(path.as_uri())
    engine = install(page)
    found = engine(f"const source = new EmbeddedSource(); {READ}")
    _check(found)
    assert found["name"] == "run"
    missing = engine("""const source = new EmbeddedSource();
        return [source.live, source.notes, await source.payloads("run", "x", ["constructor"]),
          await source.probe("run", "0").catch((error) => error.message)];""")
    assert missing == [
        False,
        ["50 of 100 snapshots"],
        [None],
        "This report does not hold the probe of this snapshot.",
    ]
    page.close()
    assert complaints == []


def _report() -> dict[str, Any]:
    stored = _stored()
    header, probe = pack_probe(PROBE, name="photo.png", digest=DIGEST, attempt=1)
    layer = {
        "name": HOSTILE,
        "shape": SHAPE,
        "filters": SHAPE[0],
        "channels": SHAPE[1],
        "geometry": GEOMETRY,
        "snapshots": [
            {"id": f"{step}-1", "step": step, "dtype": about["dtype"]}
            for step, (about, _) in stored.items()
        ],
    }
    payloads = {f"{step}-1": _base64(payload) for step, (_, payload) in stored.items()}
    return {
        "timeline": {"runs": [{"name": "run", "layers": [layer], "probes": [header]}]},
        "payloads": {"run": {HOSTILE: payloads}},
        "probes": {"run": {DIGEST: _base64(probe)}},
        "notes": ["50 of 100 snapshots"],
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()

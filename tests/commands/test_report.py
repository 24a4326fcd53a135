"""A run as one page: the content of the file, and its behaviour in a browser without a network."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import DEFAULT_STEPS
from tab_page import Tab, assert_painted, unzoomed
from tab_prepared import HOSTILE, moving_weights, picture
from torch import nn

from kernelviz_callback import KernelVizCallback, list_snapshots, load_snapshot
from kernelviz_callback.checkpoints.byte_ranges import TensorBytes
from kernelviz_callback.checkpoints.checkpoint import open_checkpoint, plain_geometry
from kernelviz_callback.commands import report
from kernelviz_callback.commands.history import LayerHistory, order_by_step
from kernelviz_callback.commands.report import most_snapshots, report_page, save_report
from kernelviz_callback.filters.responses import channel_responses
from kernelviz_callback.health.examine import kernel_health
from kernelviz_callback.probe.probe import Probe, load_probe
from kernelviz_callback.snapshots.format import save_snapshot
from kernelviz_callback.snapshots.snapshot import Snapshot

STEPS = (0, 1, 5, 20, 100)
WEIGHTS = moving_weights(STEPS, (12, 3, 7, 7), 1)
PROBE = Probe(torch.from_numpy(picture(3, 62, 62)), "photo.png")
_DECLARED = re.compile(r"^(?:async )?(?:function\*?|class|const|let|var) (\w+)", re.MULTILINE)


def _snapshots(weights: Any = WEIGHTS, layer: str = "conv1") -> list[Snapshot]:
    about = {"geometry": {layer: plain_geometry((1, 1, 1, 1))}, "probe_digest": PROBE.digest}
    return [
        Snapshot(step, step // 10, 1.0, {layer: torch.from_numpy(each)}, **about)
        for step, each in weights.items()
    ]


def _page(**given: Any) -> str:
    return report_page(_snapshots(), "conv1", **{"probe": PROBE, "name": "runs/a", **given})


def _data(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="kernels-data">(.*?)</script>', page)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def _steps(page: str) -> list[int]:
    [run] = _data(page)["timeline"]["runs"]
    [layer] = run["layers"]
    return [each["step"] for each in layer["snapshots"]]


# The file.


def test_the_scripts_declare_each_name_once() -> None:
    page = _page()
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 3
    for script in scripts[1:]:
        assert not re.search(r"^(import|export)\b", script, re.MULTILINE)
        assert [name for name, n in Counter(_DECLARED.findall(script)).items() if n > 1] == []
    assert _page() == page


def test_two_hundred_snapshots_of_a_usual_layer_fit_into_6_mb() -> None:
    weights = moving_weights(range(200), (64, 3, 7, 7), 1, pace=0.01)
    noise = np.random.default_rng(0).integers(0, 256, (3, 224, 224)).astype(np.uint8)
    page = report_page(_snapshots(weights), "conv1", probe=load_probe(noise), name="run")
    assert len(page.encode()) <= 6_000_000
    assert len(_steps(page)) == 200
    assert most_snapshots(_snapshots()[0], "conv1") > 200


@pytest.mark.parametrize("kept", [2, 3, 7])
def test_too_many_snapshots_are_thinned_out_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    history = _saved(tmp_path, moving_weights(range(0, 130, 10), (4, 3, 5, 5), 2))
    own = most_snapshots(_snapshots(moving_weights([0], (4, 3, 5, 5), 2))[0], "conv1")
    monkeypatch.setattr(report, "MOST_BYTES", int(report.MOST_BYTES * (kept + 0.5) / own))
    save_report(history, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    steps = _steps(page)
    assert (len(steps), steps[0], steps[-1]) == (kept, 0, 120)
    assert max(np.diff(steps)) - min(np.diff(steps)) <= 10
    assert any(f"{kept} of 13 snapshots" in note for note in _data(page)["notes"])


def test_a_neighbour_replaces_an_unreadable_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = _saved(tmp_path, moving_weights(range(0, 130, 10), (4, 3, 5, 5), 2))
    own = most_snapshots(_snapshots(moving_weights([0], (4, 3, 5, 5), 2))[0], "conv1")
    monkeypatch.setattr(report, "MOST_BYTES", int(report.MOST_BYTES * 3.5 / own))
    for step in (0, 60, 70, 120):
        (tmp_path / f"step={step}.pt").write_bytes(b"")
    save_report(history, tmp_path / "report.html")
    assert _steps((tmp_path / "report.html").read_text(encoding="utf-8")) == [10, 80, 110]


def _saved(folder: Path, weights: Any, has_steps: bool = True) -> LayerHistory:
    """Write plain torch checkpoints of a module."""
    paths = []
    for step, each in weights.items():
        path = folder / (f"step={step}.pt" if has_steps else f"{'abcdefghij'[len(paths)]}.pt")
        torch.save({"state_dict": {"conv1.weight": torch.from_numpy(each)}}, path)
        paths.append(path)
    return _history(paths)


def _history(paths: Iterable[Path]) -> LayerHistory:
    names, _ = order_by_step(map(str, paths), nullcontext)
    return LayerHistory(names, open_checkpoint(next(iter(names.values()))), None)


def test_plain_checkpoints_are_examined(tmp_path: Path) -> None:
    weights = {step: each.copy() for step, each in WEIGHTS.items()}
    weights[100][4] *= 1e-4
    save_report(_saved(tmp_path, weights), tmp_path / "report.html", probe=PROBE)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert _steps(page) == list(STEPS)
    [run] = _data(page)["timeline"]["runs"]
    verdicts = [each["verdicts"] for each in run["layers"][0]["snapshots"]]
    assert verdicts[0].get("near-zero") is None
    assert verdicts[-1]["near-zero"] == 1
    assert [probe["name"] for probe in run["probes"]] == ["photo.png"]


def test_checkpoints_without_steps_are_counted(tmp_path: Path) -> None:
    save_report(_saved(tmp_path, WEIGHTS, has_steps=False), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert _steps(page) == [0, 1, 2, 3, 4]


def test_a_damaged_file_is_left_out_with_a_note(tmp_path: Path) -> None:
    history = _saved(tmp_path, WEIGHTS)
    for name in ("step=5.pt", "step=20.pt"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:900])
    unread: list[Exception] = []
    save_report(history, tmp_path / "report.html", on_unread=unread.append)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert _steps(page) == [0, 1, 100]
    assert ["step=5.pt" in str(unread[0]), "step=20.pt" in str(unread[1])] == [True, True]
    assert sum("step=5.pt" in note for note in _data(page)["notes"]) == 1


def test_a_checkpoint_of_another_shape_is_left_out_with_a_note(tmp_path: Path) -> None:
    history = _saved(tmp_path, WEIGHTS)
    _saved(tmp_path, {5: WEIGHTS[5][:4]})
    unread: list[Exception] = []
    save_report(history, tmp_path / "report.html", on_unread=unread.append)
    assert _steps((tmp_path / "report.html").read_text(encoding="utf-8")) == [0, 1, 20, 100]
    assert "expected 12x3x7x7 of conv1; found 4x3x7x7" in str(unread[0])


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    history = _saved(tmp_path, {0: WEIGHTS[0]})
    (tmp_path / "step=0.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="none of 1 checkpoints could be read"):
        save_report(history, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_report_equals_the_recorded_run(fit: Any, tmp_path: Path) -> None:
    dead = nn.Conv2d(3, 8, 5)
    nn.init.zeros_(dead.weight[3])
    probe = torch.rand(3, 20, 24)
    trainer = fit(KernelVizCallback(probe=probe))
    paths = list_snapshots(Path(trainer.log_dir) / "kernelviz")
    save_report(_history(paths.values()), tmp_path / "report.html")
    data = _data((tmp_path / "report.html").read_text(encoding="utf-8"))
    [run] = data["timeline"]["runs"]
    assert run["name"] == "run/version_0"
    [layer] = run["layers"]
    assert layer["name"] == "conv"
    recorded = [load_snapshot(path) for path in paths.values()]
    assert [each["step"] for each in layer["snapshots"]] == DEFAULT_STEPS
    assert [each["epoch"] for each in layer["snapshots"]] == [each.epoch for each in recorded]
    assert [each["time"] for each in layer["snapshots"]] == [each.wall_time for each in recorded]
    assert {each["probe"] for each in layer["snapshots"]} == {Probe(probe, "tensor").digest}
    for entry, exact in zip(layer["snapshots"], recorded, strict=True):
        names = Counter(verdict.name for verdict in exact.health["conv"].verdicts)
        assert {name: n for name, n in entry["verdicts"].items() if n} == dict(names)
    assert data["notes"] == []


def test_the_drift_of_a_resumed_training_counts_from_its_start(fit: Any, tmp_path: Path) -> None:
    first = fit(KernelVizCallback())
    first.save_checkpoint(tmp_path / "last.ckpt")
    resumed = fit(KernelVizCallback(), ckpt_path=tmp_path / "last.ckpt", max_epochs=4)
    attempts = [list_snapshots(Path(t.log_dir) / "kernelviz") for t in (first, resumed)]
    paths = attempts[0] | attempts[1]
    save_report(_history(paths.values()), tmp_path / "report.html")
    [run] = _data((tmp_path / "report.html").read_text(encoding="utf-8"))["timeline"]["runs"]
    drifts = [each["drift"] for each in run["layers"][0]["snapshots"]]
    start, *later = (load_snapshot(path).weights["conv"].double() for path in paths.values())
    assert drifts[0] is None
    assert drifts[1:] == pytest.approx([((w - start).norm() / start.norm()).item() for w in later])
    assert max(attempts[0]) == min(
        attempts[1]
    )  # the resumed training has no drift of its own there


def test_only_the_layer_of_a_recorded_snapshot_is_read(tmp_path: Path) -> None:
    weights = torch.from_numpy(WEIGHTS[5])
    health = kernel_health(weights, "net.conv1", first=None, previous=None, groups=1)
    named = {"net.conv1": weights, "large": torch.ones(64, 64, 3, 3)}
    about = {
        "geometry": dict.fromkeys(named, plain_geometry((1, 1, 1, 1))),
        "health": {"net.conv1": health},
    }
    path = save_snapshot(Snapshot(5, 0, 7.0, named, **about), tmp_path)
    base = tmp_path / "step=0.pt"
    torch.save({"conv1.weight": torch.from_numpy(WEIGHTS[0])}, base)
    sizes: list[int] = []
    read = TensorBytes.read

    def counted(numbers: TensorBytes) -> torch.Tensor:
        found = read(numbers)
        sizes.append(found.numel())
        return found

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(TensorBytes, "read", counted)
        save_report(_history([base, Path(path)]), tmp_path / "report.html")
    assert max(sizes) == weights.numel()
    [run] = _data((tmp_path / "report.html").read_text(encoding="utf-8"))["timeline"]["runs"]
    last = run["layers"][0]["snapshots"][-1]
    assert (last["step"], last["time"]) == (5, 7.0)
    expected = Counter(verdict.name for verdict in health.verdicts)
    assert {name: n for name, n in last["verdicts"].items() if n} == dict(expected)


# In a browser.


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Tab]]:
    """Open a page from the disk; it must not raise errors or fetch anything."""
    complaints: list[str] = []
    pages = []

    def look(content: str, link: str = "") -> Tab:
        path = tmp_path / "page.html"
        path.write_text(content, encoding="utf-8")
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        pages.append(page)
        page.on("console", lambda message: _note_error(message, complaints))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: _note_fetch(request.url, path, complaints))
        page.goto(f"{path.as_uri()}{link}")
        tab = Tab(page, page.main_frame)
        tab.rest()
        return tab

    yield look
    for page in pages:
        page.close()
    assert complaints == []


def _note_error(message: Any, complaints: list[str]) -> None:
    if message.type == "error":
        complaints.append(message.text)


def _note_fetch(url: str, path: Path, complaints: list[str]) -> None:
    if url.partition("#")[0] != path.as_uri() and not url.startswith(("data:", "blob:")):
        complaints.append(f"asked {url}")


def _check_kernels(
    tab: Tab, weights: Any, run: str = "runs/a", filters: Sequence[int] = (0, 7)
) -> None:
    grid = tab.grid("kernels", run)
    assert grid.step == tab.step
    side = weights.shape[2] * grid.zoom
    for i in filters:
        own = torch.as_tensor(weights[i])
        assert_painted(unzoomed(grid.tile(i, side, side), grid.zoom), own, float(own.abs().max()))


@pytest.mark.browser
def test_the_slider_works_without_a_network(opened: Any) -> None:
    tab = opened(_page(notes=["A note of the author."]), "#zoom=8")
    assert tab.frame.title() == "conv1 of runs/a"
    assert tab.data("snapshots") == "5"
    for key, step in (("End", 100), ("Home", 0), ("ArrowRight", 1)):
        tab.page.keyboard.press(key)
        tab.wait("Number(body.step) === given", step)
        tab.rest()
        _check_kernels(tab, WEIGHTS[step])
        expected = channel_responses(PROBE.image, torch.from_numpy(WEIGHTS[step]))
        grid = tab.grid("responses", "runs/a")
        for i in (0, 7):
            found = grid.tile(i, 56, 56)
            assert_painted(found, expected[i], float(expected[i].abs().max()))
    assert [worker.url.split(":")[0] for worker in tab.page.workers] == ["blob"]
    tab.page.keyboard.press("Space")
    tab.wait("Number(body.step) > 1")
    tab.click_tile(7, run="runs/a")
    assert tab.role("filter-title").text_content() == "Filter 7"
    assert "A note of the author." in tab.role("notes").text_content()


@pytest.mark.browser
def test_a_link_restores_a_view_of_the_page(opened: Any) -> None:
    tab = opened(_page(), "#step=5&filter=3&scale=layer")
    assert tab.step == 5
    assert tab.role("filter-title").text_content() == "Filter 3"
    tab.go(20)
    tab.page.wait_for_function("() => location.hash.includes('step=20')")


@pytest.mark.browser
def test_hostile_names_are_shown_as_text(opened: Any) -> None:
    for name in (HOSTILE, "</script><!--<script>window.hacked=1</script>", "$title constructor"):
        weights = {0: WEIGHTS[0]}
        image = Probe(PROBE.image, name)
        page = report_page(_snapshots(weights, name), name, probe=image, name=name, notes=[name])
        tab = opened(page)
        tab.click_tile(0, run=name)
        said = tab.frame.evaluate("document.body.innerText")
        assert said.count(name) >= 2
        assert tab.frame.title() == f"{name} of {name}"
        assert name in tab.role("notes").text_content()
        assert tab.frame.evaluate("window.hacked === undefined")


@pytest.mark.browser
def test_the_content_security_policy_blocks_everything_else(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(_page(), encoding="utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    Tab(page, page.main_frame).rest()
    done = page.evaluate(
        """async () => {
          const done = [];
          const blocked = [];
          document.addEventListener("securitypolicyviolation", (event) =>
            blocked.push(event.effectiveDirective));
          await fetch("http://127.0.0.1:9/").then(() => done.push("fetched"), () => {});
          await new Promise((resolve) => setTimeout(() => {
            try { new Function("return 1")(); done.push("evaluated"); } catch {}
            resolve();
          }));
          document.body.append(Object.assign(document.createElement("script"), {
            textContent: "window.hacked = 1",
          }));
          if (window.hacked) done.push("ran a script");
          const image = new Image();
          image.src = "http://127.0.0.1:9/a.png";
          await new Promise((resolve) => (image.onload = image.onerror = resolve));
          await new Promise((resolve) => setTimeout(resolve));
          return [done, blocked];
        }"""
    )
    assert done[0] == []
    assert {"connect-src", "script-src-elem", "img-src"} <= set(done[1])
    page.close()


@pytest.mark.browser
def test_a_full_page_opens_and_loads_everything(opened: Any) -> None:
    weights = moving_weights(range(200), (64, 3, 7, 7), 1, pace=0.01)
    tab = opened(
        report_page(_snapshots(weights), "conv1", probe=load_probe(), name="run"), "#step=0"
    )
    assert (tab.data("loaded"), tab.step) == ("200", 0)
    _check_kernels(tab, weights[0], "run", (0, 63))
    tab.page.keyboard.press("End")
    tab.wait("Number(body.step) === 199")
    tab.drawn()
    _check_kernels(tab, weights[199], "run", (0, 63))

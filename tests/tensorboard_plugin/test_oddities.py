"""Runs with unusual names, damaged runs, and an empty folder in the Kernels tab."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tab_page import Site, Tab, assert_painted, frame_of, opening, serving, unzoomed
from tab_prepared import BASE, HOSTILE, PROBE, STEPS, moving_weights, picture
from tab_runs import ATTEMPT, GEOMETRY, RunWriter, raw_value, write_run

from kernelviz_callback.tensorboard_plugin.codec import pack_snapshot
from kernelviz_callback.tensorboard_plugin.header import tag_of, to_content

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def odd(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with runs whose names look like scripts, and one with damaged snapshots."""
    folder = tmp_path_factory.mktemp("odd")
    weights = moving_weights(STEPS, (4, 3, 3, 3), 1)
    verdicts = {step: {1: ["near-zero"]} for step in STEPS}
    write_run(folder / "logs" / HOSTILE, weights, layer=HOSTILE, probe=PROBE, verdicts=verdicts)
    fields = {"layer": "conv1", "epoch": 0, "wall_time": 1.0, "attempt": ATTEMPT}
    with RunWriter(folder / "logs" / "damaged") as run:
        for step in STEPS[:3]:
            run.snapshot(weights[step], step)
        for step, cut in ((10, 7), (20, None)):
            header, payload = pack_snapshot(weights[0], step=step, geometry=GEOMETRY, **fields)
            content = to_content(header) if cut else b"{ no header"
            run.value(raw_value(tag_of(header), content, payload[:cut]), step)
    with serving(browser, folder, lambda timeline: len(timeline["runs"]) == 2) as made:
        yield made


def test_names_are_shown_as_text(odd: Site) -> None:
    with opening(odd) as look:
        tab = look(whole=True, runs=[HOSTILE], layer=HOSTILE, filter=1)
        assert tab.role("runs").get_by_text(HOSTILE, exact=True).is_visible()
        layer = tab.frame.locator('select[data-role="layer"]')
        assert layer.input_value() == HOSTILE
        assert HOSTILE in tab.role("drawer").get_attribute("aria-label")
        tab.role("runs").get_by_label("damaged").check()
        tab.frame.get_by_text(f"This run has no layer {HOSTILE}.").wait_for()
        tab.page.mouse.move(*tab.tile_at("kernels", HOSTILE, 2))
        tab.role("tip").wait_for()
        assert tab.page.evaluate("window.hacked === undefined")
        assert tab.frame.evaluate("window.hacked === undefined")
        assert tab.frame.locator("script", has_text="hacked").count() == 0


def test_damaged_snapshots_are_skipped_and_reported(odd: Site) -> None:
    with opening(odd) as look:
        tab = look(runs=["damaged"], step=1)
        tab.role("notes").locator("summary").click()
        notes = tab.role("notes").locator("li").all_text_contents()
        assert any(re.search(r"Skipped k/conv1/weights/0+20-\d+: .*not JSON", one) for one in notes)
        assert tab.grid("kernels", "damaged").step == 1
        tab.page.keyboard.press("End")
        tab.frame.get_by_text(
            re.compile("Skipped k/conv1/weights/0+10-.*: .*holds 7 bytes")
        ).wait_for()
        tab.rest()
        assert tab.step == 2
        assert tab.data("snapshots") == "3"


def test_weights_as_stored_are_named(browser: Any, tmp_path: Path) -> None:
    with RunWriter(tmp_path / "logs" / "run") as run:
        run.snapshot(moving_weights((0,), (8, 3, 5, 5), 1)[0], 0, stored_only=True)
        run.snapshot(moving_weights((0,), (8, 3, 5, 5), 1)[0], 0, layer="usual")
    with (
        serving(browser, tmp_path, lambda timeline: timeline["runs"]) as made,
        opening(made) as look,
    ):
        said = "Weights as stored: the layer may multiply with other weights."
        tab = look()
        assert said in tab.role("about-layer").text_content()
        tab.select("layer", "usual")
        assert said not in tab.role("about-layer").text_content()


def test_a_partly_stored_layer_says_which_part_is_shown(browser: Any, tmp_path: Path) -> None:
    weights = moving_weights((0, 10), (32, 700, 7, 7), 1)
    write_run(tmp_path / "logs" / "run", weights, probe=picture(700, 16, 16))
    with (
        serving(browser, tmp_path, lambda timeline: timeline["runs"]) as made,
        opening(made) as look,
    ):
        tab = look(filter=1)
        said = re.compile("of the first [0-9]+ of 700 channels")
        notes = (
            ".pane.responses .pane-note",
            ".plate figure:first-child",
            ".plate figure + figure",
        )
        for note in notes:
            assert said.search(tab.frame.locator(note).text_content())
        assert "Stored with 8 bits." in tab.role("about-layer").text_content()


def test_replaced_snapshots_are_reported(browser: Any, tmp_path: Path) -> None:
    for attempt, steps in ((1000, STEPS), (2000, (30, 45, 60))):
        weights = moving_weights(steps, (4, 3, 3, 3), attempt)
        write_run(tmp_path / "logs" / "run", weights, attempt=attempt)
    with (
        serving(browser, tmp_path, lambda timeline: timeline["runs"]) as made,
        opening(made) as look,
    ):
        tab = look()
        tab.wait("body.snapshots === '9'")
        assert tab.step == 60
        said = "4 snapshots of an earlier attempt are left out"
        assert said in tab.role("notes").text_content()


def test_an_empty_folder_shows_instructions_until_a_run_appears(
    browser: Any, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    soon = "--reload_interval=1"
    with serving(browser, tmp_path, lambda _: True, soon) as made, opening(made):
        page = made.page()
        page.goto(f"{made.board.url}/#kernels")
        tab = Tab(page, frame_of(page))
        tab.wait("body.state === 'empty'")
        said = tab.role("state").inner_text()
        assert "No run has kernels yet" in said
        assert "Trainer(callbacks=[KernelVizCallback()])" in said
        assert "tensorboard --logdir" in said
        assert not tab.role("board").is_visible()
        with RunWriter(logs / "plain") as run:
            run.scalar("loss", 1.0, 0)
        write_run(logs / "run", BASE, probe=PROBE)
        tab.rest()
        assert not tab.role("state").is_visible()
        assert tab.grid("kernels", "run").step == STEPS[-1]


def test_a_run_that_would_freeze_the_page_is_left_out_with_the_reason(
    browser: Any, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    fields = {"layer": "conv1", "step": 1, "epoch": 0, "wall_time": 9e9, "attempt": ATTEMPT}
    header, payload = pack_snapshot(BASE[STEPS[0]], geometry=GEOMETRY, **fields)
    wide = {**header, "shape": [200_000, 1, 1, 1], "filters": 200_000, "channels": 1}
    with RunWriter(logs / "a wide one") as run:
        run.value(raw_value(tag_of(header), to_content(wide), payload), 1)
    reason = re.compile(r"Run a wide one is left out: .*it has 200,000 filters; at most 8,192")
    soon = "--reload_interval=1"
    with serving(browser, tmp_path, lambda timeline: timeline["runs"], soon) as made, opening(made):
        page = made.page()
        page.goto(f"{made.board.url}/#kernels")
        tab = Tab(page, frame_of(page))
        tab.wait("body.state === 'empty'")
        assert reason.search(tab.role("state").inner_text())
        write_run(logs / "run", BASE, probe=PROBE)
        tab.rest()
        assert tab.grid("kernels", "run").step == STEPS[-1]
        assert tab.role("runs").get_by_role("checkbox").count() == 1
        assert reason.search(tab.role("notes").text_content())


def test_two_trainings_in_one_folder_are_two_runs(browser: Any, tmp_path: Path) -> None:
    weights = {
        name: moving_weights((0, 30, 60), (4, 3, 3, 3), seed) for seed, name in enumerate("xy")
    }
    for attempt, name in enumerate("xy", start=1000):
        write_run(tmp_path / "logs" / "run", weights[name], attempt=attempt, training=name)
    with (
        serving(browser, tmp_path, lambda timeline: len(timeline["runs"]) == 2) as made,
        opening(made) as look,
    ):
        tab = look(runs=["run", "run (2)"])
        assert tab.role("runs").get_by_role("checkbox", checked=True).count() == 2
        for run, name in (("run", "x"), ("run (2)", "y")):
            grid = tab.grid("kernels", run)
            assert grid.step == 60
            for i, own in enumerate(torch.from_numpy(weights[name][60])):
                tile = unzoomed(grid.tile(i, 3 * grid.zoom, 3 * grid.zoom), grid.zoom)
                assert_painted(tile, own, float(own.abs().max()))

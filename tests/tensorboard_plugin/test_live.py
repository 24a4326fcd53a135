"""The Kernels tab during a real training: new snapshots appear, and a chosen step stays."""

import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import TinyNet
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tab_page import SECONDS, Tab, assert_painted, frame_of, opening, serving, unzoomed

from kernelviz_callback import KernelVizCallback, list_snapshots, load_snapshot
from kernelviz_callback.filters.responses import channel_responses
from kernelviz_callback.snapshots.probe_file import load_saved_probe

pytestmark = pytest.mark.browser


class Gate(Callback):
    """A callback that blocks each training step until the test allows it."""

    def __init__(self) -> None:
        self._allowed = threading.Semaphore(0)

    def allow(self, steps: int) -> None:
        for _ in range(steps):
            self._allowed.release()

    def on_train_batch_start(self, *_: Any) -> None:
        assert self._allowed.acquire(timeout=SECONDS / 1000)


def test_snapshots_appear_during_a_training(browser: Any, tmp_path: Path) -> None:
    gate = Gate()
    logger = TensorBoardLogger(tmp_path / "logs", name="run", version="0")
    trainer = Trainer(
        accelerator="cpu",
        logger=logger,
        max_epochs=3,
        callbacks=[gate, KernelVizCallback(every_n_train_steps=2)],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    training = threading.Thread(target=trainer.fit, args=[TinyNet()])
    training.start()
    soon = "--reload_interval=1"
    try:
        with serving(browser, tmp_path, lambda _: True, soon) as made, opening(made):
            page = made.page()
            page.goto(f"{made.board.url}/#kernels")
            tab = Tab(page, frame_of(page))
            tab.wait("body.state === 'ready' && Number(body.step) === 0")
            tab.frame.evaluate("() => { window.isTheSamePage = true; }")
            gate.allow(2)
            _await_last(tab, 2, count=3)  # steps 0, 1, 2: the slider follows the last one
            tab.role("slider").press("Home")
            tab.wait("Number(body.step) === 0")
            gate.allow(4)
            _await_last(tab, 0, count=5)  # steps 4, 6 arrive: a slider at another step stays there
            assert tab.grid("kernels", "run/0").step == 0
            assert tab.role("of").text_content().startswith("of 6")
            tab.role("slider").press("End")
            tab.wait("Number(body.step) === 6")
            gate.allow(6)
            training.join()
            _await_last(tab, 12, count=8)
            tab.rest()
            assert tab.frame.evaluate("window.isTheSamePage")
            _check_pictures(tab, Path(logger.log_dir) / "kernelviz")
    finally:
        gate.allow(100)
        training.join()


def _await_last(tab: Tab, step: int, count: int) -> None:
    tab.wait("body.snapshots === given", str(count))
    tab.drawn()
    tab.wait("Number(body.step) === given", step)


def _check_pictures(tab: Tab, folder: Path) -> None:
    """Compare the page with the snapshots that the training has written."""
    snapshots = list_snapshots(folder)
    assert list(snapshots) == [0, 1, 2, 4, 6, 8, 10, 12]
    for step in (0, 12):
        tab.go(step)
        weights = load_snapshot(snapshots[step]).weights["conv"]
        grid = tab.grid("kernels", "run/0")
        side = 5 * grid.zoom
        for i in range(8):
            found = unzoomed(grid.tile(i, side, side), grid.zoom)
            assert_painted(found, weights[i], float(weights[i].abs().max()))
    tab.click_tile(3, run="run/0")
    probe = load_saved_probe(folder)
    expected = channel_responses(probe.for_channels(3), weights[3:4])[0]
    found = tab.pixels('canvas[data-kind="response"]')
    assert_painted(found, expected, float(expected.abs().max()))

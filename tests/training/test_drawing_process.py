"""The process that examines and draws: the same results as in a thread, whatever happens to it."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from conftest import STEPS, TinyNet, assert_seen
from forked import run_python
from identity import assert_same, fingerprint
from torch import nn
from torch.utils.data import DataLoader

from kernelviz_callback import KernelVizCallback, KernelWatcher, load_probe, load_snapshot
from kernelviz_callback.model.convolutions import geometry_of
from kernelviz_callback.snapshots.attempt import Attempt
from kernelviz_callback.snapshots.format import save_snapshot
from kernelviz_callback.snapshots.names import snapshot_name
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.training import drawing_process
from kernelviz_callback.training.drawing_process import DrawingProcess
from kernelviz_callback.training.renderer import Renderer
from kernelviz_callback.training.snapshot_files import Recording
from kernelviz_callback.training.snapshot_work import SnapshotWork

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(os.name != "posix", reason="elsewhere a thread draws"),
]

PROBE = load_probe(size=64)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the process at the second snapshot."""
    monkeypatch.setattr(drawing_process, "START_COST", 0.0)
    monkeypatch.setattr(drawing_process, "START_COST_ON_MANY", 0.0)


class Run:
    """A run folder, and what is drawn of its snapshots."""

    def __init__(self, folder: Path, scale: str = "filter", device: str = "cpu") -> None:
        self.folder = folder
        self.device = device
        self.scales: dict[str, float] = {}
        renderer = Renderer(PROBE, response="channels", scale=scale, run_scales=self.scales)
        self.process = DrawingProcess(SnapshotWork(PROBE, renderer, health=True))
        self.recording = Recording(folder, Attempt("a", 1), 0)

    def take(self, step: int, between: Callable[[], None] = lambda: None) -> tuple[Any, ...]:
        """Record a snapshot, and return everything that is made of it."""
        snapshot = snapshot_of(step, self.device)
        save_snapshot(snapshot, self.folder)
        examined = self.process.examine(snapshot, self.folder)
        between()
        drawn = self.process.draw(self.recording)
        file = load_snapshot(self.folder / snapshot_name(step))
        health = {name: str(found) for name, found in file.health.items()}
        images = {tag: image.content for tag, image in drawn.images.items()}
        found = examined.failures.found | drawn.failures.found
        numbers = {k: str(v) for k, v in examined.numbers.items()}  # NaN is not equal to itself
        return numbers, examined.news, images, drawn.events, found, health, dict(self.scales)

    def move(self, first: int = 0) -> int:
        """Take snapshots until another process does the work; return the next step."""
        for step in range(first, 1000):
            self.take(step)
            if self.process.is_apart:
                return step + 1
            time.sleep(0.1)
        raise AssertionError("the process did not start")


def snapshot_of(step: int, device: str) -> Snapshot:
    conv = nn.Conv2d(3, 8, 5)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(8, 3, 5, 5, generator=generator)
    weights = weights * (1 + torch.rand(8, 1, 1, 1, generator=generator) * step)
    weights[step % 8] = 0
    geometry = geometry_of(conv)
    digest = PROBE.digest
    return Snapshot(step, 0, 1.0, {"c": weights.to(device)}, {"c": geometry}, PROBE.name, digest)


def children() -> list[psutil.Process]:
    def is_ours(child: psutil.Process) -> bool:
        try:
            return any("drawing_process" in word for word in child.cmdline())
        except psutil.Error:
            return False

    return [child for child in psutil.Process().children() if is_ours(child)]


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Make runs; no process may be left after them."""
    made: list[Run] = []

    def make(*options: str) -> Run:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Run(folder, *options))
        return made[-1]

    yield make
    for run in made:
        run.process.close()
    assert children() == []


@pytest.fixture
def in_thread(runs: Callable[..., Run]) -> Callable[..., list[tuple[Any, ...]]]:
    """The results of the same snapshots, computed in this process."""

    def results(count: int, *options: str) -> list[tuple[Any, ...]]:
        run = runs(*options)
        run.process.close()
        return [run.take(step) for step in range(count)]

    return results


ON_CUDA = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("scale", [pytest.param("filter", marks=pytest.mark.long), "run"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=ON_CUDA)])
def test_the_results_are_those_of_a_thread(
    at_once: None, runs, in_thread, scale: str, device: str
) -> None:
    run = runs(scale, device)
    moved = run.move()
    found = [run.take(step) for step in range(moved, moved + 3)]
    assert run.process.is_apart
    films = run.process.draw_films(run.folder)
    summary = run.process.summary()
    run.process.close()
    expected = in_thread(moved + 3, scale, device)
    assert found == expected[moved:]
    here = SnapshotWork(
        PROBE, Renderer(PROBE, response="sum", scale="layer", run_scales={}), health=True
    )
    assert films == here.draw_films(run.folder)
    assert summary.startswith("c: 8 filters, 1 near-zero")


@pytest.mark.parametrize("when", [pytest.param("before", marks=pytest.mark.long), "between"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_nothing_is_lost_with_the_process(
    at_once: None, runs, in_thread, monkeypatch, caplog, when: str, how: signal.Signals
) -> None:
    monkeypatch.setattr(drawing_process, "_PATIENCE", 0.5)
    monkeypatch.setattr(drawing_process, "_PATIENCE_WITH_DRAWING", 0.5)
    run = runs()
    moved = run.move()
    [child] = children()

    def end() -> None:
        child.send_signal(how)

    if when == "before":
        end()
    with caplog.at_level(logging.INFO, "kernelviz_callback"):
        lost = run.take(moved, between=end if when == "between" else lambda: None)
    assert not run.process.is_apart
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    found = [lost, run.take(moved + 1)]
    assert found == in_thread(moved + 2)[moved:]
    lines = [r.getMessage() for r in caplog.records if "was lost" in r.getMessage()]
    assert len(lines) == 1
    assert "a thread of the training draws them from now on" in lines[0]


def test_what_the_work_raises_is_raised_by_the_thread(at_once: None, runs, in_thread) -> None:
    run = runs()
    moved = run.move()
    with pytest.raises(RuntimeError, match="expected that a snapshot is examined before"):
        run.process.draw(run.recording)
    assert not run.process.is_apart
    assert run.take(moved) == in_thread(moved + 1)[moved]


def test_the_films_and_the_summary_survive_the_process(
    at_once: None, runs, in_thread, caplog
) -> None:
    run = runs()
    moved = run.move()
    run.take(moved)
    children()[0].kill()
    with caplog.at_level(logging.INFO, "kernelviz_callback"):
        films = run.process.draw_films(run.folder)
    summary = run.process.summary()
    assert set(films) == {"film/c", "evolution/c"}
    assert "1 near-zero" in summary
    assert [r.getMessage() for r in caplog.records if "was lost" in r.getMessage()]
    assert run.take(moved + 1) == in_thread(moved + 2)[moved + 1]


def test_the_message_names_what_ended_the_process(at_once: None, runs, monkeypatch, caplog) -> None:
    monkeypatch.setattr(drawing_process, "_CODE", "raise SystemExit('no such module')")
    run = runs()
    with caplog.at_level(logging.INFO, "kernelviz_callback"):
        for step in range(3):
            run.take(step)
            time.sleep(0.3)
    [line] = [r.getMessage() for r in caplog.records if "was lost" in r.getMessage()]
    assert "was lost (no such module; exit code 1)" in line


def test_workers_that_are_forked_do_not_hold_the_connection(at_once: None, runs) -> None:
    run = runs()
    run.move()
    [child] = children()
    workers = iter(DataLoader(range(100), num_workers=2, multiprocessing_context="fork"))
    next(workers)
    began = time.monotonic()
    run.process.close()
    assert time.monotonic() - began < 1.5
    assert not child.is_running()


@pytest.mark.parametrize("error", [OSError("not permitted"), AttributeError()])
def test_the_process_ends_by_itself_where_it_cannot_be_polled(
    at_once: None, runs, monkeypatch, error: Exception
) -> None:
    def refused(pid: int) -> int:
        raise error

    monkeypatch.setattr(os, "pidfd_open", refused, raising=False)
    run = runs()
    run.move()
    killed: list[Any] = []
    monkeypatch.setattr(subprocess.Popen, "kill", killed.append)
    run.process.close()
    assert killed == []
    assert children() == []


def test_without_an_interpreter_a_thread_draws(at_once: None, runs, monkeypatch, caplog) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    run = runs()
    with caplog.at_level(logging.INFO, "kernelviz_callback"):
        results = [run.take(step) for step in range(3)]
    assert all(len(images) == 2 for _, _, images, *_ in results)
    assert sum("no process for drawing could be started" in r.message for r in caplog.records) == 1


def test_a_short_training_starts_no_process(runs, monkeypatch) -> None:
    monkeypatch.setattr(drawing_process, "START_COST", 100.0)
    monkeypatch.setattr(drawing_process, "START_COST_ON_MANY", 100.0)
    run = runs()
    for step in range(4):
        run.take(step)
    assert children() == []


def test_the_process_ignores_ctrl_c_for_the_training(at_once: None, runs) -> None:
    run = runs()
    run.move()
    [child] = children()
    assert os.getpgid(child.pid) != os.getpgid(0)


@pytest.mark.parametrize("trainings", [6, pytest.param(50, marks=pytest.mark.long)])
def test_no_process_is_left_after_many_trainings(at_once: None, runs, trainings: int) -> None:
    for _ in range(trainings):
        run = runs()
        run.take(0)
        run.take(1)
        assert len(children()) == 1
        run.process.close()
        assert children() == []


KILLED = """
import os, signal, sys, time
import psutil
sys.path.append("training")
from test_drawing_process import Run, children
from kernelviz_callback.training import drawing_process
from pathlib import Path
from torch.utils.data import DataLoader

drawing_process.START_COST = drawing_process.START_COST_ON_MANY = 0.0
run = Run(Path(sys.argv[1]))
run.move()
workers = iter(DataLoader(range(100), num_workers=2))
next(workers)
print(children()[0].pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_process_ends_with_a_killed_training_that_has_workers(tmp_path: Path) -> None:
    done = run_python("-c", KILLED, str(tmp_path), cwd=Path(__file__).parents[1], timeout=100)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid = int(done.stdout)
    wait_for(lambda: not psutil.pid_exists(pid), 20)


@pytest.mark.parametrize("delay", [0.0, 0.05])
def test_a_training_is_bit_identical_and_complete(at_once: None, fit, delay: float) -> None:
    class Patient(TinyNet):
        def on_train_batch_end(self, *_: Any) -> None:
            time.sleep(delay)

    prints = []
    for callbacks in ([], [KernelVizCallback(every_n_train_steps=1)]):
        torch.manual_seed(11)
        model = Patient()
        trainer = fit(*callbacks, model=model)
        prints.append(fingerprint(model))
    assert_same(*prints)
    assert_seen(trainer, list(range(STEPS + 1)))
    assert children() == []


def test_a_watcher_whose_process_is_killed_logs_every_snapshot(at_once: None, tmp_path) -> None:
    conv = nn.Conv2d(3, 8, 5)
    with KernelWatcher(conv, tmp_path, probe=torch.rand(3, 32, 32)) as watcher:
        for step in range(60):
            with torch.no_grad():
                conv.weight.mul_(0.9)
            watcher.snapshot(step)
            time.sleep(0.1)
            if step == 50:
                for child in children():
                    child.kill()
    trainer = type("Trainer", (), {"log_dir": tmp_path})
    assert_seen(trainer, list(range(60)), layer="Conv2d")


def test_the_process_finds_the_package_after_a_change_of_the_directory(
    at_once: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package was imported from the working directory, which the training has left."""
    home = Path(drawing_process.__file__).parents[2]
    found = [path for path in sys.path if Path(path) != home and path != str(home / "tests")]
    monkeypatch.setattr(sys, "path", ["", *found])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    run = Run(tmp_path)
    run.move()
    [child] = children()
    assert child.cmdline()[-1] == str(home), "an editable installation would be found anyway"
    run.process.close()

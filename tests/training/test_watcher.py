"""`KernelWatcher`: training without a Trainer, in plain loops and with Fabric."""

import copy
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import logged_images, steps_on_disk, warned
from forked import run_python
from lightning.pytorch.loggers import CSVLogger
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from kernelviz_callback import KernelWatcher, list_snapshots, load_snapshot
from kernelviz_callback.snapshots.probe_file import load_saved_probe
from kernelviz_callback.tensorboard_plugin.codec import PLUGIN_NAME
from kernelviz_callback.training import watcher as watcher_module


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 8, 5), nn.BatchNorm2d(8), nn.Dropout(0.2), nn.Flatten())


def train(model: nn.Module, watcher: KernelWatcher | None, steps: int = 4) -> None:
    torch.manual_seed(2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(steps + 1):
        if watcher is not None:
            watcher.snapshot(step, epoch=step // 2)
        loss = model(torch.rand(4, 3, 9, 9)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_a_plain_loop_is_logged_to_tensorboard_and_written_to_disk(tmp_path: Path) -> None:
    model = network()
    with KernelWatcher(model, tmp_path) as watcher:
        train(model, watcher)
    assert steps_on_disk(tmp_path) == [0, 1, 2, 3, 4]
    images = logged_images(tmp_path)
    assert list(images["kernels/0"]) == list(images["responses/0"]) == [0, 1, 2, 3, 4]
    (events,) = tmp_path.glob("events.*")
    assert PLUGIN_NAME.encode() in events.read_bytes(), "the Kernels tab has the snapshots too"


@pytest.mark.parametrize("variable", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_a_rank_of_the_environment_alone_changes_nothing(
    tmp_path: Path, monkeypatch, caplog, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    model = network()
    with KernelWatcher(model, tmp_path) as watcher:
        train(model, watcher, steps=1)
    assert steps_on_disk(tmp_path) == [0, 1]
    assert list(logged_images(tmp_path)["kernels/0"]) == [0, 1]
    assert "kernelviz: watching 0" in caplog.text
    assert "kernelviz: 2 snapshots written to" in caplog.text


@pytest.mark.processes
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_process_of_a_group_that_does_not_record_says_so(tmp_path: Path) -> None:
    """The watchers are made before the process group."""
    code = """
import os, sys
from pathlib import Path
from torch import distributed, nn
from kernelviz_callback import KernelWatcher
folder, child = Path(sys.argv[1]), os.fork()
rank = 0 if child else 1
watcher = KernelWatcher(nn.Conv2d(3, 8, 5), folder / str(rank))
store = f"file://{folder / 'store'}"
distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
for step in (0, 1):
    watcher.snapshot(step)
watcher.close()
distributed.destroy_process_group()
if child:
    os.waitpid(child, 0)
"""
    done = run_python("-c", code, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert steps_on_disk(tmp_path / "0") == [0, 1]
    assert not (tmp_path / "1").exists()
    assert done.stderr.count("kernelviz: process 1 of 2 records no snapshots; process 0") == 1
    assert done.stderr.count("kernelviz: 2 snapshots written to") == 1


def test_a_snapshot_holds_the_weights_at_its_step(tmp_path: Path) -> None:
    model = network()
    expected = {}
    with KernelWatcher(model, tmp_path, loggers=[]) as watcher:
        for step in range(3):
            watcher.snapshot(step)
            expected[step] = model[0].weight.detach().clone()
            with torch.no_grad():
                model[0].weight.mul_(-1.5)
    for step, path in list_snapshots(tmp_path / "kernelviz").items():
        assert torch.equal(load_snapshot(path).weights["0"], expected[step])


def test_training_is_bit_identical(tmp_path: Path) -> None:
    watched, alone = network(), network()
    with KernelWatcher(watched, tmp_path) as watcher:
        train(watched, watcher)
    train(alone, None)
    for ours, theirs in zip(
        watched.state_dict().values(), alone.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_the_writer_of_the_user_is_used_and_not_closed(tmp_path: Path) -> None:
    model = network()
    writer = SummaryWriter(tmp_path)
    with KernelWatcher(model, tmp_path, loggers=[writer]) as watcher:
        watcher.snapshot(0)
    writer.add_scalar("loss", 1.0, 0)
    writer.close()
    assert len(list(tmp_path.glob("events.*"))) == 1
    assert list(logged_images(tmp_path)["kernels/0"]) == [0]


def test_without_loggers_the_pictures_are_files(tmp_path: Path) -> None:
    with KernelWatcher(network(), tmp_path, loggers=[]) as watcher:
        watcher.snapshot(3)
    assert (tmp_path / "kernelviz" / "kernels-0-step-00000003.png").exists()
    assert not list(tmp_path.glob("events.*"))


def test_the_same_step_again_changes_nothing(tmp_path: Path) -> None:
    model = network()
    with KernelWatcher(model, tmp_path) as watcher:
        watcher.snapshot(1)
        watcher.snapshot(1)
    assert list(logged_images(tmp_path)["kernels/0"]) == [1]


class WithSpareLayer(nn.Module):
    """A network with a lazy convolution that its forward method does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.spare = nn.LazyConv2d(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


@pytest.mark.parametrize("is_early", [True, False])
def test_a_lazy_layer_without_input_is_not_waited_for(tmp_path: Path, is_early: bool) -> None:
    model = WithSpareLayer()
    with KernelWatcher(model, tmp_path, loggers=[]) as watcher:
        for step in range(3):
            if is_early:
                watcher.snapshot(step)
            model(torch.rand(1, 3, 8, 8))
            if not is_early:
                watcher.snapshot(step)
    assert steps_on_disk(tmp_path) == [1, 2]
    assert list(load_snapshot(list_snapshots(tmp_path / "kernelviz")[1]).weights) == ["conv"]


@pytest.mark.loses_something
def test_a_loop_that_records_nothing_says_why(tmp_path: Path, recwarn: Any) -> None:
    with KernelWatcher(WithSpareLayer(), tmp_path, loggers=[]) as watcher:
        watcher.snapshot(0)
    [said] = warned(recwarn)
    assert "a lazy convolution got no input, so it has no weights" in said


def test_a_resumed_loop_writes_to_the_same_folder(tmp_path: Path) -> None:
    model = network()
    with KernelWatcher(model, tmp_path, scale="run") as watcher:
        for step in (0, 1, 2):
            watcher.snapshot(step)
        saved = copy.deepcopy(watcher.state_dict())
    torch.save(saved, tmp_path / "state.pt")
    with KernelWatcher(model, tmp_path, scale="run") as watcher:
        watcher.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        watcher.snapshot(2)
        watcher.snapshot(3)
        with pytest.raises(RuntimeError, match="before the first snapshot"):
            watcher.load_state_dict(saved)
    assert steps_on_disk(tmp_path) == [0, 1, 2, 3]
    assert not (tmp_path / "kernelviz-2").exists()


def test_another_loop_writes_to_a_new_folder(tmp_path: Path) -> None:
    for _ in range(2):
        with KernelWatcher(network(), tmp_path) as watcher:
            watcher.snapshot(0)
    assert steps_on_disk(tmp_path) == [0]
    assert list(list_snapshots(tmp_path / "kernelviz-2")) == [0]


def test_a_snapshot_after_close_is_written_to_the_same_folder(tmp_path: Path) -> None:
    watcher = KernelWatcher(network(), tmp_path)
    for step in (0, 1):
        watcher.snapshot(step)
        watcher.close()
    assert steps_on_disk(tmp_path) == [0, 1]
    assert list(logged_images(tmp_path)["kernels/0"]) == [0, 1]


def test_close_ends_all_threads(tmp_path: Path) -> None:
    before = threading.active_count()
    with KernelWatcher(network(), tmp_path) as watcher:
        watcher.snapshot(0)
    assert threading.active_count() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_close_in_a_forked_child_leaves_everything_to_the_parent(tmp_path: Path) -> None:
    code = """
import os, sys
from torch import nn
from kernelviz_callback import KernelWatcher
watcher = KernelWatcher(nn.Conv2d(3, 4, 3), sys.argv[1])
watcher.snapshot(0)
child = os.fork()
if child == 0:
    watcher.close()
    print("closed", flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
watcher.snapshot(1)
watcher.close()
"""
    done = run_python("-c", code, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["closed"]
    assert "could not" not in done.stderr
    assert done.stderr.count("snapshots written") == 1
    assert steps_on_disk(tmp_path) == [0, 1]
    assert list(logged_images(tmp_path)["kernels/Conv2d"]) == [0, 1]


@pytest.mark.loses_something
def test_an_event_file_that_never_answers_does_not_stop_the_program(
    tmp_path: Path, monkeypatch, recwarn: Any
) -> None:
    answer, close = threading.Event(), EventFileWriter.close

    def close_late(writer: EventFileWriter) -> None:
        answer.wait(30)
        close(writer)

    monkeypatch.setattr(EventFileWriter, "close", close_late)
    monkeypatch.setattr(watcher_module, "_CLOSE_PATIENCE", 0.2)
    start = time.monotonic()
    with KernelWatcher(network(), tmp_path) as watcher:
        watcher.snapshot(0)
    assert time.monotonic() - start < 20
    [said] = warned(recwarn)
    assert "could not close the event file: TimeoutError: it was not written within 0 s" in said
    answer.set()
    for thread in threading.enumerate():
        if thread.name == "kernelviz-events":
            thread.join()
    assert list(logged_images(tmp_path)["kernels/0"]) == [0]


@pytest.mark.loses_something
@pytest.mark.parametrize("loggers", [None, []])
def test_a_folder_that_cannot_be_written_gives_a_warning(
    tmp_path: Path, recwarn: Any, loggers: list[Any] | None
) -> None:
    (tmp_path / "file").write_text("in the way")
    with KernelWatcher(network(), tmp_path / "file", loggers=loggers) as watcher:
        watcher.snapshot(0)
    assert "Training goes on" in warned(recwarn)[0]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layers": "stem"}, ValueError, "Convolutions of this model"),
        ({"layers": 3}, TypeError, "layers must be None"),
        ({"scale": "loud"}, ValueError, "scale must be one of"),
        ({"probe_size": 0}, ValueError, "probe_size must be"),
        ({"probe": torch.rand(3, 4, 4)}, ValueError, "layer '0'"),
        ({"probe": "nowhere.png"}, FileNotFoundError, "nowhere.png"),
    ],
)
def test_a_bad_argument_is_an_error_before_anything_is_written(
    tmp_path, options, error, message
) -> None:
    with pytest.raises(error, match=message):
        KernelWatcher(network(), tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_a_probe_from_a_batch_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a Trainer, whose batches the callback sees"):
        KernelWatcher(nn.Conv3d(3, 8, 3), tmp_path, probe="train_batch")


@pytest.mark.parametrize(
    ("step", "error"), [(None, TypeError), ("3", TypeError), (1.5, TypeError), (-1, ValueError)]
)
def test_a_step_must_be_a_whole_number(tmp_path: Path, step: Any, error: type[Exception]) -> None:
    with KernelWatcher(network(), tmp_path, loggers=[]) as watcher, pytest.raises(error):
        watcher.snapshot(step)
    assert steps_on_disk(tmp_path) == []


def test_a_logger_without_images_gets_the_numbers(tmp_path: Path) -> None:
    logger, model = CSVLogger(tmp_path, name="csv"), network()
    with KernelWatcher(model, tmp_path, loggers=[logger]) as watcher:
        train(model, watcher)
    logger.save()
    lines = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    assert "kernelviz/0/drift" in lines[0]
    assert len(lines) == 1 + 5


def test_a_model_in_data_parallel_has_feature_maps(tmp_path: Path, recwarn: Any) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU(), nn.Conv2d(8, 8, 3))
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(net)
        with KernelWatcher(
            wrapped, tmp_path, layers="*", probe=torch.rand(3, 40, 40), loggers=[]
        ) as watcher:
            watcher.snapshot(0)
    finally:
        torch.distributed.destroy_process_group()
    assert warned(recwarn) == []
    assert (tmp_path / "kernelviz" / "responses-2-step-00000000.jpg").exists()


def test_a_model_of_fabric_is_watched(tmp_path: Path) -> None:
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapped, optimizer = fabric.setup(model, optimizer)
    with KernelWatcher(wrapped, tmp_path) as watcher:
        for step in range(3):
            watcher.snapshot(step)
            optimizer.zero_grad()
            fabric.backward(wrapped(torch.rand(2, 3, 9, 9)).square().mean())
            optimizer.step()
    assert list(logged_images(tmp_path)["kernels/0"]) == [0, 1, 2]


def test_the_watcher_works_without_lightning(tmp_path: Path) -> None:
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("lightning", "pytorch_lightning", "lightning_fabric"):
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Refuse())
from torch import nn
from kernelviz_callback import KernelWatcher
with KernelWatcher(nn.Conv2d(3, 4, 5), sys.argv[1]) as watcher:
    watcher.snapshot(0)
try:
    from kernelviz_callback import KernelVizCallback
except ModuleNotFoundError as error:
    print(error)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "kernelviz: watching" in done.stderr
    assert "pip install lightning" in done.stdout
    assert steps_on_disk(tmp_path) == [0]


@pytest.mark.parametrize(
    ("layer", "side"),
    [
        (lambda: nn.Conv2d(1, 8, (1, 256)), 512),
        (lambda: nn.Conv2d(3, 4, 3, dilation=150), 602),
        (lambda: nn.Conv2d(3, 4, 7), 224),
    ],
)
def test_the_chart_fits_every_layer(layer: Any, side: int, tmp_path: Path) -> None:
    model = nn.Sequential(layer())
    with KernelWatcher(model, tmp_path) as watcher:
        watcher.snapshot(0)
        watcher.snapshot(1)
    images = logged_images(tmp_path)
    assert list(images["responses/0"]) == list(images["kernels/0"]) == [0, 1]
    saved = load_saved_probe(tmp_path / "kernelviz")
    assert saved is not None
    assert saved.size == (side, side)
    snapshot = load_snapshot(list_snapshots(tmp_path / "kernelviz")[1])
    assert snapshot.probe_digest == saved.digest
    header = next(iter(images["probe"].values()))
    assert header.shape[:2] == (side, side)

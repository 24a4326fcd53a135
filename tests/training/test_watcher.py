"""`KernelWatcher`: training without a Trainer, in plain loops."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import logged_images, steps_on_disk
from forked import run_python
from lightning.pytorch.loggers import CSVLogger
from plain_loop import network, train
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from kernelviz_callback import KernelWatcher, list_snapshots, load_snapshot
from kernelviz_callback.tensorboard_plugin.codec import PLUGIN_NAME


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

"""A training writes every snapshot for the Kernels tab into the event file of its logger."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from conftest import DEFAULT_STEPS, STEPS, TinyNet
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch import nn

from kernelviz_callback import KernelVizCallback, Snapshot, list_snapshots, load_snapshot
from kernelviz_callback.checkpoints.checkpoint import plain_geometry
from kernelviz_callback.health.verdict_names import VERDICT_NAMES
from kernelviz_callback.snapshots.event import pack_layer
from kernelviz_callback.snapshots.probe_file import load_saved_probe
from kernelviz_callback.tensorboard_plugin.codec import unpack_probe, unpack_snapshot
from kernelviz_callback.tensorboard_plugin.header import parse_header
from kernelviz_callback.tensorboard_plugin.timeline import RunTimeline
from kernelviz_callback.training import run_folder
from kernelviz_callback.training.run_lock import RunLock, lock_run_folder

HALF = 2.0**-11  # the largest error of float16, relative to the largest weight of its filter


class Found(NamedTuple):
    header: Any
    payload: bytes
    step: int
    size: int


def events_of(log_dir: str | Path) -> Iterator[Found]:
    for path in sorted(Path(log_dir).glob("events*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "kernels":
                    header = parse_header(value.tag, value.metadata.plugin_data.content)
                    [payload] = value.tensor.string_val
                    yield Found(header, payload, event.step, event.ByteSize())


def snapshots_of(log_dir: str | Path) -> list[Found]:
    return [found for found in events_of(log_dir) if found.header["kind"] == "snapshot"]


def shown_of(log_dir: str | Path) -> list[RunTimeline]:
    return RunTimeline.of_trainings([found.header for found in events_of(log_dir)], [])


def test_every_snapshot_of_a_training_is_logged_with_its_verdicts(fit) -> None:
    dead = nn.Conv2d(3, 8, 5)
    nn.init.zeros_(dead.weight[3])
    dead.weight.register_hook(lambda g: g * (torch.arange(8) != 3)[:, None, None, None])
    trainer = fit(KernelVizCallback(), model=TinyNet(dead))
    snapshots = list_snapshots(Path(trainer.log_dir) / "kernelviz")
    found = snapshots_of(trainer.log_dir)
    assert [each.step for each in found] == list(snapshots) == DEFAULT_STEPS
    for each, path in zip(found, snapshots.values(), strict=True):
        exact = load_snapshot(path)
        stored = unpack_snapshot(each.header, each.payload)
        weight = exact.weights["conv"].numpy()
        assert np.array_equal(stored.scales, np.abs(weight).max((1, 2, 3)))
        allowed = HALF * stored.scales[:, None, None, None]
        assert (np.abs(stored.weights() - weight) <= allowed).all()
        assert (each.header["step"], each.header["epoch"]) == (exact.step, exact.epoch)
        assert each.header["wall_time"] == exact.wall_time
        assert each.header["geometry"]["stride"] == [1, 1]
        assert each.header["probe"] == exact.probe_digest
        flagged = {name: exact.health["conv"].flagged(name) for name in VERDICT_NAMES}
        bits = [np.flatnonzero(stored.verdict_bits >> b & 1).tolist() for b in range(7)]
        assert dict(zip(VERDICT_NAMES, bits, strict=True)) == flagged
        assert 3 in flagged["near-zero"]


class OfRows(TinyNet):
    """A network that reads the mean of the rows of an image as a signal."""

    def __init__(self) -> None:
        super().__init__(nn.Conv1d(3, 8, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rest(self.conv(x.mean(2)).unsqueeze(2))


class OfClip(TinyNet):
    """A network that reads an image as three equal slices."""

    def __init__(self) -> None:
        super().__init__(nn.Conv3d(3, 8, (3, 7, 7)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rest(self.conv(x.unsqueeze(2).expand(-1, -1, 3, -1, -1)).squeeze(2))


@pytest.mark.parametrize("kind", [OfRows, OfClip])
def test_1d_and_3d_convolutions_are_logged(fit, kind: type[TinyNet]) -> None:
    model = kind()
    conv = model.conv
    trainer = fit(KernelVizCallback(), model=model)
    snapshots = list_snapshots(Path(trainer.log_dir) / "kernelviz")
    found = snapshots_of(trainer.log_dir)
    assert [each.step for each in found] == list(snapshots) == DEFAULT_STEPS
    for each, path in zip(found, snapshots.values(), strict=True):
        weights = load_snapshot(path).weights["conv"].numpy()
        assert each.header["shape"] == list(conv.weight.shape)
        stored = unpack_snapshot(each.header, each.payload).weights()
        assert np.abs(stored - weights).max() <= HALF * np.abs(weights).max()
        assert each.header["verdicts"] is not None
    [run] = shown_of(trainer.log_dir)
    assert list(run.layers["conv"].values()) == [each.header for each in found]


def test_the_probe_is_logged_exactly_and_once(fit) -> None:
    probe = torch.rand(3, 20, 24)
    trainer = fit(KernelVizCallback(probe=probe))
    [found] = [each for each in events_of(trainer.log_dir) if each.header["kind"] == "probe"]
    assert found.step == 0
    assert np.array_equal(unpack_probe(found.header, found.payload), probe.numpy())
    assert found.header["digest"] == load_saved_probe(Path(trainer.log_dir) / "kernelviz").digest


def test_without_health_there_are_no_verdicts(fit) -> None:
    trainer = fit(KernelVizCallback(health=False))
    assert {str(each.header["verdicts"]) for each in snapshots_of(trainer.log_dir)} == {"None"}


def test_every_watched_layer_is_logged_and_a_first_layer_is_small(fit) -> None:
    class Deep(TinyNet):
        def __init__(self) -> None:
            super().__init__(nn.Conv2d(3, 64, 7))
            self.rest[0] = nn.Conv2d(64, 8, 3, bias=False)

    trainer = fit(KernelVizCallback(layers="*"), model=Deep())
    found = snapshots_of(trainer.log_dir)
    assert {each.header["layer"] for each in found} == {"conv", "rest.0"}
    assert len(found) == 2 * len(DEFAULT_STEPS)
    assert max(each.size for each in found if each.header["layer"] == "conv") <= 25_000


def test_a_resumed_training_is_a_later_attempt(fit, tmp_path: Path) -> None:
    board = TensorBoardLogger(tmp_path, name="run", version="0")
    trainer = fit(KernelVizCallback(), logger=board, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    board = TensorBoardLogger(tmp_path, name="run", version="0")
    fit(KernelVizCallback(), logger=board, max_epochs=2, ckpt_path=tmp_path / "last.ckpt")
    found = snapshots_of(board.log_dir)
    attempts = [each.header["attempt"] for each in found]
    assert [each.step for each in found] == DEFAULT_STEPS
    assert attempts == sorted(attempts)
    assert len(set(attempts)) == 2


def test_after_a_crash_logged_snapshots_are_kept(fit, tmp_path) -> None:
    board = TensorBoardLogger(tmp_path, name="run", version="0")
    every_step = {"every_n_train_steps": 1, "every_n_epochs": None}
    trainer = fit(KernelVizCallback(**every_step), logger=board, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    folder = Path(board.log_dir) / "kernelviz"
    (folder / ".lock").write_text("held")
    list_snapshots(folder)[2].write_bytes(b"damaged")
    board = TensorBoardLogger(tmp_path, name="run", version="0")
    with pytest.warns(UserWarning, match="could not read .*00000002"):
        fit(
            KernelVizCallback(**every_step),
            logger=board,
            max_epochs=2,
            ckpt_path=tmp_path / "last.ckpt",
        )
    [run] = shown_of(board.log_dir)
    shown = run.layers["conv"].values()
    assert [each["step"] for each in shown] == list(range(STEPS + 1))
    first = min(each["attempt"] for each in shown)
    assert [each["step"] for each in shown if each["attempt"] == first] == [2]
    assert run.superseded == 0


def test_two_trainings_in_one_folder_are_distinguished(fit, tmp_path: Path) -> None:
    for epochs in (2, 1):
        board = TensorBoardLogger(tmp_path, name="run", version="0")
        fit(KernelVizCallback(), logger=board, max_epochs=epochs)
    one, other = shown_of(board.log_dir)
    assert [each["step"] for each in one.layers["conv"].values()] == DEFAULT_STEPS
    assert [each["step"] for each in other.layers["conv"].values()] == DEFAULT_STEPS[:-1]
    assert one.superseded == other.superseded == 0
    assert [*one.probes] == [*other.probes]


def test_the_drift_is_computed_from_exact_weights(fit) -> None:
    trainer = fit(KernelVizCallback())
    first, *later = (
        load_snapshot(path).weights["conv"].double()
        for path in list_snapshots(Path(trainer.log_dir) / "kernelviz").values()
    )
    drifts = [each.header["drift"] for each in snapshots_of(trainer.log_dir)]
    assert drifts[0] is None
    expected = [float((each - first).norm() / first.norm()) for each in later]
    assert drifts[1:] == pytest.approx(expected, rel=1e-9)


def test_events_are_in_the_file_of_the_logger(fit) -> None:
    trainer = fit(KernelVizCallback(every_n_train_steps=1))
    assert len(list(Path(trainer.log_dir).glob("events*"))) == 1
    assert len(snapshots_of(trainer.log_dir)) == STEPS + 1


def test_many_layers_share_the_size_limit_of_a_snapshot() -> None:
    layers = {f"conv{i}": torch.rand(256, 256, 3, 3) for i in range(20)}
    snapshot = Snapshot(
        0, 0, 0.0, layers, {n: plain_geometry(tuple(w.shape)) for n, w in layers.items()}
    )
    packed = [pack_layer(snapshot, layer) for layer in layers]
    assert 2**19 < sum(len(payload) for _, payload in packed) < 1.1 * 2**20
    assert {tuple(header["shape"]) for header, _ in packed} == {(256, 22, 3, 3)}


@pytest.mark.loses_something
def test_a_failing_storage_at_the_start_loses_no_events(fit, monkeypatch) -> None:
    look, calls = run_folder.load_saved_probe, []

    def fail_once(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise RuntimeError("the store is gone")
        return look(*args)

    monkeypatch.setattr(run_folder, "load_saved_probe", fail_once)
    with pytest.warns(UserWarning, match="the store is gone"):
        trainer = fit(KernelVizCallback())
    # The file of the first snapshot is lost: it was written into the folder that failed.
    assert [each.step for each in snapshots_of(trainer.log_dir)][-4:] == DEFAULT_STEPS[1:]


def test_a_resume_is_later_even_without_folder_and_with_a_slow_clock(fit, tmp_path) -> None:
    board = TensorBoardLogger(tmp_path, name="run", version="0")
    trainer = fit(KernelVizCallback(), logger=board, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=False)
    [state] = [s for name, s in checkpoint["callbacks"].items() if "KernelViz" in name]
    assert state["attempt"] == snapshots_of(board.log_dir)[0].header["attempt"]
    assert state["run"] == snapshots_of(board.log_dir)[0].header["training"]
    state["attempt"] = ahead = 2**51
    torch.save(checkpoint, tmp_path / "last.ckpt")
    shutil.rmtree(Path(board.log_dir) / "kernelviz")
    board = TensorBoardLogger(tmp_path, name="run", version="0")
    fit(KernelVizCallback(), logger=board, max_epochs=2, ckpt_path=tmp_path / "last.ckpt")
    found = snapshots_of(board.log_dir)
    assert {each.header["attempt"] for each in found if each.step > 4} == {ahead + 1}
    [run] = shown_of(board.log_dir)
    assert [each["step"] for each in run.layers["conv"].values()] == DEFAULT_STEPS


class Usurp(Callback):
    """Delete the folder during a training, and lock it as another training."""

    lock: RunLock | None = None

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 5:
            folder = Path(trainer.log_dir) / "kernelviz"
            while len(list_snapshots(folder)) < 6:
                time.sleep(0.01)
            shutil.rmtree(folder)
            self.lock = lock_run_folder(trainer.log_dir)


def test_a_training_whose_folder_is_replaced_stays_one_training(fit) -> None:
    usurp = Usurp()
    callback = KernelVizCallback(every_n_train_steps=1, every_n_epochs=None)
    with pytest.warns(UserWarning, match="it was deleted"):
        trainer = fit(callback, usurp)
    assert usurp.lock is not None
    usurp.lock.release()
    [run] = shown_of(trainer.log_dir)
    assert [each["step"] for each in run.layers["conv"].values()] == list(range(STEPS + 1))
    assert run.superseded == 0
    told = {each.header["training"] for each in snapshots_of(trainer.log_dir)}
    assert told == {callback.state_dict()["run"]}
    assert usurp.lock.attempt.training not in told

"""Checkpoints in the order of their steps, and one layer out of them."""

from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from reels import drawn

from kernelviz_callback import Snapshot, open_checkpoint, save_snapshot
from kernelviz_callback.checkpoints.checkpoint import plain_geometry
from kernelviz_callback.commands.history import LayerHistory, order_by_step


class Said:
    def __init__(self) -> None:
        self.errors: list[Exception] = []

    @contextmanager
    def catch(self):
        try:
            yield
        except (ValueError, OSError) as error:
            self.errors.append(error)


def saved(path: Path, weights: torch.Tensor, *, layer: str = "conv", **told: int) -> str:
    torch.save({"state_dict": {f"{layer}.weight": weights}, **told}, path)
    return str(path)


def test_steps_are_told_by_the_name_or_inside(tmp_path: Path) -> None:
    named = saved(tmp_path / "epoch=1-step=40.ckpt", drawn(2, 3, 3, 3))
    inside = saved(tmp_path / "best-step=3.ckpt", drawn(2, 3, 3, 3), global_step=7)
    assert order_by_step([named, inside], Said().catch) == ({7: inside, 40: named}, [])


def test_a_footstep_is_no_step(tmp_path: Path) -> None:
    assert open_checkpoint(saved(tmp_path / "footstep2.pth", drawn(2, 3, 3, 3))).step is None
    assert open_checkpoint(saved(tmp_path / "global_step2.pth", drawn(2, 3, 3, 3))).step == 2


def test_of_our_snapshots_only_the_first_is_opened(tmp_path: Path) -> None:
    snapshot = Snapshot(
        3, 0, 0.0, {"conv": drawn(2, 3, 3, 3)}, {"conv": plain_geometry((2, 3, 3, 3))}
    )
    first = str(save_snapshot(snapshot, tmp_path))
    others = [str(tmp_path / f"step-{step:08d}.safetensors") for step in range(4, 10_000)]
    steps, notes = order_by_step([*others, first], Said().catch)
    assert (list(steps), notes) == (list(range(3, 10_000)), [])


def test_what_does_not_fit_does_not_count(tmp_path: Path) -> None:
    names = [saved(tmp_path / f"step={s}.ckpt", drawn(2, 3, 3, 3)) for s in (5, 50)]
    misfits = [
        saved(tmp_path / "larger.ckpt", drawn(3, 3, 3, 3)),
        saved(tmp_path / "other.ckpt", drawn(3, 5, 3, 3), layer="head"),
    ]
    said = Said()
    expected = dict(zip((5, 50), names, strict=True))
    assert order_by_step([*names, *misfits], said.catch, "conv") == (expected, [])
    assert "larger.ckpt: expected 2x3x3x3 of conv; found 3x3x3x3" in str(said.errors[0])
    assert "other.ckpt" in str(said.errors[1])


def test_one_that_does_not_tell_is_one(tmp_path: Path) -> None:
    names = [saved(tmp_path / f"{n}.ckpt", drawn(2, 3, 3, 3)) for n in ("step=5", "last")]
    _, notes = order_by_step(names, Said().catch)
    assert notes == ["1 of 2 does not state its step: all are numbered from 0"]


def test_without_the_layer_there_is_no_history(tmp_path: Path) -> None:
    names = [saved(tmp_path / f"{n}.ckpt", drawn(2, 3, 3, 3)) for n in "ab"]
    said = Said()
    with pytest.raises(ValueError, match=r"a\.ckpt: found no single layer 'head'"):
        order_by_step(names, said.catch, "head")
    assert said.errors == []


def test_of_the_same_step_the_last_named_counts(tmp_path: Path) -> None:
    names = ["version_0/step-00000005.safetensors", "version_1/step-00000005.safetensors"]
    first = saved(tmp_path / "step=1.ckpt", drawn(2, 3, 3, 3))
    steps, notes = order_by_step([first, *names], Said().catch)
    assert steps == {1: first, 5: names[1]}
    assert notes == ["1 left out: several have the same step, and the last named is used"]


def test_those_that_do_not_tell_their_step_are_numbered(tmp_path: Path) -> None:
    names = [saved(tmp_path / f"{n}.pt", drawn(2, 3, 3, 3)) for n in ("c", "a", "b", "step=9")]
    steps, notes = order_by_step(names, Said().catch)
    assert steps == dict(enumerate(names))
    assert notes == ["3 of 4 do not state their step: all are numbered from 0"]


def test_what_cannot_be_opened_is_said_and_left_out(tmp_path: Path) -> None:
    said = Said()
    whole = saved(tmp_path / "best.ckpt", drawn(2, 3, 3, 3), global_step=7)
    assert order_by_step([str(tmp_path / "last.ckpt"), whole], said.catch)[0] == {7: whole}
    assert "last.ckpt" in str(said.errors[0])


def test_a_layer_is_read_whatever_its_prefix(tmp_path: Path) -> None:
    weights = [drawn(4, 3, 3, 3, seed=n) for n in range(3)]
    names = {
        step: saved(tmp_path / f"{step}.ckpt", weights[step], layer=layer, epoch=step + 5)
        for step, layer in enumerate(["conv", "net.conv", "model.net.conv"])
    }
    history = LayerHistory(names, open_checkpoint(names[0]), None)
    for step, expected in enumerate(weights):
        reading = history.read(step)
        assert reading.epoch == step + 5
        assert torch.equal(reading.weights["conv"], expected)


def test_another_shape_is_refused(tmp_path: Path) -> None:
    names = {
        step: saved(tmp_path / f"{step}.ckpt", drawn(n, 3, 3, 3)) for step, n in enumerate((4, 5))
    }
    history = LayerHistory(names, open_checkpoint(names[0]), "conv")
    with pytest.raises(ValueError, match=r"1\.ckpt: expected 4x3x3x3 of conv; found 5x3x3x3"):
        history.read(1)
    with pytest.raises(ValueError, match="'head'"):
        LayerHistory(names, open_checkpoint(names[0]), "head")

"""Checkpoints in the order of their steps, and one layer out of them."""

from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from reels import drawn

from kernelviz_callback import open_checkpoint
from kernelviz_callback.filming.history import LayerHistory, by_steps


class Said:
    def __init__(self) -> None:
        self.errors: list[Exception] = []

    @contextmanager
    def survive(self):
        try:
            yield
        except (ValueError, OSError) as error:
            self.errors.append(error)


def saved(path: Path, weights: torch.Tensor, *, layer: str = "conv", **told: int) -> str:
    torch.save({"state_dict": {f"{layer}.weight": weights}, **told}, path)
    return str(path)


def test_steps_are_told_by_the_name_or_inside(tmp_path: Path) -> None:
    named = str(tmp_path / "epoch=1-step=40.ckpt")  # needs not be there
    inside = saved(tmp_path / "best.ckpt", drawn(2, 3, 3, 3), global_step=7)
    assert by_steps([named, inside], Said().survive) == ({7: inside, 40: named}, [])


def test_of_the_same_step_the_last_named_counts(tmp_path: Path) -> None:
    names = ["version_0/step-00000005.safetensors", "version_1/step-00000005.safetensors"]
    steps, notes = by_steps(["step=1.ckpt", *names], Said().survive)
    assert steps == {1: "step=1.ckpt", 5: names[1]}
    assert notes == ["1 left out: of the same step, the last named counts"]


def test_those_that_do_not_tell_their_step_are_numbered(tmp_path: Path) -> None:
    names = [saved(tmp_path / f"{n}.pt", drawn(2, 3, 3, 3)) for n in "cab"]
    steps, notes = by_steps([*names, "step=9.ckpt"], Said().survive)
    assert steps == dict(enumerate([*names, "step=9.ckpt"]))
    assert notes == ["3 of 4 do not tell their step: all are numbered from 0"]


def test_what_cannot_be_opened_is_said_and_left_out(tmp_path: Path) -> None:
    said = Said()
    whole = saved(tmp_path / "best.ckpt", drawn(2, 3, 3, 3), global_step=7)
    assert by_steps([str(tmp_path / "last.ckpt"), whole], said.survive)[0] == {7: whole}
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

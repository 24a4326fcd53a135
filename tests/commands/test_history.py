"""Order checkpoints by step, and read one layer from each."""

from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from filter_sequences import drawn

from kernelviz_callback import Snapshot, open_checkpoint, save_snapshot
from kernelviz_callback.checkpoints.checkpoint import plain_geometry
from kernelviz_callback.commands.history import LayerHistory, order_by_step


class CaughtErrors:
    def __init__(self) -> None:
        self.errors: list[Exception] = []

    @contextmanager
    def catch(self):
        try:
            yield
        except (ValueError, OSError) as error:
            self.errors.append(error)


def saved(path: Path, weights: torch.Tensor, *, layer: str = "conv", **content: int) -> str:
    torch.save({"state_dict": {f"{layer}.weight": weights}, **content}, path)
    return str(path)


def test_steps_are_read_from_the_content_or_the_name(tmp_path: Path) -> None:
    named = saved(tmp_path / "epoch=1-step=40.ckpt", drawn(2, 3, 3, 3))
    inside = saved(tmp_path / "best-step=3.ckpt", drawn(2, 3, 3, 3), global_step=7)
    assert order_by_step([named, inside], CaughtErrors().catch) == ({7: inside, 40: named}, [])


def test_footstep_in_a_name_is_not_a_step(tmp_path: Path) -> None:
    assert open_checkpoint(saved(tmp_path / "footstep2.pth", drawn(2, 3, 3, 3))).step is None
    assert open_checkpoint(saved(tmp_path / "global_step2.pth", drawn(2, 3, 3, 3))).step == 2


def recorded(folder: Path, step: int, filters: int, layer: str = "conv") -> str:
    weights = {layer: drawn(filters, 3, 3, 3, seed=step)}
    geometry = {layer: plain_geometry((filters, 3, 3, 3))}
    return str(save_snapshot(Snapshot(step, 0, 0.0, weights, geometry), folder))


def test_only_the_newest_and_the_first_of_many_snapshots_are_opened(tmp_path: Path) -> None:
    first, newest = recorded(tmp_path, 3, 2), recorded(tmp_path, 10_000, 2)
    others = [str(tmp_path / f"step-{step:08d}.safetensors") for step in range(4, 10_000)]
    caught = CaughtErrors()
    steps, notes = order_by_step([*others, newest, first], caught.catch)
    assert (list(steps), notes) == (list(range(3, 10_001)), [])
    assert caught.errors == []


@pytest.mark.parametrize("filters", [(8, 8, 6, 6, 12, 12, 12), (4, 6, 8, 10, 12), (8, 12)])
def test_of_a_layer_that_changed_the_newest_shape_is_taken(
    tmp_path: Path, filters: tuple[int, ...]
) -> None:
    snapshots = [recorded(tmp_path, 5 * i, count) for i, count in enumerate(filters)]
    checkpoints = [
        saved(tmp_path / f"step={5 * i}.ckpt", drawn(count, 3, 3, 3))
        for i, count in enumerate(filters)
    ]
    for names in (snapshots, checkpoints, [*snapshots[:1], *checkpoints[1:]]):
        caught = CaughtErrors()
        steps, notes = order_by_step(names, caught.catch)
        assert list(steps) == [5 * i for i, count in enumerate(filters) if count == 12]
        assert caught.errors == []
        assert notes == [
            f"conv changed: {filters.index(12)} of {len(filters)} left out, in which it does not "
            "have its newest shape, 12x3x3x3"
        ]


def test_a_layer_that_is_watched_since_a_resume_is_found(tmp_path: Path) -> None:
    names = [recorded(tmp_path, step, 8, "conv" if step < 3 else "stem") for step in range(6)]
    caught = CaughtErrors()
    steps, [note] = order_by_step(names, caught.catch, "stem")
    assert list(steps) == [3, 4, 5]
    assert note.startswith("stem changed: 3 of 6 left out")
    assert caught.errors == []


def test_checkpoints_without_the_layer_are_reported_and_left_out(tmp_path: Path) -> None:
    names = [saved(tmp_path / f"step={s}.ckpt", drawn(2, 3, 3, 3)) for s in (5, 50)]
    misfits = [
        saved(tmp_path / "larger.ckpt", drawn(3, 3, 3, 3)),
        saved(tmp_path / "other.ckpt", drawn(3, 5, 3, 3), layer="head"),
    ]
    caught = CaughtErrors()
    expected = dict(zip((5, 50), names, strict=True))
    assert order_by_step([*names, *misfits], caught.catch, "conv") == (expected, [])
    assert "larger.ckpt: expected 2x3x3x3 of conv; found 3x3x3x3" in str(caught.errors[0])
    assert "other.ckpt" in str(caught.errors[1])


def test_one_checkpoint_without_a_step_makes_all_numbered(tmp_path: Path) -> None:
    names = [saved(tmp_path / f"{n}.ckpt", drawn(2, 3, 3, 3)) for n in ("step=5", "last")]
    _, notes = order_by_step(names, CaughtErrors().catch)
    assert notes == ["1 of 2 does not state its step: all are numbered from 0"]


def test_an_unknown_layer_is_an_error(tmp_path: Path) -> None:
    names = [saved(tmp_path / f"{n}.ckpt", drawn(2, 3, 3, 3)) for n in "ab"]
    caught = CaughtErrors()
    with pytest.raises(ValueError, match=r"a\.ckpt: found no single layer 'head'"):
        order_by_step(names, caught.catch, "head")
    assert caught.errors == []


def test_the_last_named_of_the_same_step_is_used(tmp_path: Path) -> None:
    names = ["version_0/step-00000005.safetensors", "version_1/step-00000005.safetensors"]
    first = saved(tmp_path / "step=1.ckpt", drawn(2, 3, 3, 3))
    steps, notes = order_by_step([first, *names], CaughtErrors().catch)
    assert steps == {1: first, 5: names[1]}
    assert notes == ["1 left out: several have the same step, and the last named is used"]


def test_checkpoints_without_steps_are_numbered(tmp_path: Path) -> None:
    names = [saved(tmp_path / f"{n}.pt", drawn(2, 3, 3, 3)) for n in ("c", "a", "b", "step=9")]
    steps, notes = order_by_step(names, CaughtErrors().catch)
    assert steps == dict(enumerate(names))
    assert notes == ["3 of 4 do not state their step: all are numbered from 0"]


def test_checkpoints_that_cannot_be_opened_are_reported_and_left_out(tmp_path: Path) -> None:
    caught = CaughtErrors()
    whole = saved(tmp_path / "best.ckpt", drawn(2, 3, 3, 3), global_step=7)
    assert order_by_step([str(tmp_path / "last.ckpt"), whole], caught.catch)[0] == {7: whole}
    assert "last.ckpt" in str(caught.errors[0])


def test_a_layer_is_read_from_names_with_other_prefixes(tmp_path: Path) -> None:
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


def test_another_shape_is_an_error(tmp_path: Path) -> None:
    names = {
        step: saved(tmp_path / f"{step}.ckpt", drawn(n, 3, 3, 3)) for step, n in enumerate((4, 5))
    }
    history = LayerHistory(names, open_checkpoint(names[0]), "conv")
    with pytest.raises(ValueError, match=r"1\.ckpt: expected 4x3x3x3 of conv; found 5x3x3x3"):
        history.read(1)
    with pytest.raises(ValueError, match="'head'"):
        LayerHistory(names, open_checkpoint(names[0]), "head")

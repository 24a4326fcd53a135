"""A session records the weights of the right moment, and its state is that of its training."""

from pathlib import Path

import pytest
import torch
from torch import nn

from kernelviz_callback import list_snapshots, load_probe, load_snapshot
from kernelviz_callback.drawing.layer_pictures import map_shrink
from kernelviz_callback.snapshots.attempt import Attempt
from kernelviz_callback.training.run_state import RunState
from kernelviz_callback.training.session import Session, Style
from kernelviz_callback.training.watched_layers import WatchedLayers


def session(
    net: nn.Module, folder: Path, *, state: RunState | None = None, style: Style | None = None
) -> Session:
    return Session(
        WatchedLayers(net, None, map_shrink=map_shrink),
        load_probe(size=40),
        str(folder),
        style=style or Style(live=False),
        state=state or RunState(),
    )


def network() -> nn.Conv2d:
    torch.manual_seed(1)
    return nn.Conv2d(3, 8, 5)


def scale(net: nn.Conv2d, factor: float) -> None:
    with torch.no_grad():
        net.weight.mul_(factor)


def recorded(folder: Path) -> dict[int, torch.Tensor]:
    snapshots = list_snapshots(folder / "kernelviz")
    return {s: next(iter(load_snapshot(p).weights.values())) for s, p in snapshots.items()}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scale": "epoch"}, "scale must be one of 'filter', 'layer', 'run'; found 'epoch'"),
        ({"response": "mean"}, "response must be one of 'channels', 'sum'; found 'mean'"),
    ],
)
def test_a_choice_that_does_not_exist_is_refused(options: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Style(**options)  # type: ignore[arg-type]


def test_a_held_copy_is_recorded_at_its_own_step_only(tmp_path: Path) -> None:
    net = network()
    started = net.weight.detach().clone()
    ours = session(net, tmp_path)
    ours.hold(1, 0)
    scale(net, 2.0)
    ours.hold(1, 0)
    assert ours.holds(1)
    assert not ours.holds(2)
    ours.record(1, 0, [])
    ours.hold(2, 0)
    scale(net, 2.0)
    ours.record(3, 0, [])
    assert not ours.holds(2)
    ours.close()
    found = recorded(tmp_path)
    assert list(found) == [1, 3]
    assert torch.equal(found[1], started)
    assert torch.equal(found[3], 4 * started)


def test_a_step_is_due_once(tmp_path: Path) -> None:
    ours = session(network(), tmp_path)
    assert ours.is_due(0)
    ours.record(0, 0, [])
    assert not ours.is_due(0)
    assert ours.is_due(1)
    ours.close()


def test_a_session_that_was_closed_continues_its_attempt(tmp_path: Path) -> None:
    ours = session(network(), tmp_path)
    assert ours.state.attempt is None
    ours.record(0, 0, [])
    ours.close()
    first = ours.state.attempt
    assert first is not None
    ours.record(1, 0, [])
    ours.close()
    second = ours.state.attempt
    assert second is not None
    assert second.training == first.training
    assert list(recorded(tmp_path)) == [0, 1]


def test_a_lazy_layer_keeps_the_state_of_the_checkpoint(tmp_path: Path) -> None:
    state = RunState({"": [8, 3, 5, 5]}, "digest", run_scales={"k": 2.0}, attempt=Attempt("a", 1))
    ours = session(nn.LazyConv2d(8, 5), tmp_path, state=state)
    assert not ours.is_due(0)
    assert ours.state == state


def test_the_state_is_a_copy_of_the_scales_of_all_snapshots_so_far(tmp_path: Path) -> None:
    net = network()
    ours = session(net, tmp_path, style=Style(scale="run", live=False))
    tag = "kernels/"
    ends = []
    for step in range(2):
        ours.record(step, 0, [])
        ends.append(net.weight.abs().max().item())
        state = ours.state
        [name] = [name for name in state.run_scales if name.startswith(tag)]
        assert state.run_scales[name] == pytest.approx(ends[-1])
        if step == 0:
            first = state
            scale(net, 2.0)
    assert first.run_scales[name] == pytest.approx(ends[0])
    ours.close()

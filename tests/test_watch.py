"""The layers that are watched, also when the model puts others in their place."""

import pytest
import torch
from torch import nn

from kernelviz_callback import load_probe
from kernelviz_callback.watch import Watch


def take(watch: Watch):
    return watch.take(step=7, epoch=2, probe=load_probe(size=32), keep=True)


def test_a_snapshot_is_a_copy() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    snapshot = take(Watch(net))
    assert (snapshot.step, snapshot.epoch, snapshot.probe_name) == (7, 2, "chart")
    before = net[0].weight.detach().clone()
    with torch.no_grad():
        net[0].weight.zero_()
    assert torch.equal(snapshot.weights["0"], before)


def test_a_layer_that_was_replaced_is_found_again() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    watch = Watch(net)
    net[0] = nn.Conv2d(3, 6, 5)
    assert torch.equal(take(watch).weights["0"], net[0].weight)
    assert watch.shapes == {"0": [6, 3, 5, 5]}


def test_a_layer_that_went_away_is_missed() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    watch = Watch(net, "0")
    net[0] = nn.Identity()
    with pytest.raises(ValueError, match="no convolution to watch matches layers='0'"):
        take(watch)


def test_a_process_that_does_not_want_it_copies_nothing() -> None:
    watch = Watch(nn.Sequential(nn.Conv2d(3, 4, 3)))
    assert watch.take(step=0, epoch=0, probe=load_probe(size=32), keep=False) is None

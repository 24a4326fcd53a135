"""The watched layers: snapshots, replaced layers, deeper layers and probes that do not fit."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from kernelviz_callback import load_probe
from kernelviz_callback.probe.probe import Probe
from kernelviz_callback.snapshots.format import load_snapshot, save_snapshot
from kernelviz_callback.training.failures import Failures
from kernelviz_callback.training.watched_layers import WatchedLayers

PHOTO = Probe(torch.rand(3, 32, 40, generator=torch.Generator().manual_seed(1)), "photo.png")


def take(watched: WatchedLayers, probe: Probe | None = None, **options: Any):
    probe = load_probe(size=32) if probe is None else probe
    options = {"failures": Failures(), **options}
    return watched.take(step=7, epoch=2, probe=probe, keep=True, **options)


def deep(channels: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv1d(4, 4, 1),
        nn.Conv2d(4, 8, 3),
        nn.ConvTranspose2d(8, 4, 3),
    )


def test_a_snapshot_copies_the_weights() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    snapshot = take(WatchedLayers(net))
    assert (snapshot.step, snapshot.epoch, snapshot.probe_name) == (7, 2, "chart")
    before = net[0].weight.detach().clone()
    with torch.no_grad():
        net[0].weight.zero_()
    assert torch.equal(snapshot.weights["0"], before)


def test_a_replaced_layer_is_found_again() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    watched = WatchedLayers(net)
    net[0] = nn.Conv2d(3, 6, 5)
    assert torch.equal(take(watched).weights["0"], net[0].weight)
    assert watched.shapes == {"0": [6, 3, 5, 5]}


def test_a_removed_layer_is_an_error() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    watched = WatchedLayers(net, "0")
    net[0] = nn.Identity()
    with pytest.raises(ValueError, match="no convolution to watch matches layers='0'"):
        take(watched)


def test_a_process_that_does_not_keep_the_snapshot_gets_none() -> None:
    watched = WatchedLayers(nn.Sequential(nn.Conv2d(3, 4, 3)))
    probe, failures = load_probe(size=32), Failures()
    assert watched.take(step=0, epoch=0, probe=probe, keep=False, failures=failures) is None


# --- deeper layers --------------------------------------------------------------------------------


def test_the_glob_for_all_layers_finds_every_convolution_and_nothing_else() -> None:
    assert list(WatchedLayers(deep(), "*").shapes) == ["0", "3", "4"]


@pytest.mark.parametrize("probe", [None, PHOTO], ids=["chart", "photo"])
def test_only_deeper_2d_layers_have_feature_maps(probe) -> None:
    net = deep()
    net[3] = nn.Identity()
    watched = WatchedLayers(net, "*")
    watched.check_fit(PHOTO)
    snapshot = take(watched, probe)
    image = (load_probe(size=32) if probe is None else probe).image
    assert not snapshot.feature_maps.absent
    assert set(snapshot.feature_maps.maps) == {"4"}
    expected = copy.deepcopy(net[:5]).eval()(image[None])[0].detach()
    assert torch.equal(snapshot.feature_maps.maps["4"].values, expected)
    assert sum(t.numel() for t in snapshot.tensors) == 4 * 27 + 8 * 36 + expected.numel()


def test_the_first_2d_or_3d_layer_reads_the_input() -> None:
    class Squeeze(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(2)

    stem = nn.Sequential(
        nn.Conv1d(1, 1, 3), nn.Conv3d(3, 4, 3), Squeeze(), nn.Conv2d(4, 8, 3), nn.Conv3d(4, 8, 3)
    )
    watched = WatchedLayers(stem, "*")
    watched.check_fit(PHOTO)  # only the first 3-D layer has to fit; the others read its output
    absent = take(watched, PHOTO).feature_maps.absent
    assert set(absent) == {"3"}, "the only deeper 2-D layer, in a model that reads clips"
    assert watched.reads_images
    assert not WatchedLayers(stem, "0").reads_images


def test_the_model_is_not_run_if_only_its_first_layer_is_watched() -> None:
    class Never(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise AssertionError

    maps = take(WatchedLayers(Never())).feature_maps
    assert not maps.maps
    assert not maps.absent


@pytest.mark.parametrize("channels", [1, 5])
def test_the_chart_is_adapted_to_the_input_channels_of_the_model(channels: int) -> None:
    net = deep(channels)
    net[3] = nn.Identity()
    snapshot = take(WatchedLayers(net, "4"))
    image = load_probe(size=32).for_channels(channels)
    expected = net[:5].eval()(image[None])[0].detach()
    assert torch.equal(snapshot.feature_maps.maps["4"].values, expected)


def test_feature_maps_are_not_written_to_the_file(tmp_path) -> None:
    net = deep()
    net[3] = nn.Identity()
    snapshot = take(WatchedLayers(net, "*"))
    assert snapshot.feature_maps.maps
    restored = load_snapshot(save_snapshot(snapshot, tmp_path))
    assert not restored.feature_maps.maps
    assert set(restored.weights) == {"0", "4"}


def test_a_model_that_fails_has_no_feature_maps() -> None:
    snapshot = take(WatchedLayers(deep(), "*"))  # the 1-D convolution reads no images
    assert set(snapshot.feature_maps.absent) == {"4"}, "a 1-D layer needs no feature maps"
    assert "the model failed on images of shape (1, 3, 32, 32)" in snapshot.feature_maps.absent["4"]
    assert set(snapshot.weights) == {"0", "3", "4"}


def test_a_failure_before_the_model_runs_does_not_cost_the_snapshot() -> None:
    class Stateless(torch.Generator):
        def get_state(self) -> torch.Tensor:
            raise RuntimeError("no state to be had")

    net = deep()
    net.generator = Stateless()
    snapshot = take(WatchedLayers(net, "*"))
    assert "no state to be had" in snapshot.feature_maps.absent["4"]
    assert set(snapshot.weights) == {"0", "3", "4"}


def test_a_model_that_communicates_with_other_processes_has_no_feature_maps() -> None:
    class Asks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.distributed.all_reduce(self.total.add_(1))
            return x

    net = deep()
    net[3] = Asks()
    net[3].total = torch.zeros(())
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        snapshot = take(WatchedLayers(net, "*"))
    finally:
        torch.distributed.destroy_process_group()
    assert "the model waits for other processes (c10d" in snapshot.feature_maps.absent["4"]
    assert net[3].total == 0


def test_a_probe_that_neither_model_nor_layer_can_read_is_an_error() -> None:
    two = Probe(torch.rand(2, 32, 32), "tensor")
    with pytest.raises(ValueError, match=r"layer '0': the layer reads 3 input channels"):
        WatchedLayers(deep(), "*").check_fit(two)
    with pytest.raises(ValueError, match=r"layer '4': the layer reads 4 input channels"):
        WatchedLayers(deep(), "4").check_fit(two)
    four = Probe(torch.rand(4, 32, 32), "tensor")
    watched = WatchedLayers(deep(), "4")
    watched.check_fit(four)  # the layer alone can read this probe, the model cannot
    assert "ValueError: the layer reads 3" in take(watched, four).feature_maps.absent["4"]

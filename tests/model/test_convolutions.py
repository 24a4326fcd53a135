"""Convolutions are found by name, glob or default, and their geometry is read."""

import copy
import json
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from kernelviz_callback import Geometry, effective_weight, find_convolutions, geometry_of
from kernelviz_callback.model.convolutions import is_ready, weight_shape


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 7)
        self.layer1 = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU())
        self.layer1.conv1 = nn.Conv2d(8, 8, 3)
        self.layer2 = nn.Sequential()
        self.layer2.conv1 = nn.Conv2d(8, 16, 3)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.head = nn.Linear(16, 2)


def test_the_first_convolution_is_the_default() -> None:
    net = Net()
    assert find_convolutions(net) == {"backbone.stem": net.backbone.stem}


def test_a_glob_crosses_dots_and_keeps_the_order_of_the_model() -> None:
    found = find_convolutions(Net(), ["backbone.layer2.conv1", "backbone.layer1.*"])
    assert list(found) == ["backbone.layer1.0", "backbone.layer1.conv1", "backbone.layer2.conv1"]
    assert list(find_convolutions(Net(), "backbone.*.conv1")) == [
        "backbone.layer1.conv1",
        "backbone.layer2.conv1",
    ]


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel], ids=["compile", "module."])
def test_names_are_the_same_in_a_wrapper(wrap) -> None:
    net = Net()
    net.backbone = wrap(net.backbone)
    assert list(find_convolutions(net)) == ["backbone.stem"]
    assert list(find_convolutions(net, "backbone.stem")) == ["backbone.stem"]
    assert next(iter(find_convolutions(wrap(Net()), "backbone.*.conv1"))) == "backbone.layer1.conv1"
    raw = next(n for n, m in net.named_modules() if isinstance(m, nn.Conv2d))
    assert raw != "backbone.stem"
    assert list(find_convolutions(net, raw)) == ["backbone.stem"]


def test_a_compiled_convolution_keeps_its_name() -> None:
    net = Net()
    net.backbone.stem = torch.compile(net.backbone.stem)
    found = find_convolutions(net)
    assert list(found) == ["backbone.stem"]
    assert isinstance(found["backbone.stem"], nn.Conv2d)


def test_two_layers_never_share_a_name() -> None:
    net = nn.Module()
    net.conv = nn.Conv2d(3, 4, 3)
    net.module = nn.Module()
    net.module.conv = nn.Conv2d(3, 4, 5)
    found = find_convolutions(net, "*")
    assert found == {"conv": net.conv, "module.conv": net.module.conv}


def test_the_error_without_a_match_lists_the_candidates_and_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="no convolution to watch") as error:
        find_convolutions(Net(), "steem")
    assert "layers='steem' in Net; the nearest name is 'backbone.stem'.\n" in str(error.value)
    assert "backbone.stem: Conv2d(3, 8, kernel_size=(7, 7)" in str(error.value)


def test_the_error_lists_every_candidate_of_a_deep_model() -> None:
    net = nn.Sequential(*(nn.Conv2d(3, 3, 3) for _ in range(120)))
    with pytest.raises(ValueError, match="119: Conv2d"):
        find_convolutions(net, "nowhere")


def test_the_end_of_a_name_stands_for_a_layer() -> None:
    net = Net()
    assert find_convolutions(net, "stem") == {"backbone.stem": net.backbone.stem}
    assert list(find_convolutions(net, ["stem", "layer2.conv1"])) == [
        "backbone.stem",
        "backbone.layer2.conv1",
    ]
    with pytest.raises(ValueError, match=r"is the end of 2 names: backbone\.layer1\.conv1, ba"):
        find_convolutions(net, "conv1")
    net.backbone.layer1.conv1 = nn.Conv1d(8, 8, 3)
    assert list(find_convolutions(net, "conv1")) == ["backbone.layer2.conv1"], "2-D is preferred"
    assert list(find_convolutions(Net(), "*.conv1")) == [
        "backbone.layer1.conv1",
        "backbone.layer2.conv1",
    ]


def test_the_end_of_a_name_never_hides_the_full_name() -> None:
    net = nn.Module()
    net.inner = nn.Sequential()
    net.inner.stem = nn.Conv2d(3, 4, 5)
    net.stem = nn.Conv2d(3, 4, 3)
    assert find_convolutions(net, "stem") == {"stem": net.stem}


def test_a_trained_layer_comes_before_a_frozen_one() -> None:
    net = Net()
    net.backbone.stem.requires_grad_(False)
    assert list(find_convolutions(net)) == ["backbone.layer1.0"]
    net.requires_grad_(False)
    assert list(find_convolutions(net)) == ["backbone.stem"], "all are frozen"


def test_the_error_names_the_pattern_that_matches_nothing() -> None:
    with pytest.raises(ValueError, match=r"layers='nowhere\.\*'"):
        find_convolutions(Net(), ["backbone.stem", "nowhere.*"])


def test_the_weights_decide_the_number_of_channels() -> None:
    conv = nn.Conv2d(3, 8, 5)
    conv.weight = nn.Parameter(conv.weight.detach().sum(1, keepdim=True))
    assert weight_shape(conv) == (8, 1, 5, 5)
    prune.l1_unstructured(conv, "weight", 0.5)
    assert weight_shape(conv) == (8, 1, 5, 5)


def test_the_shape_of_derived_weights_is_read_without_deriving_them() -> None:
    conv = parametrizations.spectral_norm(nn.Conv2d(3, 8, 5)).train()
    before = copy.deepcopy(conv.state_dict())
    assert weight_shape(conv) == (8, 3, 5, 5)
    assert all(torch.equal(value, before[name]) for name, value in conv.state_dict().items())
    assert weight_shape(parametrizations.weight_norm(nn.Conv1d(3, 8, 5))) == (8, 3, 5)
    with pytest.raises(TypeError, match="expected a Conv1d, Conv2d or Conv3d; found Linear"):
        weight_shape(nn.Linear(3, 4))


def test_the_default_is_the_first_2d_convolution_even_after_others() -> None:
    net = nn.Sequential(nn.Conv1d(3, 4, 3), nn.Conv3d(3, 4, 3), nn.Conv2d(3, 4, 3))
    assert list(find_convolutions(net)) == ["2"]
    assert list(find_convolutions(net[:2])) == ["0"]
    assert list(find_convolutions(net, "*")) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("conv", "shape", "geometry"),
    [
        (
            nn.Conv1d(4, 6, 9, stride=3, padding=4, dilation=2, groups=2),
            (6, 2, 9),
            Geometry("Conv1d", (3,), (4,), (2,), 2),
        ),
        (
            nn.Conv3d(3, 4, (3, 5, 7), stride=(1, 2, 2), padding="valid", dilation=(3, 2, 1)),
            (4, 3, 3, 5, 7),
            Geometry("Conv3d", (1, 2, 2), "valid", (3, 2, 1), 1),
        ),
    ],
)
def test_geometry_and_weight_shape_of_1d_and_3d_convolutions(
    conv: nn.Module, shape: tuple[int, ...], geometry: Geometry
) -> None:
    found = geometry_of(conv)
    assert found == geometry
    assert found.plane_dilation == ((1, 2) if conv.weight.ndim == 3 else (2, 1))
    assert Geometry.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert weight_shape(conv) == shape
    assert torch.equal(effective_weight(conv), conv.weight)


def test_a_model_without_convolutions_is_refused() -> None:
    with pytest.raises(ValueError, match="none"):
        find_convolutions(nn.Linear(2, 2))


def test_a_model_that_is_a_convolution_has_the_name_of_its_class() -> None:
    conv = nn.Conv2d(3, 4, 3)
    assert find_convolutions(conv) == {"Conv2d": conv}


def test_a_geometry_can_be_restored_from_json() -> None:
    geometry = geometry_of(nn.Conv2d(4, 4, 3, stride=2, padding="valid", groups=2))
    assert geometry == Geometry("Conv2d", (2, 2), "valid", (1, 1), 2)
    assert Geometry.from_dict(json.loads(json.dumps(geometry.to_dict()))) == geometry


def test_a_lazy_convolution_is_found_before_it_has_weights() -> None:
    net = nn.Sequential(nn.LazyConv2d(4, 3))
    found = find_convolutions(net)
    assert not is_ready(found["0"])
    net(torch.zeros(1, 3, 8, 8))
    assert is_ready(found["0"])
    assert effective_weight(found["0"]).shape == (4, 3, 3, 3)


def test_a_layer_that_is_registered_twice_is_found_under_its_first_name() -> None:
    net = nn.Module()
    net.stem = nn.Conv2d(3, 4, 3)
    net.alias = net.stem
    assert list(find_convolutions(net, "alias")) == ["stem"]
    assert list(find_convolutions(net, "*")) == ["stem"]


@pytest.mark.parametrize(("kind", "rank"), [(nn.Conv1d, 1), (nn.Conv2d, 2), (nn.Conv3d, 3)])
def test_a_subclass_may_set_one_number_for_all_directions(kind: Any, rank: int) -> None:
    class OneNumber(kind):
        def __init__(self, *sizes: int) -> None:
            super().__init__(*sizes)
            self.kernel_size, self.stride, self.padding, self.dilation = 3, 2, 1, 1

    layer = OneNumber(3, 4, 3)
    geometry = geometry_of(layer)
    assert geometry.stride == (2,) * rank
    assert geometry.padding == geometry.dilation == (1,) * rank
    assert weight_shape(layer) == (4, 3, *(3,) * rank)
    del layer.weight
    assert weight_shape(layer) == (4, 3, *(3,) * rank)

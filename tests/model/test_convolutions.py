import copy
import json

import pytest
import torch
from torch import nn
from torch.ao.quantization import get_default_qat_qconfig
from torch.nn.utils import parametrizations, parametrize, prune

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
def test_names_are_the_same_inside_a_wrapper(wrap) -> None:
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


def test_no_match_lists_the_candidates() -> None:
    with pytest.raises(ValueError, match="no convolution to watch") as error:
        find_convolutions(Net(), "stem")
    assert "layers='stem'" in str(error.value)
    assert "backbone.stem: Conv2d(3, 8, kernel_size=(7, 7)" in str(error.value)
    assert "in Net" in str(error.value)


def test_one_pattern_of_many_that_matches_nothing_is_named() -> None:
    with pytest.raises(ValueError, match=r"layers='nowhere\.\*'"):
        find_convolutions(Net(), ["backbone.stem", "nowhere.*"])


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.ConvTranspose2d(3, 4, 3), "transposed"),
        (nn.Conv2d(3, 4, 3, dtype=torch.complex64), "complex"),
        (nn.Linear(3, 4), "it is a Linear"),
    ],
)
def test_what_cannot_be_pictured_is_refused_with_the_reason(module, reason) -> None:
    with pytest.raises(ValueError, match=reason):
        find_convolutions(nn.Sequential(module), "0")
    with pytest.raises(ValueError, match="no convolution to watch in Sequential"):
        find_convolutions(nn.Sequential(module))


def test_the_first_of_two_dimensions_comes_before_others() -> None:
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
def test_convolutions_of_other_dimensions(
    conv: nn.Module, shape: tuple[int, ...], geometry: Geometry
) -> None:
    found = geometry_of(conv)
    assert found == geometry
    assert found.plane_dilation == ((1, 2) if conv.weight.ndim == 3 else (2, 1))
    assert Geometry.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert weight_shape(conv) == shape
    assert torch.equal(effective_weight(conv), conv.weight)


def test_without_any_convolution_the_message_says_so() -> None:
    with pytest.raises(ValueError, match="none"):
        find_convolutions(nn.Linear(2, 2))


def test_a_bare_convolution_is_called_by_its_class() -> None:
    conv = nn.Conv2d(3, 4, 3)
    assert find_convolutions(conv) == {"Conv2d": conv}


def test_geometry_survives_json() -> None:
    geometry = geometry_of(nn.Conv2d(4, 4, 3, stride=2, padding="valid", groups=2))
    assert geometry == Geometry("Conv2d", (2, 2), "valid", (1, 1), 2)
    assert Geometry.from_dict(json.loads(json.dumps(geometry.to_dict()))) == geometry


def test_a_lazy_convolution_is_found_before_it_is_ready() -> None:
    net = nn.Sequential(nn.LazyConv2d(4, 3))
    found = find_convolutions(net)
    assert not is_ready(found["0"])
    net(torch.zeros(1, 3, 8, 8))
    assert is_ready(found["0"])
    assert effective_weight(found["0"]).shape == (4, 3, 3, 3)


def test_the_weight_is_a_contiguous_float32_copy() -> None:
    conv = nn.Conv2d(3, 4, 3).to(torch.bfloat16).to(memory_format=torch.channels_last)
    weight = effective_weight(conv)
    assert weight.dtype == torch.float32
    assert weight.is_contiguous()
    assert not weight.requires_grad
    torch.testing.assert_close(weight, conv.weight.float(), rtol=0, atol=0)
    weight.zero_()
    assert conv.weight.abs().sum() > 0


def _trained_a_little(conv: nn.Module) -> nn.Module:
    conv.train()
    optimizer = torch.optim.SGD(conv.parameters(), lr=0.5)
    conv(torch.rand(2, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    return conv


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
@pytest.mark.parametrize(
    "wrap",
    [
        parametrizations.spectral_norm,
        parametrizations.weight_norm,
        parametrizations.orthogonal,
        nn.utils.spectral_norm,
        nn.utils.weight_norm,
        lambda conv: prune.random_unstructured(conv, "weight", 0.4),
        lambda conv: prune.random_unstructured(
            prune.random_unstructured(conv, "weight", 0.4), "weight", 0.2
        ),
    ],
    ids=["spectral", "weight", "orthogonal", "old spectral", "old weight", "prune", "prune twice"],
)
def test_the_effective_weight_is_what_the_layer_multiplies_with(wrap) -> None:
    torch.manual_seed(0)
    conv = _trained_a_little(wrap(nn.Conv2d(3, 4, 3, bias=False)))
    before = copy.deepcopy(conv.state_dict())
    weight = effective_weight(conv)

    for name, value in conv.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} was changed by looking"
    assert conv.training
    probe = torch.rand(1, 3, 8, 8)
    expected = conv.eval()(probe)
    torch.testing.assert_close(nn.functional.conv2d(probe, weight), expected)


# --- quantized, tied, replaced ------------------------------------------------------------------

quantization = pytest.mark.filterwarnings("ignore:.*torch.(ao.quantization|quantize_per_tensor)")


def _qat(conv: nn.Module) -> nn.Module:
    conv.qconfig = get_default_qat_qconfig("x86")
    return torch.ao.nn.qat.Conv2d.from_float(conv)


@quantization
def test_quantization_aware_weights_are_those_that_are_multiplied_with() -> None:
    torch.manual_seed(0)
    conv = _trained_a_little(_qat(nn.Conv2d(3, 4, 3, bias=False)))
    before = copy.deepcopy(conv.state_dict())
    weight = effective_weight(conv)
    for name, value in conv.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} was changed by looking"
    assert len(weight[0].unique()) < 256, "not rounded"
    assert not torch.equal(weight, conv.weight)
    probe = torch.rand(1, 3, 8, 8)
    expected = conv.eval()(probe)
    torch.testing.assert_close(nn.functional.conv2d(probe, weight), expected)


@quantization
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: torch.ao.nn.quantized.Conv2d(3, 4, 3), "quantized: its weights are whole numbers"),
        (
            lambda: torch.ao.nn.intrinsic.qat.ConvBn2d(
                3, 4, 3, qconfig=get_default_qat_qconfig("x86")
            ),
            "fused: its weights depend on the batch norm",
        ),
    ],
)
def test_weights_that_no_picture_would_be_true_of_are_refused(make, reason) -> None:
    net = nn.Sequential(make())
    with pytest.raises(ValueError, match=reason):
        find_convolutions(net, "0")


def test_a_layer_that_is_registered_twice_goes_by_its_first_name() -> None:
    net = nn.Module()
    net.stem = nn.Conv2d(3, 4, 3)
    net.alias = net.stem
    assert list(find_convolutions(net, "alias")) == ["stem"]
    assert list(find_convolutions(net, "*")) == ["stem"]


def test_layers_that_share_a_weight_both_show_it() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3))
    net[1].weight = net[0].weight
    found = find_convolutions(net, "*")
    assert torch.equal(effective_weight(found["0"]), effective_weight(found["1"]))


def test_a_parametrization_that_draws_leaves_the_generator_alone() -> None:
    class Noisy(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight + torch.randn_like(weight)

    conv = nn.Conv2d(3, 4, 3)
    parametrize.register_parametrization(conv, "weight", Noisy())
    before = torch.get_rng_state()
    effective_weight(conv)
    assert torch.equal(torch.get_rng_state(), before)

"""What layers read and what follows them, found by one run of real networks."""

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

from kernelviz_callback.model.convolutions import find_convolutions
from kernelviz_callback.model.followers import Follower
from kernelviz_callback.model.layer_inputs import MOST_IMAGES, Readings, read_inputs


def read(model: nn.Module, size: int = 64, layer: str | None = None) -> Readings:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(MOST_IMAGES + 2, 3, size, size, generator=generator)
    return read_inputs(model, find_convolutions(model, layer), images)


def follower_of(model: nn.Module, size: int = 64) -> Follower:
    [found] = read(model, size).found.values()
    return found.follower


def batch_norm(name: str, nonlinearity: str, eps: float = 1e-5) -> Follower:
    tensors = {"gamma": f"{name}.weight", "beta": f"{name}.bias"}
    return Follower("batch", tensors, eps, nonlinearity=nonlinearity)


models = torchvision.models
NETWORKS = {
    "resnet": (models.resnet18, batch_norm("bn1", "relu")),
    "densenet": (models.densenet121, batch_norm("features.norm0", "relu")),
    "vgg": (models.vgg11, Follower(nonlinearity="relu")),
    "mobilenet": (models.mobilenet_v2, batch_norm("features.0.1", "relu6")),
    "efficientnet": (models.efficientnet_b0, batch_norm("features.0.1", "silu")),
    "vision transformer": (lambda: models.VisionTransformer(64, 16, 1, 2, 32, 32), Follower()),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_norm_and_the_nonlinearity_of_real_networks(name: str) -> None:
    network, expected = NETWORKS[name]
    assert follower_of(network()) == expected


def test_a_residual_connection_reads_the_output_too() -> None:
    found = follower_of(models.convnext_tiny())
    assert (found.norm, found.groups, found.eps) == ("layer", 1, 1e-6)
    assert found.tensors["gamma"] == "features.0.1.weight"
    assert found.unknown == "add reads its output, too"


class Net(nn.Module):
    """Calls functions instead of modules."""

    def __init__(self, norm: nn.Module, act: object = F.relu) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), norm, nn.Conv2d(8, 2, 1)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.norm(self.conv(x))))


@pytest.mark.parametrize(
    ("norm", "kind", "groups"),
    [
        (nn.GroupNorm(4, 8), "group", 4),
        (nn.InstanceNorm2d(8, affine=True), "instance", 1),
        (nn.BatchNorm2d(8), "batch", 1),
        (nn.SyncBatchNorm(8), "batch", 1),
    ],
)
def test_kinds_of_norms(norm: nn.Module, kind: str, groups: int) -> None:
    found = follower_of(Net(norm), 16)
    assert (found.norm, found.groups, found.unknown) == (kind, groups, None)
    assert found.tensors == {"gamma": "norm.weight", "beta": "norm.bias"}
    assert found.rectifies


def test_a_batch_norm_that_is_kept_in_evaluation_mode_uses_its_running_statistics() -> None:
    net = Net(nn.BatchNorm2d(8, affine=False))
    assert (follower_of(net, 16).norm, follower_of(net, 16).tensors) == ("batch", {})
    net.norm.eval()
    found = follower_of(net, 16)
    assert found.norm == "running"
    assert found.tensors == {"mean": "norm.running_mean", "variance": "norm.running_var"}


@pytest.mark.parametrize(
    ("act", "nonlinearity", "rectifies"),
    [
        (F.relu, "relu", True),
        (F.relu_, "relu", True),
        (nn.ReLU(inplace=True), "relu", True),
        (lambda x: x.relu(), "relu", True),
        (nn.ReLU6(), "relu6", True),
        (F.gelu, "gelu", False),
        (nn.SELU(), "selu", False),
        (nn.SiLU(inplace=True), "silu", False),
        (nn.LeakyReLU(), "leaky_relu", False),
        (nn.Hardtanh(), "hardtanh", False),
        (nn.Identity(), None, False),
    ],
)
def test_kinds_of_nonlinearities(act: object, nonlinearity: str | None, rectifies: bool) -> None:
    found = follower_of(Net(nn.Identity(), act), 16)
    assert (found.nonlinearity, found.rectifies) == (nonlinearity, rectifies)
    assert found.unknown is None


@pytest.mark.parametrize(
    ("norm", "reason"),
    [
        (FrozenBatchNorm2d(8), "mul changes its output"),
        (nn.LayerNorm([14, 14]), "a layer norm of whole images follows"),
    ],
)
def test_what_is_no_known_norm_is_said(norm: nn.Module, reason: str) -> None:
    assert follower_of(Net(norm), 16).unknown == reason


def test_a_network_that_fails_after_the_layer_still_shows_what_the_layer_reads() -> None:
    net = Net(nn.BatchNorm2d(8))
    net.head = nn.Conv2d(5, 2, 1)
    [found] = read(net, 16).found.values()
    assert found.inputs.shape == (MOST_IMAGES, 3, 16, 16)
    assert found.follower.norm == "batch"
    net.norm = nn.BatchNorm2d(5)
    [found] = read(net, 16).found.values()
    assert found.follower.unknown == "the model ended before its output was read"


def test_a_layer_reads_what_the_model_makes_of_the_images() -> None:
    class Doubled(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(2 * x - 1)

    images = torch.rand(4, 3, 9, 9)
    net = Doubled(nn.BatchNorm2d(8))
    found = read_inputs(net, {"conv": net.conv}, images).found["conv"]
    torch.testing.assert_close(found.inputs, 2 * images - 1)


def test_a_model_that_cannot_read_the_images_gives_the_reason() -> None:
    net = Net(nn.BatchNorm2d(8))
    found = read_inputs(net, {"conv": net.conv}, torch.rand(4, 5, 9, 9))
    assert not found.found or found.found["conv"].inputs.shape[1] == 5
    net.conv = nn.Sequential(nn.Linear(3, 3), nn.Conv2d(3, 8, 3))
    found = read_inputs(net, {"conv.1": net.conv[1]}, torch.rand(4, 5, 9, 9))
    assert "the model failed on images of shape (4, 5, 9, 9)" in found.absent["conv.1"]


def test_nothing_of_the_model_changes() -> None:
    net = Net(nn.Sequential(nn.BatchNorm2d(8), nn.Dropout()))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    read(net, 16)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(module.training for module in net.modules())
    assert not net.conv._forward_hooks
    assert not net.conv._forward_pre_hooks

"""The order in which a model calls its layers, found without a trace."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernelviz_callback.model.call_order import Calls, find_calls
from kernelviz_callback.model.convolutions import name_layers
from kernelviz_callback.model.feature_maps import feature_maps

IMAGE = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(2))


def image_of(channels: int | None) -> Tensor:
    return IMAGE if channels is None else IMAGE.mean(0, keepdim=True).repeat(channels, 1, 1)


def no_image(_: int | None) -> Tensor:
    raise RuntimeError("no image")


def no_other_image(channels: int | None) -> Tensor:
    return IMAGE if channels is None else no_image(channels)


def calls_of(model: nn.Module, ends_at: Callable[[str], bool] = lambda _: False) -> Calls:
    layers = {name: layer.module for name, layer in name_layers(model).items()}
    return find_calls(model, layers, image_of, ends_at=ends_at)


class Backwards(nn.Module):
    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.last = nn.Conv2d(4, 4, 3)
        self.up = nn.ConvTranspose2d(4, 4, 2)
        self.first = nn.Conv2d(channels, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.up(self.first(x)))


def test_layers_are_listed_in_the_order_of_their_calls() -> None:
    calls = calls_of(Backwards())
    assert calls == Calls(
        {"first": 0, "up": 1, "last": 2}, frozenset({"first"}), 3, image_channels=3
    )


def test_the_run_ends_as_soon_as_the_first_layer_is_known() -> None:
    class Never(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), Never())
    assert calls_of(net, lambda _: True).places == {"0": 0, "1": 1}


def test_a_model_that_reads_another_number_of_channels_is_run_on_such_an_image() -> None:
    calls = calls_of(Backwards(channels=5))
    assert list(calls.places) == ["first", "up", "last"]
    assert calls.channels == 5


def test_channels_that_the_model_adds_are_not_those_of_the_image() -> None:
    class Coordinates(Backwards):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(torch.cat([x, x[:, :2]], dim=1))

    calls = calls_of(Coordinates(channels=5))
    assert list(calls.places) == ["first", "up", "last"]
    assert calls.channels == 3


def test_layers_that_read_the_same_image_have_the_same_place() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.deep = nn.Conv2d(4, 4, 3)
            self.wide = nn.Conv2d(3, 4, 3, padding=1)
            self.point = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = x - x.mean()
            return self.deep(self.point(x) + self.wide(x))

    calls = calls_of(Branches())
    assert calls.places == {"point": 0, "wide": 0, "deep": 2}
    assert calls.readers == {"point", "wide"}


def test_the_networks_of_a_module_without_forward_are_run_one_by_one() -> None:
    net = nn.Module()
    net.decoder = nn.Sequential(nn.Conv2d(4, 4, 3))
    net.broken = nn.Sequential(nn.Linear(7, 7), nn.Conv2d(3, 3, 3))
    net.integers = nn.Sequential(nn.Conv2d(3, 3, 3, bias=False).requires_grad_(False))
    net.integers[0].weight.data = net.integers[0].weight.data.to(torch.int8)
    net.parts = nn.ModuleList([Backwards()])
    calls = calls_of(net)
    assert list(calls.places) == ["parts.0.first", "parts.0.up", "parts.0.last", "decoder.0"]
    assert calls.readers == {"parts.0.first"}


def test_a_model_that_cannot_run_has_no_order() -> None:
    assert calls_of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.LazyConv2d(4, 3))) == Calls()
    assert calls_of(nn.Sequential(nn.Linear(7, 7), nn.Conv2d(3, 4, 30))).places == {"1": 0}


def test_the_run_leaves_no_trace() -> None:
    class Counts(Backwards):
        def forward(self, x: Tensor) -> Tensor:
            self.calls = getattr(self, "calls", 0) + 1
            self.last.weight.data += 1
            return super().forward(x + torch.rand_like(x))

    net = Counts().train()
    before, random = net.last.weight.detach().clone(), torch.get_rng_state()
    assert list(calls_of(net).places) == ["first", "up", "last"]
    assert not hasattr(net, "calls")
    assert torch.equal(net.last.weight, before)
    assert torch.equal(torch.get_rng_state(), random)
    assert net.training
    assert not net.first._forward_pre_hooks


def test_a_model_that_cannot_be_restored_is_not_run_but_its_parts_are() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Backwards()
            self.counter = itertools.count()

        def forward(self, x: Tensor) -> Tensor:
            next(self.counter)
            return self.net(x)

    model = Counts()
    assert list(calls_of(model).places) == ["net.first", "net.up", "net.last"]
    assert next(model.counter) == 0


def test_without_an_image_the_order_is_not_known() -> None:
    model = Backwards(channels=5)
    layers = {name: layer.module for name, layer in name_layers(model).items()}
    assert find_calls(model, layers, no_image, ends_at=lambda _: False) == Calls()
    calls = find_calls(model, layers, no_other_image, ends_at=lambda _: False)
    assert min(calls.places, key=calls.places.__getitem__) == "first"


def test_a_model_may_change_its_image_in_place() -> None:
    class Shifts(Backwards):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.sub_(0.5))

    model, grey = Shifts(), torch.rand(1, 24, 24)
    layers = {name: layer.module for name, layer in name_layers(model).items()}
    image = grey.expand(3, -1, -1)
    before = grey.clone()
    found = find_calls(model, layers, lambda _: image, ends_at=lambda _: False)
    assert list(found.places) == ["first", "up", "last"]
    maps = feature_maps(model, {"last": model.last}, image)
    assert maps.absent == {}
    assert torch.equal(grey, before)


class Enlarges(nn.Module):
    """A generator that makes an image 64 times as high and wide, layer by layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(32, 32, 1) for _ in range(7))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            HEIGHTS.append(x.shape[-1])
            x = F.interpolate(layer(x), scale_factor=2)
        return x


HEIGHTS: list[int] = []  # a global variable is not restored


def test_a_generator_is_not_run_to_images_of_any_size() -> None:
    calls = calls_of(nn.Sequential(Enlarges(), nn.Identity()), ends_at=lambda _: True)
    assert list(calls.places)[:2] == ["0.layers.0", "0.layers.1"]
    assert max(HEIGHTS) <= 1024

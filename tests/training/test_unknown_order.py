"""The layer that probably reads the image is watched if the order of the calls is not known."""

from collections.abc import Callable

import pytest
import torch
import torchvision
from lightning.pytorch import LightningModule
from networks import Encoder
from torch import Tensor, nn

from kernelviz_callback import load_probe
from kernelviz_callback.model.convolutions import weight_shape
from kernelviz_callback.training.layer_choice import choose_layers
from kernelviz_callback.training.watched_layers import WatchedLayers


class Refines(nn.Module):
    """Two networks read images, and the one that is defined first runs last."""

    def __init__(self) -> None:
        super().__init__()
        self.refine, self.base, self.out = Encoder(), Encoder(), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.refine(self.out(self.base(x) * mask))


class Layers(nn.Module):
    """Two layers read images."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.last(self.first(x) * mask)


class LateStem(nn.Module):
    """The network that reads the image comes after many others."""

    def __init__(self, count: int, channels: int = 3) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU()) for _ in range(count)
        )
        self.stem = nn.Conv2d(channels, 8, 3)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        x = self.stem(x) + time
        for block in self.blocks:
            x = block(x)
        return x


DEFINED = " (the model did not run on an image, so the first one defined that may read images)"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Refines(), f"refine.stem (8 filters 3x5x5); also there: base.stem, out{DEFINED}"),
        (Layers(), f"last (3 filters 3x3x3); also there: first{DEFINED}"),
        (LateStem(7), "stem (8 filters 3x3x3); also there: blocks.0.0"),
        (LateStem(12), "stem (8 filters 3x3x3); also there: blocks.0.0"),
        (LateStem(12, 5), f"blocks.0.0 (8 filters 8x3x3); also there: stem{DEFINED}"),
    ],
    ids=["networks", "layers", "few blocks", "many blocks", "many blocks, five channels"],
)
def test_an_order_that_is_not_known_is_said(model: nn.Module, said: str) -> None:
    assert str(WatchedLayers(model)) == said


class Decoder(nn.Module):
    """Makes images of vectors. Its first convolution reads what a linear layer computes."""

    def __init__(self, latent: int = 100) -> None:
        super().__init__()
        self.start = nn.Linear(latent, 256 * 4 * 4)
        self.first, self.middle = nn.Conv2d(256, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.last = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        return self.decode(self.start(z).view(-1, 256, 4, 4))

    def decode(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x)))


class DecoderOfMaps(Decoder):
    def forward(self, x: Tensor) -> Tensor:
        return self.decode(x)


class Conditional(Encoder):
    """Cannot be run on an image alone."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return super().forward(x + label)


class Gan(LightningModule):
    def __init__(self, generator: nn.Module, discriminator: nn.Module) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator

    def forward(self, z: Tensor) -> Tensor:
        return self.generator(z)


class GanWithoutForward(Gan):
    forward = LightningModule.forward


class Vae(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.decoder, self.encoder = Decoder(8), encoder

    def forward(self, x: Tensor, *label: Tensor) -> Tensor:
        return self.decoder(self.encoder(x, *label).mean((2, 3)))


class Inside(LightningModule):
    """Has the model in an attribute, as many LightningModules have."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *given: Tensor) -> Tensor:
        return self.net(*given)


class Diffusion(nn.Module):
    """A U-Net that reads an image and a time. Its decoder is defined first."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.up = nn.Sequential(nn.Conv2d(64, 32, 3, padding=1), nn.Conv2d(32, channels, 3))
        self.stem = nn.Conv2d(channels, 32, 3, padding=1)
        self.down = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU())

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        x = self.stem(x) + time
        return self.up(torch.cat([x, self.down(x)], 1))


class Bands(nn.Module):
    """Reads images of many bands, and has layers of few channels inside."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.stem, self.narrow = nn.Conv2d(bands, 64, 3), nn.Conv2d(64, 3, 1)
        self.wide = nn.Conv2d(3, 8, 1)

    def forward(self, x: Tensor, *time: Tensor) -> Tensor:
        return self.wide(self.narrow(self.stem(x)) * sum(time, 1))


class BandsInTime(Bands):
    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return super().forward(x, time)


def bands_of_resnet() -> nn.Module:
    resnet = torchvision.models.resnet18()
    resnet.conv1 = nn.Conv2d(13, 64, 7, stride=2)
    return resnet


READ_IMAGES = {
    "dcgan": (lambda: Gan(Decoder(), Encoder()), "discriminator.stem"),
    "vectors as long as a row of the image": (
        lambda: Gan(Decoder(224), Encoder()),
        "discriminator.stem",
    ),
    "generator of maps": (lambda: Gan(DecoderOfMaps(), Encoder()), "discriminator.stem"),
    "conditional": (lambda: Gan(Decoder(), Conditional()), "discriminator.stem"),
    "conditional, of maps": (lambda: Gan(DecoderOfMaps(), Conditional()), "discriminator.stem"),
    "without forward": (
        lambda: GanWithoutForward(DecoderOfMaps(), Conditional()),
        "discriminator.stem",
    ),
    "gan inside": (lambda: Inside(Gan(Decoder(), Conditional())), "net.discriminator.stem"),
    "vae": (lambda: Vae(Encoder()), "encoder.stem"),
    "conditional vae": (lambda: Vae(Conditional()), "encoder.stem"),
    "diffusion": (lambda: Inside(Diffusion()), "net.stem"),
    "diffusion of latents": (lambda: Diffusion(4), "stem"),
    "vit": (lambda: torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 32), "conv_proj"),
    "13 bands": (bands_of_resnet, "conv1"),
    "8 bands": (lambda: Inside(Bands(8)), "net.stem"),
    "200 bands": (lambda: Bands(200), "stem"),
    "200 bands in time": (lambda: Inside(BandsInTime(200)), "net.stem"),
}


@pytest.mark.parametrize(("make", "first"), READ_IMAGES.values(), ids=READ_IMAGES)
def test_the_layer_that_reads_an_image_is_chosen(make: Callable[[], nn.Module], first: str) -> None:
    model = make()
    assert list(WatchedLayers(model).shapes) == [first]
    assert WatchedLayers(model, "*").channels == weight_shape(model.get_submodule(first))[1]
    assert list(choose_layers(model).layers) == [first], "the model must not be run"


def test_the_layer_that_reads_an_image_of_the_user_is_chosen() -> None:
    model = Gan(DecoderOfMaps(), Encoder())
    probe = load_probe(torch.rand(256, 8, 8))
    assert list(WatchedLayers(model, probe=probe).shapes) == ["generator.first"]

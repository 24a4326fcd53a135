"""In common architectures the first convolution is found, and every picture is drawn."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from kernelviz_callback import find_convolutions, load_probe
from kernelviz_callback.drawing.layer_pictures import map_shrink
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.training.failures import Failures
from kernelviz_callback.training.renderer import Renderer
from kernelviz_callback.training.watched_layers import WatchedLayers

timm = pytest.importorskip("timm")

# Name in timm to the name and the weight shape of the layer that reads the image.
FIRST = {
    "resnet18": ("conv1", (64, 3, 7, 7)),
    "resnet26t": ("conv1.0", (24, 3, 3, 3)),
    "seresnet18": ("conv1", (64, 3, 7, 7)),
    "vgg11_bn": ("features.0", (64, 3, 3, 3)),
    "densenet121": ("features.conv0", (64, 3, 7, 7)),
    "inception_v3": ("Conv2d_1a_3x3.conv", (32, 3, 3, 3)),
    "efficientnet_b0": ("conv_stem", (32, 3, 3, 3)),
    "mobilenetv2_050": ("conv_stem", (16, 3, 3, 3)),
    "mobilenetv3_small_050": ("conv_stem", (16, 3, 3, 3)),
    "mnasnet_small": ("conv_stem", (8, 3, 3, 3)),
    "ghostnet_050": ("conv_stem", (8, 3, 3, 3)),
    "regnetx_002": ("stem.conv", (32, 3, 3, 3)),
    "regnety_002": ("stem.conv", (32, 3, 3, 3)),
    "repvgg_a0": ("stem.conv_kxk.conv", (48, 3, 3, 3)),
    "convnext_atto": ("stem.0", (40, 3, 4, 4)),
    "dla34": ("base_layer.0", (16, 3, 7, 7)),
    "hrnet_w18_small": ("conv1", (64, 3, 3, 3)),
    "vit_tiny_patch16_224": ("patch_embed.proj", (192, 3, 16, 16)),
    "deit_tiny_patch16_224": ("patch_embed.proj", (192, 3, 16, 16)),
    "beit_base_patch16_224": ("patch_embed.proj", (768, 3, 16, 16)),
    "swin_tiny_patch4_window7_224": ("patch_embed.proj", (96, 3, 4, 4)),
    "mixer_s16_224": ("stem.proj", (512, 3, 16, 16)),
    "levit_128s": ("stem.conv1.linear", (16, 3, 3, 3)),
    "mobilevit_xxs": ("stem.conv", (16, 3, 3, 3)),
    "pvt_v2_b0": ("patch_embed.proj", (32, 3, 7, 7)),
    "poolformer_s12": ("stem.conv", (64, 3, 7, 7)),
    "edgenext_xx_small": ("stem.0", (24, 3, 4, 4)),
}


# The default suite tests one architecture for each kind of first layer.
QUICK = {
    "resnet18",
    "resnet26t",
    "efficientnet_b0",
    "mobilenetv3_small_050",
    "repvgg_a0",
    "convnext_atto",
    "vit_tiny_patch16_224",
    "levit_128s",
    "pvt_v2_b0",
    "r3d_18",
    "s3d",
}


def long_unless_quick(architectures: Iterable[str]) -> list[Any]:
    return [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.long)
        for name in architectures
    ]


@pytest.mark.parametrize("architecture", long_unless_quick(FIRST))
def test_first_and_last_convolution_of_an_image_model(architecture: str) -> None:
    torch.manual_seed(1)
    model = timm.create_model(architecture, pretrained=False).train()
    first, shape = FIRST[architecture]
    assert list(find_convolutions(model)) == [first]
    last = list(find_convolutions(model, "*"))[-1]
    snapshot = pictured(model, [first, last], size=model.pretrained_cfg["input_size"][-1])
    assert tuple(snapshot.weights[first].shape) == shape
    assert not snapshot.feature_maps.absent
    assert set(snapshot.feature_maps.maps) == {last} - {first}


VIDEO_MODELS = {
    "r3d_18": ("stem.0", (64, 3, 3, 7, 7)),
    "r2plus1d_18": ("stem.0", (45, 3, 1, 7, 7)),
    "s3d": ("features.0.0.0", (64, 3, 1, 7, 7)),
    "mvit_v2_s": ("conv_proj", (96, 3, 3, 7, 7)),
    "swin3d_t": ("patch_embed.proj", (96, 3, 2, 4, 4)),
}


@pytest.mark.parametrize("architecture", long_unless_quick(VIDEO_MODELS))
def test_first_convolution_of_a_video_model(architecture: str) -> None:
    torch.manual_seed(1)
    model = torchvision.models.get_model(architecture, weights=None)
    first, shape = VIDEO_MODELS[architecture]
    snapshot = pictured(model, None)
    assert {layer: tuple(weights.shape) for layer, weights in snapshot.weights.items()} == {
        first: shape
    }


def test_convolutions_of_audio_models() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    model = transformers.Wav2Vec2Model(
        transformers.Wav2Vec2Config(hidden_size=64, num_hidden_layers=1, num_attention_heads=2)
    )
    snapshot = pictured(model, None)
    assert [tuple(w.shape) for w in snapshot.weights.values()] == [(512, 1, 10)]
    positions = "encoder.pos_conv_embed.conv"
    snapshot = pictured(model, positions)  # weight norm, 16 groups, kernels of 128 weights
    assert torch.equal(snapshot.weights[positions], model.encoder.pos_conv_embed.conv.weight)
    whisper = transformers.WhisperModel(
        transformers.WhisperConfig(
            d_model=48, encoder_layers=1, decoder_layers=1, vocab_size=99, pad_token_id=0
        )
    )
    snapshot = pictured(whisper, "*")
    assert [tuple(w.shape) for w in snapshot.weights.values()] == [(48, 80, 3), (48, 48, 3)]


def pictured(model: nn.Module, layers: str | list[str] | None, size: int = 64) -> Snapshot:
    """Take a snapshot of a model, draw every picture of it and return it."""
    probe = load_probe(size=size)
    watched = WatchedLayers(model, layers, map_shrink=map_shrink)
    watched.check_fit(probe)
    snapshot = watched.take(step=0, epoch=0, probe=probe, keep=True, failures=Failures())
    assert snapshot is not None
    failures = Failures()
    artist = Renderer(probe, response="channels", scale="filter", run_scales={})
    images = artist.draw(snapshot, failures)
    assert not failures.found
    assert images.keys() == {
        f"{kind}/{layer}" for kind in ("kernels", "responses") for layer in snapshot.weights
    }
    assert all(max(image.height, image.width) < 2000 for image in images.values())
    return snapshot

"""Networks as they are built in the field: their first convolution is found, and all is drawn."""

import pytest
import torch

from kernelviz_callback import find_convolutions, load_probe
from kernelviz_callback.illustrator import Illustrator
from kernelviz_callback.mishaps import Mishaps
from kernelviz_callback.watch import Watch

timm = pytest.importorskip("timm")

# Name in timm to the name and the shape of the layer that reads the image.
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


@pytest.mark.parametrize("architecture", FIRST)
def test_an_architecture(architecture: str) -> None:
    """Its first and its last convolution, in training mode as it would be found."""
    torch.manual_seed(1)
    model = timm.create_model(architecture, pretrained=False).train()
    first, shape = FIRST[architecture]
    assert list(find_convolutions(model)) == [first]
    last = list(find_convolutions(model, "*"))[-1]
    probe = load_probe(size=model.pretrained_cfg["input_size"][-1])
    watch = Watch(model, [first, last])
    watch.check_fit(probe)
    snapshot = watch.take(step=0, epoch=0, probe=probe, keep=True)
    assert snapshot is not None
    assert tuple(snapshot.weights[first].shape) == shape
    assert not snapshot.feature_maps.absent
    assert set(snapshot.feature_maps.maps) == {last} - {first}
    mishaps = Mishaps()
    artist = Illustrator(probe, response="channels", scale="filter", run_scales={})
    images = artist.draw(snapshot, mishaps)
    assert not mishaps.found
    assert images.keys() == {
        f"{k}/{layer}" for k in ("kernels", "responses") for layer in (first, last)
    }
    assert all(max(image.height, image.width) < 2000 for image in images.values())

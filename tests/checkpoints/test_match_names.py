"""Find the same layer in files that give it different names."""

import pytest

from kernelviz_callback.checkpoints.checkpoint import Checkpoint
from kernelviz_callback.checkpoints.match_names import find_same_layer
from kernelviz_callback.checkpoints.stored_layers import Shape, StoredLayer

STEM: Shape = (64, 3, 7, 7)
BLOCK: Shape = (64, 64, 3, 3)


def checkpoint(**layers: Shape) -> Checkpoint:
    found = {
        name.replace("__", "."): StoredLayer(shape, lambda: None)  # type: ignore[arg-type, return-value]
        for name, shape in layers.items()
    }
    return Checkpoint("a.pt", found, {})


RESNET = checkpoint(conv1=STEM, layer1__0__conv1=BLOCK, layer1__0__conv2=BLOCK)


@pytest.mark.parametrize(
    ("here", "name", "shape", "expected"),
    [
        (RESNET, "conv1", STEM, "conv1"),
        (RESNET, "model.conv1", STEM, "conv1"),
        (RESNET, "ema.module.layer1.0.conv1", BLOCK, "layer1.0.conv1"),
        (checkpoint(net__conv1=STEM, net__layer1__0__conv1=BLOCK), "conv1", STEM, "net.conv1"),
        (checkpoint(net__conv1=STEM), "model.conv1", STEM, "net.conv1"),
        (checkpoint(a__0=BLOCK, stem=STEM, b__conv1=STEM), "c.conv1", STEM, "b.conv1"),
        # The same layer with another number of channels.
        (checkpoint(model__conv1=(64, 1, 7, 7), b=STEM), "conv1", STEM, "model.conv1"),
        # As in DenseNet: a deep layer of another network has the same last segment.
        (checkpoint(f__conv0=STEM, f__b__1__conv1=(128, 64, 1, 1)), "conv1", STEM, "f.conv0"),
        # A 1-D layer with the same last segment is not taken for a 2-D layer.
        (checkpoint(t__conv1=(8, 1, 9), f__conv0=STEM, b=BLOCK), "conv1", STEM, "f.conv0"),
        (checkpoint(stem=STEM, net__sound=(16, 1, 9)), "sound", (8, 1, 9), "net.sound"),
        # Only a number in common: the first convolution is taken.
        (checkpoint(stem=(32, 3, 3, 3), layers__0=BLOCK), "features.0", STEM, "stem"),
    ],
)
def test_the_corresponding_layer_is_found(
    here: Checkpoint, name: str, shape: Shape, expected: str
) -> None:
    assert find_same_layer(here, None, name, shape) == expected


def test_a_name_of_the_user_that_matches_no_layer_is_an_error() -> None:
    assert find_same_layer(checkpoint(net__conv1=STEM), "conv1", "conv1", STEM) == "net.conv1"
    with pytest.raises(ValueError, match=r"a\.pt: found no single layer 'head'"):
        find_same_layer(RESNET, "head", "head", (4, 4, 1, 1))
    with pytest.raises(ValueError, match="found no 2-D convolution"):
        find_same_layer(checkpoint(), None, "conv1", STEM)

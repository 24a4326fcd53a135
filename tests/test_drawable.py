"""Layers that are too large to be drawn: files, trainings and the Kernels tab say the same."""

import re
from pathlib import Path

import pytest
import torch
from tab_runs import packed
from torch import nn

from kernelviz_callback.checkpoints.checkpoint import open_checkpoint
from kernelviz_callback.drawable import why_not_drawable
from kernelviz_callback.model.convolutions import find_convolutions

TOO_LARGE = {
    "8,193 filters": nn.Conv2d(1, 2**13 + 1, 1),
    "16,385 input channels": nn.Conv2d(2**14 + 1, 1, 1),
    "4,097 weights along one side of its kernels": nn.Conv1d(1, 2, 2**12 + 1),
    "66,049 weights in each filter": nn.Conv2d(1, 1, 257),
}


@pytest.mark.parametrize("what", TOO_LARGE)
def test_every_reader_refuses_a_layer_with_the_same_reason(what: str, tmp_path: Path) -> None:
    conv = TOO_LARGE[what]
    reason = why_not_drawable(conv.weight.shape)
    assert reason is not None
    assert reason.startswith(f"it has {what}; at most ")
    net = nn.Sequential(conv, nn.Conv2d(1, 4, 3))
    assert list(find_convolutions(net, "*")) == ["1"]
    with pytest.raises(ValueError, match=re.escape(reason)):
        find_convolutions(net, "0")
    torch.save(net.state_dict(), tmp_path / "a.pt")
    assert open_checkpoint(tmp_path / "a.pt").refused == {"0": reason}
    with pytest.raises(ValueError, match=re.escape(reason)):
        packed(conv.weight.detach().numpy())


def test_all_weights_together_are_limited() -> None:
    assert why_not_drawable((2**13, 2**14, 1, 1)) is None
    assert "134,258,688 weights; at most 134,217,728" in str(why_not_drawable((2**13, 5463, 3, 1)))


@pytest.mark.parametrize(
    "shape",
    [
        (8192, 384, 3, 3),
        (4096, 512, 7, 7),  # the first fully connected layer of VGG
        (4098, 1, 4096),  # a Fourier transform
        (10, 1, 224, 224),
        (512, 1, 10),  # wav2vec 2.0
        (1024, 64, 128),  # its positions
        (1280, 128, 3),  # Whisper
        (8192, 1, 4),  # Mamba
        (4096, 3, 16, 16),  # DINOv3
        (1280, 3, 16, 16),  # SAM
        (5120, 3, 14, 14),  # EVA-CLIP
        (6144, 3, 14, 14),  # ViT-22B
        (1024, 3, 32, 32),  # MLP-Mixer
        (768, 1, 16, 16),  # spectrograms
        (1408, 3, 2, 14, 14),  # VideoMAE
        (768, 4, 16, 16, 16),  # UNETR
        (64, 224, 7, 7),  # hyperspectral images
        (1024, 512, 3, 3),  # SSD
        (3072, 1024, 6, 6),  # OverFeat
        (1024, 1, 31, 31),  # RepLKNet
    ],
)
def test_large_layers_of_known_networks_can_be_drawn(shape: tuple[int, ...]) -> None:
    assert why_not_drawable(shape) is None

"""Layers are chosen by a glob that may match the ends of names."""

import pytest
import torchvision
from torch import nn

from kernelviz_callback.model.convolutions import select_convolutions


def test_a_glob_that_matches_no_whole_name_is_matched_with_the_ends_of_names() -> None:
    net = nn.ModuleDict({"net": torchvision.models.resnet18()})
    whole = select_convolutions(net, "net.layer1.*.conv1").found
    assert list(whole) == ["net.layer1.0.conv1", "net.layer1.1.conv1"]
    assert list(select_convolutions(net, ["layer1.*.conv1"]).found) == list(whole)
    assert list(select_convolutions(torchvision.models.resnet18(), "conv*").found) == ["conv1"], (
        "ends come after"
    )
    compiled = nn.ModuleDict({"_orig_mod": torchvision.models.resnet18()})
    assert list(select_convolutions(compiled, "conv*").found) == ["conv1"]


def test_a_model_without_convolutions_is_described_in_one_line() -> None:
    with pytest.raises(
        ValueError, match=r"^no convolution to watch in Linear; the model has none$"
    ):
        select_convolutions(nn.Linear(2, 2), None)

"""Comparisons of layers whose dimensions differ."""

import pytest
from torch import nn

from kernelviz_callback import compare


def test_a_1d_layer_and_a_2d_layer_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match=r"has 2 dimensions and 'Conv1d' of .* 1; name a layer"):
        compare(nn.Conv1d(1, 4, 5), nn.Conv2d(1, 4, 5))

"""Run a model on an image as the callback does."""

import torch
from torch import nn

from kernelviz_callback.model.convolutions import find_convolutions
from kernelviz_callback.model.feature_maps import FeatureMaps, feature_maps

PROBE = torch.randn(3, 20, 24, generator=torch.Generator().manual_seed(9))


def run_on_probe(model: nn.Module, layers: str = "*") -> FeatureMaps:
    return feature_maps(model, find_convolutions(model, layers), PROBE)

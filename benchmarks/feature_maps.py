"""Measure how much time the model needs to run on the probe: ResNet-18, 224 pixels.

This prints the figures of docs/how-to/deeper-layers.md, and the time of a plain forward pass.
"""

import time
from collections.abc import Callable

import torch
from torch import nn
from torchvision.models import resnet18

from kernelviz_callback import feature_maps

ROUNDS = 15


def least_cpu(run: Callable[[], object]) -> float:
    """Return the least processor time of all rounds, for all threads, in milliseconds."""
    found = []
    for _ in range(ROUNDS):
        start = time.process_time()
        run()
        found.append(1000 * (time.process_time() - start))
    return min(found)


def main() -> None:
    """Print the figures."""
    torch.manual_seed(0)
    model, probe = resnet18(), torch.rand(3, 224, 224)
    convolutions = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    deeper = list(convolutions)[1:]
    for last in ("layer1.0.conv1", "layer1.1.conv2", deeper[-1]):
        layers = {n: convolutions[n] for n in deeper[: deeper.index(last) + 1]}
        cost = least_cpu(lambda layers=layers: feature_maps(model, layers, probe))
        print(f"feature maps of {len(layers)} layers, to {last}: {cost:.0f} ms of CPU")
    model.eval()
    with torch.no_grad():
        print(f"a plain forward pass: {least_cpu(lambda: model(probe[None])):.0f} ms of CPU")


if __name__ == "__main__":
    main()

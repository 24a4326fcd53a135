"""Measure whether first layers learn what their data asks of them, as in a paper, in small.

Chowers & Weiss, "What do CNNs learn in the first layer and why?", ICML 2023, find for networks on
CIFAR-10, CIFAR-100 and ImageNet that the energy profiles of trained first layers agree across
seeds, widths, architectures and even random labels, and follow one formula. Here small networks
learn from crops of photographs and from digits.

    python benchmarks/energy_profile.py [--seeds 3] [--steps 400]
"""

import argparse
import itertools
import statistics
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from kernelviz_callback.commands.demo import RandomCrops, load_photos
from kernelviz_callback.filters.energy_profile import Profile, energy_profile
from kernelviz_callback.filters.patches import Patches, measure_patches

KERNEL = 5
CROPS = 4096  # with random labels, few enough to be learnt by heart
BATCH = 64


class Data(NamedTuple):
    """Images and labels of a task."""

    images: Tensor
    labels: Tensor


class Trained(NamedTuple):
    """The energy profiles of a first layer, and what the training reached."""

    before: Profile
    after: Profile
    loss: float


def photographs() -> Data:
    """Crops of the demo's photographs; the label is the photograph."""
    torch.manual_seed(0)
    crops = RandomCrops(load_photos(), count=CROPS, size=24)
    images, labels = zip(*(crops[i] for i in range(CROPS)), strict=True)
    return Data((torch.stack(images) - 0.45) / 0.25, torch.tensor(labels))


def digits() -> Data:
    """Handwritten digits, enlarged to 16 pixels."""
    found = load_digits()
    images = torch.from_numpy(found.images).float()[:, None] / 16 - 0.3
    return Data(F.interpolate(images, scale_factor=2.0), torch.from_numpy(found.target))


def vgg(channels: int, width: int, classes: int) -> nn.Module:
    """Three convolutions, as VGG arranges them."""
    return nn.Sequential(
        nn.Conv2d(channels, width, KERNEL, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, classes),
    )


class Block(nn.Module):
    """A residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's output to its input."""
        return F.relu(x + self.body(x))


def resnet(channels: int, width: int, classes: int) -> nn.Module:
    """A convolution with a batch norm and two residual blocks, as ResNet arranges them."""
    return nn.Sequential(
        nn.Conv2d(channels, width, KERNEL, padding=2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        Block(width),
        nn.MaxPool2d(2),
        Block(width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    )


NETWORKS: dict[str, Callable[[int, int, int], nn.Module]] = {"VGG": vgg, "ResNet": resnet}


class Settings(NamedTuple):
    """What may differ between two trainings on the same data."""

    network: str
    width: int
    seed: int
    is_random: bool


Runs: TypeAlias = dict[Settings, Trained]


class Task:
    """The trainings on one data set.

    Args:
        data: Images and labels.
        steps: Optimizer steps of a training.
    """

    def __init__(self, data: Data, steps: int) -> None:
        self._data = data
        self._steps = steps
        self.patches: Patches = measure_patches(
            data.images[:64],
            (KERNEL, KERNEL),
            stride=(1, 1),
            padding=[(2, 2), (2, 2)],
            dilation=(1, 1),
        )

    def train(self, settings: Settings) -> Trained:
        """Train one network by Adam, with true labels or with a fixed random order of them."""
        generator = torch.Generator().manual_seed(settings.seed)
        torch.manual_seed(settings.seed)
        images, labels = self._data
        if settings.is_random:
            labels = labels[torch.randperm(len(labels), generator=generator)]
        make = NETWORKS[settings.network]
        net = make(images.shape[1], settings.width, int(labels.max()) + 1)
        before = energy_profile(net[0].weight, self.patches)
        optimizer = torch.optim.Adam(net.parameters(), 2e-3)
        losses = []
        for _ in range(self._steps):
            chosen = torch.randint(len(images), (BATCH,), generator=generator)
            loss = F.cross_entropy(net(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        after = energy_profile(net[0].weight, self.patches)
        return Trained(before, after, statistics.mean(losses[-50:]))


def train_all(task: Task, seeds: int) -> Runs:
    """Train every network with every width, seed and kind of labels."""
    every = itertools.starmap(
        Settings, itertools.product(NETWORKS, (24, 48), range(seeds), (False, True))
    )
    return {settings: task.train(settings) for settings in every}


def correlation(one: Profile, other: Profile) -> float:
    """Return the correlation of two energy profiles."""
    return torch.corrcoef(torch.stack([one.energy, other.energy]))[0, 1].item()


def pairs(runs: Runs, *, differ_in: str) -> list[float]:
    """Return the correlations of the trained layers of all pairs that differ in one setting."""
    place = Settings._fields.index(differ_in)
    return [
        correlation(runs[one].after, runs[other].after)
        for one, other in itertools.combinations(runs, 2)
        if [i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b] == [place]
    ]


def row(name: str, values: list[float], published: str) -> str:
    """Format the mean and the range of numbers."""
    found = f"{statistics.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"
    return f"| {name} | {found} | {published} |"


def compare(name: str, task: Task, seeds: int) -> None:
    """Print the table of one data set."""
    runs = train_all(task, seeds)
    print(f"\n| {name} | here: mean (range) | in the paper |\n|---|---|---|")
    for setting, words in {
        "seed": "trained, two seeds",
        "width": "trained, two widths",
        "network": "trained, VGG and ResNet",
        "is_random": "trained, true and random labels",
    }.items():
        print(row(words, pairs(runs, differ_in=setting), "0.9 to 0.99"))
    apart = [correlation(run.before, run.after) for run in runs.values()]
    print(row("trained and initial", apart, "-0.13 to -0.04"))
    for is_random, words in ((False, "true"), (True, "random")):
        fits = [run.after.learned for key, run in runs.items() if key.is_random == is_random]
        print(row(f"fit of the formula, {words} labels", fits, "0.90 to 0.96"))
    fits = [run.before.learned for run in runs.values()]
    print(row("fit of the formula, initial", fits, "0.1 +- 0.15"))
    chance = statistics.mean(run.before.chance for run in runs.values())
    above = statistics.mean(run.before.learned > run.before.chance for run in runs.values())
    print(f"Chance level {chance:.2f}; {above:.0%} of the initial layers are above it.")
    for is_random, words in ((False, "true"), (True, "random")):
        losses = [run.loss for key, run in runs.items() if key.is_random == is_random]
        print(f"Loss with {words} labels: {statistics.mean(losses):.2f}.")


def main() -> None:
    """Print the tables of the documentation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    for name, load in (("photographs", photographs), ("digits", digits)):
        compare(name, Task(load(), options.steps), options.seeds)


if __name__ == "__main__":
    main()

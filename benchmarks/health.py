"""Measure how often verdicts are wrong: false alarms in untrained layers, and missed faults.

    python benchmarks/health.py [--draws 1000] [--faults 500]

This prints the tables of the documentation. Each row is a shape (N, C, kH, kW) of weights.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from kernelviz_callback import kernel_health, load_probe, measure_probe
from kernelviz_callback.health.null_model import noise_limits, null_model, smooth_filters

SHAPES = [
    (8, 1, 3, 3),
    (32, 1, 3, 3),
    (32, 3, 3, 3),
    (64, 3, 3, 3),
    (6, 1, 5, 5),
    (16, 3, 4, 4),
    (32, 3, 5, 5),
    (64, 1, 7, 7),
    (64, 3, 7, 7),
    (96, 3, 11, 11),
    (192, 3, 16, 16),
    (384, 3, 16, 16),
    (64, 64, 3, 3),
]
INITIALIZATIONS: dict[str, Callable[[Tensor], object]] = {
    "PyTorch": lambda w: nn.init.kaiming_uniform_(w, a=5**0.5),
    "He uniform": nn.init.kaiming_uniform_,
    "He normal": nn.init.kaiming_normal_,
    "Xavier uniform": nn.init.xavier_uniform_,
    "Xavier normal": nn.init.xavier_normal_,
}
FAULTS = ("near-zero", "duplicate", "dominating", "frozen", "non-finite")


def layers(shape: tuple[int, ...], draws: int) -> Iterator[Tensor]:
    """Yield untrained layers, with each of the initializations in turn."""
    for i in range(draws):
        weights = torch.empty(shape)
        list(INITIALIZATIONS.values())[i % len(INITIALIZATIONS)](weights)
        yield weights


def false_alarms(shape: tuple[int, ...], draws: int) -> tuple[float, float]:
    """Examine untrained layers.

    Returns:
        Over all initializations, the largest share of layers with a false alarm, and the smallest
        share of filters with the verdict noise-like.
    """
    alarmed, noise = [], []
    for initialize in INITIALIZATIONS.values():
        raised, share = 0, []
        for _ in range(draws):
            weights = torch.empty(shape)
            initialize(weights)
            health = kernel_health(weights)
            raised += bool(health.flagged("duplicate", "dominating", "near-zero"))
            share.append(health.totals.noise_share)
        alarmed.append(raised / draws)
        noise.append(statistics.mean(share))
    return max(alarmed), min(noise)


def plant(fault: str, weights: Tensor, previous: Tensor, i: int) -> None:
    """Give filter ``i`` a fault, in place."""
    if fault == "near-zero":
        weights[i] = 0
    elif fault == "duplicate":
        copied = weights[(i + 1) % len(weights)]
        weights[i] = copied + 0.05 * copied.square().mean().sqrt() * torch.randn_like(copied)
    elif fault == "dominating":
        weights[i] *= 10
    elif fault == "frozen":
        weights[i] = previous[i]
    else:
        weights[i, 0, 0, 0] = torch.nan


def found(fault: str, shape: tuple[int, ...], draws: int) -> float:
    """Return the share of planted faults that get their verdict."""
    hits = 0
    for weights in layers(shape, draws):
        previous = weights + 1e-3 * weights.std() * torch.randn_like(weights)
        i = int(torch.randint(len(weights), ()))
        plant(fault, weights, previous, i)
        hits += i in kernel_health(weights, previous=previous).flagged(fault)
    return hits / draws


def called_noise(shape: tuple[int, ...], stripes: bool) -> float:
    """Return the share of smooth filters that get the verdict noise-like."""
    generator = torch.Generator().manual_seed(1)
    filters, wrong = 0, 0
    while filters < 1000:
        weights = smooth_filters(shape[0], *shape[1:], stripes=stripes, generator=generator)
        wrong += len(kernel_health(weights).flagged("noise-like"))
        filters += shape[0]
    return wrong / filters


def seconds(shape: tuple[int, ...], rounds: int) -> tuple[float, float, float]:
    """Measure the processor time on one thread, in seconds.

    Returns:
        The median examination with earlier weights to compare with; the median examination with
        earlier weights and a probe; the null model.
    """
    for of_shape in (null_model, noise_limits):
        of_shape.cache_clear()
    start = time.thread_time()
    null_model(shape, 1)
    null = time.thread_time() - start
    weights = torch.randn(shape)
    _, channels, *kernel = shape
    energy = measure_probe(load_probe().for_channels(channels), kernel, channels=channels)
    medians = []
    for probe in (None, energy):
        taken = []
        for _ in range(rounds + 1):
            first, previous = weights + 1e-3, weights + 1e-4
            start = time.thread_time()
            kernel_health(weights, first=first, previous=previous, energy=probe)
            taken.append(time.thread_time() - start)
        medians.append(statistics.median(taken[1:]))
    return *medians, null


def main() -> None:
    """Print the tables of the documentation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=1000, help="layers for each initialization")
    parser.add_argument("--faults", type=int, default=500, help="of each kind to plant")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)

    columns = ["shape", "false alarms", "untrained called noise", "Gabor, blob called noise"]
    print("| " + " | ".join([*columns, *(f"{fault} found" for fault in FAULTS)]) + " |")
    print("|---" * (4 + len(FAULTS)) + "|")
    for shape in SHAPES:
        alarms, noise = false_alarms(shape, options.draws)
        row = [
            "x".join(map(str, shape)),
            f"{alarms:.1%}",
            f"{noise:.1%}",
            f"{called_noise(shape, True):.1%}, {called_noise(shape, False):.1%}",
        ]
        if not null_model(shape).can_detect_noise:
            power = null_model(shape).noise_power
            row[2:] = ["withheld", f"would find {power:.0%}"]
        row += [f"{found(fault, shape, options.faults):.1%}" for fault in FAULTS]
        print("| " + " | ".join(row) + " |", flush=True)

    print("\n| processor time | examination | with a probe | null model |\n|---|---|---|---|")
    for shape, rounds in (((64, 3, 7, 7), 200), ((384, 3, 16, 16), 20), ((2048, 512, 3, 3), 5)):
        times = " | ".join(f"{x * 1e3:.1f} ms" for x in seconds(shape, rounds))
        print(f"| {'x'.join(map(str, shape))} | {times} |", flush=True)


if __name__ == "__main__":
    main()

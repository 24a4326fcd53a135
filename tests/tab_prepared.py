"""Runs of all kinds for the tests of the Kernels tab."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tab_runs import RunWriter, write_run

HOSTILE = "<script>window.hacked=1</script>"


def moving_weights(
    steps: Sequence[int], shape: tuple[int, ...], seed: int, pace: float = 0.4
) -> dict[int, Any]:
    """Make filters of different norms that change much between snapshots."""
    rng = np.random.default_rng(seed)
    strength = rng.uniform(0.5, 2, (shape[0], 1, 1, 1))
    start, drift = rng.normal(0, 0.1, (2, *shape)) * strength
    return {step: (start + pace * k * drift).astype(np.float32) for k, step in enumerate(steps)}


def picture(channels: int, height: int, width: int) -> np.ndarray:
    """Make a probe of whole levels: waves with some noise."""
    rng = np.random.default_rng(channels)
    y, x = np.mgrid[:height, :width] / 7
    waves = [np.sin(x + c) * np.cos(y * (c + 1) / 3) for c in range(channels)]
    noisy = 0.5 + 0.3 * np.stack(waves) + rng.normal(0, 0.07, (channels, height, width))
    return (np.rint(noisy.clip(0, 1) * 255) / 255).astype(np.float32)


STEPS = (0, 1, 2, 4, 8, 16, 30, 60, 100, 150, 200)
OTHER_STEPS = (0, 5, 50, 120, 300)
LONG_STEPS = range(0, 10_000, 10)
BASE = moving_weights(STEPS, (12, 3, 7, 7), 1)
DEEP = moving_weights(STEPS, (6, 5, 3, 3), 2)
GREY = moving_weights(STEPS, (8, 1, 5, 5), 3)
GROUPED = moving_weights(STEPS, (6, 2, 3, 3), 4)
LARGE = moving_weights((0, 10), (112, 24, 7, 7), 6)  # too large for 16 bits a weight
LONG = moving_weights(LONG_STEPS, (8, 3, 5, 5), 5, pace=0.01)
# In these sizes a response is as large as a tile at some zoom, so it is drawn without scaling.
PROBE = picture(3, 62, 62)
GREY_PROBE = picture(1, 64, 64)
GROUPED_PROBE = picture(6, 60, 62) - np.float32(0.3)
GROUPED_GEOMETRY = {"dilation": (2, 1), "groups": 3}
VERDICTS = {
    0: {},
    4: {3: ["near-zero"]},
    30: {3: ["near-zero", "silent"]},
    100: {3: ["near-zero"], 5: ["duplicate"], 1: ["frozen"]},
    200: {5: ["duplicate"], 1: ["frozen"]},
}


def _other() -> dict[int, Any]:
    """Make the filters of the base run in another order, without two of them, and with noise."""
    order = np.random.default_rng(7).permutation(12)[:10]
    noise = moving_weights(OTHER_STEPS, (10, 3, 7, 7), 8)
    last = BASE[STEPS[-1]][order]
    return {step: (0.6 * last + noise[step]).astype(np.float32) for step in OTHER_STEPS}


def _spoilt() -> dict[int, Any]:
    """Put a NaN into filter 2, and infinity into filter 1."""
    weights = moving_weights((0, 10), (4, 3, 5, 5), 9)
    weights[10][2, 1, 3, 4] = np.nan
    weights[10][1, 0, 0, 0] = np.inf
    return weights


OTHER = _other()
SPOILT = _spoilt()


def write_logs(folder: Path) -> None:
    """Write runs of all kinds, one of them without kernels."""
    write_run(folder / "base", {"conv1": BASE, "deep": DEEP}, probe=PROBE, verdicts=VERDICTS)
    write_run(folder / "other", OTHER, probe=PROBE, digest="0" * 64)
    write_run(folder / "grey", GREY, probe=GREY_PROBE, layer="grey")
    write_run(
        folder / "grouped", GROUPED, probe=GROUPED_PROBE, layer="dw", geometry=GROUPED_GEOMETRY
    )
    write_run(folder / "large", LARGE, probe=PROBE)
    write_run(folder / "spoilt", SPOILT, probe=PROBE)
    write_run(folder / "long", LONG, probe=PROBE)
    for name in ("base", "plain"):
        with RunWriter(folder / name) as run:
            run.scalar("loss", 0.5, 0)

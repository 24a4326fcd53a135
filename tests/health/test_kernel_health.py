"""The health of a layer as numbers to log, and in snapshot files."""

from pathlib import Path

import torch
from faulty_layer import drawn, faulty_layer

from kernelviz_callback import (
    Geometry,
    KernelHealth,
    Snapshot,
    kernel_health,
    load_snapshot,
    save_snapshot,
)


def test_the_count_of_a_verdict_that_cannot_be_given_is_left_out() -> None:
    weights = drawn(8, 3, 1, 1)
    scalars = kernel_health(weights).to_scalars()
    assert "duplicates" not in scalars
    assert "frozen" not in scalars
    assert scalars["dominating"] == scalars["dead_filters"] == scalars["non_finite"] == 0
    weights = drawn(8, 3, 5, 5)
    scalars = kernel_health(weights, previous=weights + 0.1).to_scalars()
    assert scalars["duplicates"] == scalars["frozen"] == 0
    assert kernel_health(torch.full((4, 3, 5, 5), torch.nan)).to_scalars() == {"non_finite": 4}


def test_health_is_saved_and_loaded_with_its_snapshot(tmp_path: Path) -> None:
    weights, previous = faulty_layer()
    health = kernel_health(weights, "conv1", previous=previous)
    geometry = Geometry("Conv2d", (1, 1), (0, 0), (1, 1), 1)
    snapshot = Snapshot(
        7, 0, 1.0, {"conv1": weights}, {"conv1": geometry}, health={"conv1": health}
    )
    restored = load_snapshot(save_snapshot(snapshot, tmp_path)).health["conv1"]
    assert isinstance(restored, KernelHealth)
    assert restored.to_dict() == health.to_dict()
    assert restored.verdicts == health.verdicts

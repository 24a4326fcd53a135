"""A snapshot of two layers, for the tests of snapshots."""

import torch

from kernelviz_callback import Geometry, Snapshot


def example_snapshot() -> Snapshot:
    """Make a snapshot with two layers, whose weights have NaN, infinity and -0.0 among them."""
    weights = torch.randn(4, 3, 5, 5)
    weights[0, 0, 0, :3] = torch.tensor([torch.nan, torch.inf, -0.0])
    return Snapshot(
        step=128,
        epoch=3,
        wall_time=1234.5,
        weights={"net.conv": weights, "other": torch.randn(2, 1, 1, 1)},
        geometry={
            "net.conv": Geometry("Conv2d", (2, 2), (3, 3), (1, 1), 1),
            "other": Geometry("Conv2d", (1, 1), "same", (2, 2), 1),
        },
        probe_name="chart",
        probe_digest="abc",
    )

"""Pictures of a checkpoint: with the recorded health of a snapshot, or examined now."""

from collections.abc import Mapping
from pathlib import Path

import torch

from kernelviz_callback import (
    Geometry,
    KernelHealth,
    Snapshot,
    checkpoint_pictures,
    kernel_health,
    load_probe,
    open_checkpoint,
    save_snapshot,
)
from kernelviz_callback.drawing.layer_pictures import kernel_picture

PLAIN = Geometry("Conv2d", (1, 1), (0, 0), (1, 1), 1)


def save(folder: Path, weights: torch.Tensor, health: Mapping[str, KernelHealth]) -> Path:
    snapshot = Snapshot(3, 1, 0.0, {"conv": weights}, {"conv": PLAIN}, health=health)
    return Path(str(save_snapshot(snapshot, folder)))


def test_the_health_comes_from_the_snapshot_or_is_examined(tmp_path: Path) -> None:
    weights = torch.randn(8, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    health_of_others = kernel_health(weights.flip(0) * torch.eye(8)[2][:, None, None, None], "conv")
    weights[2] = 0
    examined = kernel_health(weights, "conv")
    assert health_of_others.verdicts != examined.verdicts
    recorded = save(tmp_path / "recorded", weights, {"conv": health_of_others})
    unexamined = save(tmp_path / "unexamined", weights, {})
    torch.save({"conv.weight": weights}, tmp_path / "other.pt")
    expected = {recorded: health_of_others, unexamined: None, tmp_path / "other.pt": examined}
    probe = load_probe(None, size=64)
    for path, health in expected.items():
        when = "" if path.suffix == ".pt" else "step 3 · epoch 1"
        drawn = checkpoint_pictures(open_checkpoint(path), probe=probe)
        kernels = kernel_picture(weights, layer="conv", when=when, health=health)
        assert torch.equal(drawn["kernels"].pixels, kernels.pixels)

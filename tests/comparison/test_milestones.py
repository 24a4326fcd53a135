"""Which checkpoints are pictured, and whose weights are kept."""

import pytest
import torch
from convolutions import conv, random_weight

from kernelviz_callback.comparison.compare import Comparer, compare


@pytest.fixture
def weight() -> torch.Tensor:
    return random_weight()


def test_checkpoints_are_pictured_where_most_changed(weight: torch.Tensor) -> None:
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(8))
    still = [weight + 1e-4 * k * noise for k in range(12)]
    moving = [weight + 0.1 * k * noise for k in range(1, 9)]
    found = compare(*map(conv, still + moving))
    shown = [i for i, c in enumerate(found.columns) if c.weights is not None]
    assert shown[0] == 0
    assert shown[-1] == 19
    assert len([i for i in shown if i >= 11]) >= 6


def test_weights_are_kept_if_the_first_and_last_checkpoints_are_missing(tmp_path) -> None:
    large = torch.randn(512, 64, 16, 16, generator=torch.Generator().manual_seed(11))  # 32 MiB
    comparer = Comparer(4)
    for k in range(4):
        if k in (0, 3):
            with pytest.raises(FileNotFoundError):
                comparer.add(tmp_path / "missing.pt")
        else:
            comparer.add(conv(large * (1 + k)))
    found = comparer.result()
    assert found.first.weights is not None
    assert found.last.weights is not None

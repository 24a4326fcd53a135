"""There is a reason for each number and verdict that a layer cannot have, and for no other."""

import json

import pytest
import torch
from faulty_layer import drawn
from torch import Tensor

from kernelviz_callback import kernel_health

INCOMPLETE = {
    "one filter": drawn(1, 3, 5, 5),
    "two filters": drawn(2, 3, 5, 5),
    "one kernel": drawn(1, 1, 5, 5),
    "1x1 kernels": drawn(8, 3, 1, 1),
    "one weight": drawn(8, 1, 1, 1),
    "even size": drawn(6, 2, 4, 6),
    "small": drawn(4, 1, 3, 3),
    "constant": drawn(6, 3, 1, 1).expand(-1, -1, 5, 5),
    "grey": drawn(6, 1, 5, 5).expand(-1, 3, -1, -1),
    "zeros": torch.zeros(4, 3, 5, 5),
    "one filter that is not zero": drawn(4, 3, 5, 5) * torch.eye(4)[0, :, None, None, None],
    "NaN": torch.full((4, 3, 5, 5), torch.nan),
}


@pytest.mark.parametrize("weights", INCOMPLETE.values(), ids=INCOMPLETE.keys())
@pytest.mark.parametrize("compared", ["with nothing", "with itself", "with zeros"])
@pytest.mark.parametrize("groups", ["one group", "depthwise"])
def test_exactly_the_missing_numbers_have_a_reason(
    weights: Tensor, compared: str, groups: str
) -> None:
    other = {"with itself": weights, "with zeros": 0 * weights}.get(compared)
    health = kernel_health(
        weights, first=other, previous=other, groups=len(weights) if groups == "depthwise" else 1
    )
    described = health.to_dict()
    json.dumps(described, allow_nan=False)
    none = {"nearest": -1, "antiphase": -1}
    missing = {n for n, values in described["filters"].items() if set(values) == {none.get(n)}}
    missing |= {name for name, value in described["totals"].items() if value is None}
    given = {name for name in health.absent if not name.endswith(("verdict", "filters"))}
    assert given == missing
    assert all(3 < len(reason) < 120 for reason in health.absent.values())
    assert not missing & health.to_scalars().keys() - {"sparsity"}
    assert all(len(line) < 180 for line in repr(health).splitlines())
    for verdict in health.verdicts:
        assert f"{verdict.name} verdict" not in health.absent


def test_the_reason_fits_the_layer() -> None:
    one, flat, small = (
        kernel_health(INCOMPLETE[n]) for n in ("one filter", "1x1 kernels", "small")
    )
    for name in ("orthogonality", "duplicate verdict", "dominating verdict", "frozen verdict"):
        assert one.absent[name] == "there is one filter"
    assert "random filters of this shape" in flat.absent["duplicate verdict"]
    for name in ("autocorrelation", "frequency", "variance_entropy", "noise-like verdict"):
        assert "1x1 kernel" in flat.absent[name]
    assert "too small" in small.absent["noise-like verdict"]
    assert "too small" in small.absent["noise_share"]
    assert "3 input channels; there are 1" in small.absent["colour"]
    two = kernel_health(INCOMPLETE["two filters"])
    assert "4 times their median" in two.absent["dominating verdict"]
    assert "constant" in kernel_health(INCOMPLETE["constant"]).absent["autocorrelation"]
    assert "grey" in kernel_health(INCOMPLETE["grey"]).absent["opponent_axis"]
    assert "zero" in kernel_health(INCOMPLETE["zeros"]).absent["effective_rank"]
    for name in ("cosine_to_first", "change_from_first", "drift"):
        assert "no first snapshot" in small.absent[name]
    for name in ("cosine_to_previous", "change_from_previous", "update_ratio", "frozen verdict"):
        assert "no previous snapshot" in small.absent[name]
    for name in ("response_rms", "silent verdict"):
        assert small.absent[name] == "there is no probe"

import pytest
import torch
from hypothesis import given, strategies as st

from kernelviz_callback.drawing.colour import ZERO_LEVEL, diverging, paint_non_finite, to_levels


@given(st.floats(-(2.0**99), 2.0**99, width=32), st.floats(0, 2.0**99, width=32))
def test_levels_are_symmetric_about_zero(value: float, half_range: float) -> None:
    x, s = torch.tensor([value]), torch.tensor(half_range)
    above, below = to_levels(x, s).item(), to_levels(-x, s).item()
    assert above - ZERO_LEVEL == ZERO_LEVEL - below
    assert min(above, below) >= 1
    if half_range >= 1e-30:
        exact = max(-1.0, min(1.0, value / half_range)) * 127
        assert abs(above - ZERO_LEVEL - exact) <= 0.5001


def test_levels_of_zero_nan_infinity_and_tiny_numbers() -> None:
    assert to_levels(torch.zeros(3), torch.tensor(0.0)).tolist() == [128] * 3
    assert to_levels(torch.tensor([torch.nan, torch.inf]), torch.tensor(1.0)).tolist() == [128, 255]
    values, ends = torch.randn(4, 3, 5, 5), torch.rand(4, 1, 1, 1)
    assert torch.equal(to_levels(values, ends, is_finite=True), to_levels(values, ends))
    tiny = torch.tensor([1e-44, -1e-44])
    assert to_levels(tiny, tiny.abs().max()).dtype == torch.uint8


def test_the_diverging_map_is_blue_white_red() -> None:
    low, zero, high = diverging(torch.tensor([[1, 128, 255]], dtype=torch.uint8))[:, 0].T.tolist()
    assert low[2] > low[0]
    assert high[0] > high[2]
    assert zero == [247, 247, 247]


def test_the_diverging_map_is_blue_below_zero_and_red_above() -> None:
    ramp = diverging(torch.arange(1, 256, dtype=torch.uint8)[None])[:, 0].T.int()
    assert (ramp[:127, 2] >= ramp[:127, 0]).all()
    assert (ramp[128:, 0] >= ramp[128:, 2]).all()


def test_only_non_finite_values_are_striped() -> None:
    colours = torch.full((3, 12, 12), 50, dtype=torch.uint8)
    mask = torch.zeros(12, 12, dtype=torch.bool)
    mask[4:8, 4:8] = True
    painted = paint_non_finite(colours, mask)
    assert torch.equal(painted[:, ~mask], colours[:, ~mask])
    found = {tuple(c) for c in painted[:, mask].T.tolist()}
    assert found == {(255, 0, 255), (0, 0, 0)}
    assert torch.equal(paint_non_finite(colours, ~mask & mask), colours)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_levels_are_the_same_in_other_precisions(dtype: torch.dtype) -> None:
    levels = to_levels(torch.tensor([-1.0, 0.0, 1.0], dtype=dtype), torch.tensor(1.0, dtype=dtype))
    assert levels.tolist() == [1, 128, 255]

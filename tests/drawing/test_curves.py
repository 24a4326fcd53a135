"""Curves of 1-D filters against a slow reference that computes each pixel."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

from kernelviz_callback.drawing.curves import curve_width, draw_curves

NAN, INF = float("nan"), float("inf")


def drawn_slowly(values: list[float], end: float, height: int, base: str) -> list[list[float]]:
    """Draw a curve with one pixel for each point; a pixel has the part that the curve covers."""
    zero = height / 2 if base == "middle" else height
    room = height / 2 if base == "middle" else height
    picture = [[0.0] * len(values) for _ in range(height)]
    for x, value in enumerate(values):
        edge = zero - value / (end or 1) * room
        low, high = min(zero, edge), max(zero, edge)
        for y in range(height):
            covered = max(0.0, min(high, y + 1) - max(low, y))
            picture[y][x] = value * covered
    return picture


@settings(max_examples=60)
@given(
    st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=9),
    st.sampled_from([2, 8, 56]),
    st.sampled_from(["middle", "bottom"]),
)
def test_a_pixel_holds_the_part_that_the_curve_covers(
    values: list[float], height: int, base: str
) -> None:
    values = [abs(v) for v in values] if base == "bottom" else values
    end = max(map(abs, values))
    found = draw_curves(
        torch.tensor([[values]]), torch.tensor([end]), height=height, width=len(values), base=base
    )
    expected = torch.tensor(drawn_slowly(values, end, height, base))
    torch.testing.assert_close(found[0, 0], expected, atol=2e-5 * max(end, 1e-30), rtol=0)


def test_each_filter_is_drawn_to_its_own_scale_and_clipped_at_it() -> None:
    values = torch.tensor([[[1.0]], [[1.0]], [[4.0]]])
    found = draw_curves(values, torch.tensor([1.0, 2.0, 2.0]), height=8, width=1)
    assert [(tile > 0).sum().item() for tile in found] == [4, 2, 4]
    assert (found[:, 0, 4:] == 0).all(), "no value is below zero"


def test_points_are_enlarged_evenly() -> None:
    values = torch.tensor([[[1.0, -1.0, 0.5]]])
    end = torch.tensor([1.0])
    small = draw_curves(values, end, height=8, width=3)
    large = draw_curves(values, end, height=8, width=12)
    assert torch.equal(large, small.repeat_interleave(4, dim=3))


def test_the_largest_and_smallest_of_points_in_one_pixel_are_drawn() -> None:
    values = torch.zeros(1, 1, 1000)
    values[0, 0, 503], values[0, 0, 504] = 1.0, -0.5
    found = draw_curves(values, torch.tensor([1.0]), height=8, width=100)[0, 0]
    assert found[:4, 50].tolist() == [1.0] * 4
    assert found[4:, 50].tolist() == [-0.5, -0.5, 0, 0]
    assert found.count_nonzero() == 6


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_non_finite_point_fills_its_column_and_no_other(bad: float) -> None:
    values = torch.tensor([[[1.0, bad, -1.0]]])
    found = draw_curves(values, torch.tensor([1.0]), height=4, width=6)[0, 0]
    assert found.isnan().all(0).tolist() == [False, False, True, True, False, False]
    assert found.isfinite().all(0).tolist() == [True, True, False, False, True, True]


def test_a_filter_of_zeros_is_flat() -> None:
    assert not draw_curves(torch.zeros(1, 1, 5), torch.zeros(1), height=4, width=5).any()


@pytest.mark.parametrize("points", [1, 2, 3, 9, 31, 80, 167, 168, 169, 4000])
def test_the_width_of_a_curve_is_one_to_three_times_its_height(points: int) -> None:
    width = curve_width(points, 56)
    assert 56 <= width <= 168
    assert width % points == 0 or points > 168

"""The arrangement of a grid: columns, enlargement, and the size of responses."""

from math import ceil, sqrt

import pytest
from hypothesis import given, settings, strategies as st

from kernelviz_callback.drawing.arrangement import (
    GRID_SIDE,
    GRID_SLACK,
    LARGEST_SIDE,
    SMALLEST_CURVE,
    SMALLEST_TILE,
    arrange_matrix,
    arrange_tiles,
    curve_height,
    fitting_shrink,
    square_columns,
)
from kernelviz_callback.drawing.curves import curve_width


@settings(max_examples=200)
@given(
    st.integers(1, 2048), st.sampled_from([1, 2, 3, 16]), st.integers(8, 700), st.integers(8, 700)
)
def test_shrunk_responses_fit_the_screen_or_are_as_small_as_allowed(n, pictures, h, w) -> None:
    shrink = fitting_shrink(n, pictures, h, w)
    wide = w * pictures
    columns = min(n, max(1, ceil(sqrt(n * h / wide) - 1e-9)))
    side = max(columns * wide, ceil(n / columns) * h)
    assert side / shrink <= LARGEST_SIDE or shrink == min(h, w)
    if side / shrink > GRID_SIDE + GRID_SLACK:
        assert min(h, w) // (shrink + 1) < SMALLEST_TILE
    if shrink > 1 and min(h, w) // shrink < SMALLEST_TILE:
        assert side > (shrink - 1) * LARGEST_SIDE, "no smaller than necessary"


@given(st.integers(1, 2048), st.integers(1, 500), st.integers(1, 500))
def test_a_grid_is_about_square(filters: int, height: int, width: int) -> None:
    columns = square_columns(filters, height, width)
    assert 1 <= columns <= filters
    # The fewest columns at which the grid, if it had no empty places, is no higher than wide.
    assert columns == filters or columns**2 * width >= filters * height * (1 - 1e-6)
    assert columns == 1 or (columns - 1) ** 2 * width < filters * height


@given(st.integers(1, 600), st.integers(1, 40), st.integers(1, 40))
def test_tiles_are_enlarged_as_far_as_the_screen_has_room(
    filters: int, height: int, width: int
) -> None:
    columns, zoom = arrange_tiles(filters, height, width, largest_zoom=20)
    side = max(columns * width, ceil(filters / columns) * height)
    assert 1 <= zoom <= 20
    assert side * zoom <= GRID_SIDE or zoom == 1
    assert side * (zoom + 1) > GRID_SIDE or zoom == 20


@pytest.mark.parametrize(("filters", "width"), [(16, 64), (64, 64), (256, 64), (2048, 128)])
def test_the_rows_of_a_matrix_fit_the_screen(filters: int, width: int) -> None:
    columns, cell = arrange_matrix(filters, width, between=1)
    assert columns * cell * width <= GRID_SIDE or cell == 1
    assert ceil(filters / columns) * (cell + 1) <= GRID_SIDE or cell == 1


@pytest.mark.parametrize("filters", [1, 64, 512, 768, 5000])
@pytest.mark.parametrize("points", [1, 9, 128, 1000])
def test_curves_are_as_high_as_their_grid_has_room(filters: int, points: int) -> None:
    height = curve_height(filters, 1, points, largest=56)
    assert SMALLEST_CURVE <= height <= 56
    assert height % 2 == 0
    columns = square_columns(filters, height, curve_width(points, height) + 2)
    side = max(columns * (curve_width(points, height) + 2), ceil(filters / columns) * (height + 2))
    assert side <= LARGEST_SIDE or height == SMALLEST_CURVE

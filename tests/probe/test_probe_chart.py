"""The chart is repeatable, and each of its quarters has the responses that it is made for."""

import pytest
import torch

from kernelviz_callback import channel_responses, make_chart


@pytest.mark.parametrize("size", [16, 17, 31, 32, 64, 100, 223, 224, 513])
def test_a_chart_of_any_size_has_8_bit_values_and_is_repeatable(size) -> None:
    chart = make_chart(size)
    assert chart.shape == (3, size, size)
    assert chart.dtype == torch.float32
    assert torch.equal((chart * 255).round() / 255, chart)
    assert chart.min() == 0
    assert chart.max() == 1
    assert torch.equal(chart, make_chart(size))


def test_the_random_state_does_not_change() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    make_chart(64)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_zone_plate_has_every_orientation() -> None:
    plate = make_chart(256)[:1, :128, :128]
    derivative = torch.tensor([[1.0, 0.0, -1.0]])[None, None]
    across = channel_responses(plate, derivative)[0, 0].abs()
    down = channel_responses(plate, derivative.mT)[0, 0].abs()
    # A horizontal derivative responds left and right of the middle, a vertical one above and below.
    assert across[64, 90:110].mean() > 5 * across[90:110, 63].mean()
    assert down[90:110, 64].mean() > 5 * down[63, 90:110].mean()


def test_a_colour_opponent_filter_has_opposite_signs_in_the_hue_wheel() -> None:
    wheel = make_chart(256)[:, 128:, :128]
    red_cyan = wheel[0] - wheel[1:].mean(0)
    assert red_cyan[64, 110] > 0.5
    assert red_cyan[64, 18] < -0.5


def test_the_response_to_the_dot_is_the_rotated_kernel() -> None:
    chart = make_chart(256)
    quarter = chart[:, 128:, 128:]
    y, x = 64 // 4, 64 + 2 * 64 // 3
    kernel = torch.arange(9.0).view(1, 1, 3, 3)
    around = quarter[:1, y - 2 : y + 3, x - 2 : x + 3] - quarter[0, 0, 90]
    found = channel_responses(around, kernel)[0, 0]
    torch.testing.assert_close(found, (1 - quarter[0, 0, 90]) * kernel[0, 0].flip(0, 1))


def test_a_chart_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 16 pixels, found size=8"):
        make_chart(8)

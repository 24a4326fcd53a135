"""Conditions on the numbers of a comparison."""

import pytest
import torch
from convolutions import conv, random_weight

from kernelviz_callback.comparison.compare import compare
from kernelviz_callback.comparison.fail_conditions import NUMBERS, parse_condition


@pytest.fixture
def weight() -> torch.Tensor:
    return random_weight()


def test_conditions_can_use_every_number(weight: torch.Tensor) -> None:
    found = compare(conv(weight), conv(weight))
    assert set(found.numbers()) <= set(NUMBERS)
    assert set(NUMBERS) - set(found.numbers()) <= {"frozen"}
    assert not parse_condition("drift>0").holds(found.numbers())
    assert parse_condition(" mean_cosine >= 0.99").holds(found.numbers())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("drift", "such as drift>0.5"),
        ("drift>", "such as drift>0.5"),
        ("dirft>1", "unknown number 'dirft'"),
        ("drift>much", "expected a number after >"),
    ],
)
def test_invalid_conditions_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_condition(text)


def test_a_condition_on_a_missing_number_is_an_error() -> None:
    with pytest.raises(ValueError, match="has no drift"):
        parse_condition("drift>0.5").holds({"drift": float("nan")})

"""The table of a comparison in the terminal, read back from the printed text."""

import io
import re
from pathlib import Path

import pytest
import torch
from convolutions import conv, random_weight
from rich.console import Console

from kernelviz_callback.comparison.compare import compare
from kernelviz_callback.comparison.comparison import Comparison
from kernelviz_callback.comparison.table import comparison_table


def rows_of(found: Comparison, **options: int) -> list[list[str]]:
    """Print the table, and split each line at its columns."""
    text = io.StringIO()
    Console(file=text, width=200).print(comparison_table(found, **options))
    return [re.split(r"\s{2,}", line.strip()) for line in text.getvalue().splitlines()]


def filter_rows(found: Comparison, **options: int) -> dict[str, list[str]]:
    """Return the rows of filters by the number of the filter."""
    rows = rows_of(found, **options)
    start = next(i for i, row in enumerate(rows) if row[0] == "filter")
    return {row[0]: row for row in rows[start + 1 :]}


def short(value: object) -> str:
    return f"{float(value):.3g}"  # type: ignore[arg-type]


@pytest.fixture
def weight() -> torch.Tensor:
    return random_weight()


def test_a_checkpoint_has_a_row_with_its_step_numbers_and_verdicts(
    weight: torch.Tensor, tmp_path: Path
) -> None:
    later = weight * 1.1
    later[2] = 0
    for name, step, weights in (("a", 0, weight), ("b", 12_345, later)):
        content = {"state_dict": {"conv.weight": weights}, "global_step": step}
        torch.save(content, tmp_path / f"{name}.ckpt")
    found = compare(tmp_path / "a.ckpt", tmp_path / "b.ckpt")
    rows = {row[0]: row for row in rows_of(found)}
    numbers = found.numbers()
    assert rows["a"][1:3] == ["0", "-"]
    assert rows["b"] == [
        "b",
        "12,345",
        *(short(numbers[name]) for name in ("drift", "mean_cosine", "mean_correlation")),
        "1 near-zero, 15 noise-like",
    ]
    assert rows["a"][-1] == "16 noise-like"


def test_the_filters_that_changed_most_are_listed_first(weight: torch.Tensor) -> None:
    found = compare(conv(weight), conv(weight * torch.linspace(1, 3, 16)[:, None, None, None]))
    assert list(filter_rows(found)) == [str(i) for i in range(15, 3, -1)]
    assert list(filter_rows(found, most=2)) == ["15", "14"]
    assert ["the 2 that changed most in Conv2d (2)"] in rows_of(found, most=2)
    last = found.last
    values = last.change_from_first[15], last.cosine_to_first[15], last.correlation[15]
    assert filter_rows(found)["15"][1:4] == [short(value) for value in values]


def test_the_numbers_of_a_filter_are_its_change_cosine_and_correlation(
    weight: torch.Tensor,
) -> None:
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    last = (found := compare(conv(weight), conv(weight + 0.5 * noise))).last
    for i, row in filter_rows(found).items():
        values = last.change_from_first, last.cosine_to_first, last.correlation
        assert row[1:4] == [short(value[int(i)]) for value in values]


def test_verdicts_that_came_went_or_stayed_have_their_own_signs(weight: torch.Tensor) -> None:
    before, after = weight.clone(), 1.1 * weight
    before[[2, 7]] = 0
    after[[4, 7]] = 0
    rows = filter_rows(compare(conv(before), conv(after), match="index"), most=16)
    assert rows["4"][-1] == "+near-zero -noise-like"
    assert rows["2"][-1] == "+noise-like -near-zero"
    assert rows["7"][-1] == "+frozen near-zero"
    assert rows["5"][-1] == "noise-like"


def test_partners_are_listed_if_a_filter_has_another_number(weight: torch.Tensor) -> None:
    rows = filter_rows(compare(conv(weight), conv(weight[:15].flip(0))), most=16)
    assert rows["15"][:5] == ["15", "-", "-", "-", "-"], "a filter without a partner"
    assert {name: row[1] for name, row in rows.items() if name != "15"} == {
        str(i): str(14 - i) for i in range(15)
    }
    assert ["filter", "change"] in [
        row[:2] for row in rows_of(compare(conv(weight), conv(weight * 2)))
    ]

"""The content of the page of a comparison."""

import json
import re
from dataclasses import replace

import pytest
from comparison_pages import HOSTILE, data_of, run_of_four, trained_layers, with_hostile_name
from torch import nn

from kernelviz_callback.comparison.compare import compare
from kernelviz_callback.comparison.comparison import FILTER_NUMBERS, Comparison
from kernelviz_callback.comparison.page import MOST_CHANNELS, MOST_WEIGHTS, comparison_page


@pytest.fixture(scope="module")
def run() -> Comparison:
    return run_of_four()


@pytest.fixture(scope="module")
def planes() -> Comparison:
    return compare(*trained_layers(2, 20, 3, 3))


def test_the_page_needs_no_other_file(run: Comparison) -> None:
    page = comparison_page(run)
    linked = re.findall(r"""(?:src|href|action)\s*=\s*["']([^"']*)""", page)
    assert linked
    assert all(link.startswith(("#", "data:")) for link in linked)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(|import\s*\(", page)
    assert "innerHTML" not in page
    assert comparison_page(run) == page


def test_the_page_has_the_numbers_of_the_comparison(run: Comparison) -> None:
    data, known = data_of(comparison_page(run)), run.to_dict()
    assert data["order"] == run.most_changed()
    assert data["statements"] == known["statements"]
    for entry, expected in zip(data["checkpoints"], known["checkpoints"], strict=True):
        for name in ("name", "label", "layer", "step", "epoch", "shape", "match", "numbers"):
            assert entry[name] == expected[name]
        for name in FILTER_NUMBERS:
            values = [row[name] for row in expected["filters"]]
            assert entry["filters"][name] == [
                None if x is None else pytest.approx(x, rel=1e-3) for x in values
            ]


@pytest.mark.parametrize("where", ["layer", "label", "statement", "reason"])
def test_no_name_can_end_the_script(run: Comparison, where: str) -> None:
    page = comparison_page(with_hostile_name(run, where))
    assert "<script>alert" not in page
    assert page.count("<script") == comparison_page(run).count("<script")
    assert HOSTILE in json.dumps(data_of(page))


def test_a_file_name_with_invalid_bytes_is_kept(run: Comparison) -> None:
    column = replace(run.first, layer="caf\udce9", label="\udce9")
    page = comparison_page(replace(run, columns=(column, *run.columns[1:])))
    assert page.encode()
    assert data_of(page)["layer"] == "caf\udce9"


def test_page_of_512_filters_is_small() -> None:
    page = comparison_page(compare(*trained_layers(8, 3, 7, 7, filters=512)))
    assert len(page.encode()) <= 1_500_000


def test_many_channels_of_one_weight_are_cut_with_a_note() -> None:
    layers = [nn.Conv2d(20, 12, 1), nn.Conv2d(20, 12, 1)]
    data = data_of(comparison_page(compare(*layers, match="index")))
    assert {plate["planes"] for plate in data["plates"]} == {MOST_CHANNELS}
    assert data["notes"] == [f"Of 20 input channels, tiles show the first {MOST_CHANNELS}."]


def test_many_channels_are_mixed_with_a_note(planes: Comparison) -> None:
    data = data_of(comparison_page(planes))
    assert [(plate["planes"], plate["mixed"]) for plate in data["plates"]] == [(1, 20)] * 3
    [note] = data["notes"]
    assert note.startswith("Each tile is one mixture of 20 input channels")


def test_the_most_changed_filters_of_a_huge_layer_are_pictured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kernelviz_callback.comparison.page.MOST_WEIGHTS", 5 * 3 * 75 + 1)
    data = data_of(comparison_page(compare(*trained_layers(2, 3, 5, 5))))
    assert data["tiled"] == 5
    assert len(data["plates"][0]["own"]) == 5
    assert "5 filters that changed most" in data["notes"][0]
    assert MOST_WEIGHTS > 512 * 9 * 147


def test_without_weights_there_are_numbers(run: Comparison) -> None:
    bare = replace(run, columns=tuple(replace(c, weights=None) for c in run.columns))
    data = data_of(comparison_page(bare))
    assert (data["plates"], data["tiled"]) == ([], 0)
    half = replace(run, columns=(*run.columns[:-1], replace(run.last, weights=None)))
    assert any(
        "The last that is pictured" in note for note in data_of(comparison_page(half))["notes"]
    )

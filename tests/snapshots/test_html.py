"""Snapshots as HTML in a notebook."""

from dataclasses import replace

import pytest
from example_snapshot import example_snapshot

from kernelviz_callback import Snapshot


@pytest.fixture
def snapshot() -> Snapshot:
    return example_snapshot()


def test_the_kernels_of_at_most_four_layers_are_shown(snapshot: Snapshot) -> None:
    html = snapshot._repr_html_()
    assert html.count("<img") == 2
    assert "kernels of net.conv, step 128 · epoch 3" in html
    assert "more layers" not in html
    names = [f"conv{i}" for i in range(6)]
    many = replace(
        snapshot,
        weights=dict.fromkeys(names, snapshot.weights["other"]),
        geometry=dict.fromkeys(names, snapshot.geometry["other"]),
    )
    assert many._repr_html_().count("<img") == 4
    assert "and 2 more layers" in many._repr_html_()

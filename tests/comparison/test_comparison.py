"""The result of a comparison: verdicts, numbers, rows and chart."""

import json

import pytest
import torch
from convolutions import conv, random_weight

from kernelviz_callback import KernelVizCallback
from kernelviz_callback.comparison.compare import compare
from kernelviz_callback.comparison.comparison import Comparison
from kernelviz_callback.comparison.milestones import MOST_PICTURED


@pytest.fixture
def weight() -> torch.Tensor:
    return random_weight()


def test_new_and_gone_verdicts_are_listed(weight: torch.Tensor) -> None:
    sick, cured = weight.clone(), weight.clone()
    sick[2] = 0
    cured[5] = cured[9]
    found = compare(conv(sick), conv(cured), match="index")
    assert found.gone_verdicts()[2] >= {"near-zero"}
    assert "duplicate" in found.new_verdicts()[5]
    assert "duplicate" in found.new_verdicts()[9]
    assert found.numbers()["duplicates"] == 2
    assert found.numbers()["new_verdicts"] >= 2


def test_a_non_finite_filter_has_no_numbers_and_the_others_do(weight: torch.Tensor) -> None:
    broken = weight.clone()
    broken[3] = torch.nan
    last = compare(conv(weight), conv(broken)).last
    assert last.change_from_first[3].isnan()
    assert last.change_from_first[4] == 0
    json.dumps(compare(conv(weight), conv(broken)).to_dict(), allow_nan=False)


def test_reading_a_result_does_not_change_it(weight: torch.Tensor) -> None:
    found = compare(conv(weight), conv(weight * 2))
    assert isinstance(found, Comparison)
    before = found.to_dict()
    found.plot()
    found.most_changed()
    assert found.to_dict() == before


def test_all_snapshots_of_a_run_folder_are_compared(fit) -> None:
    trainer = fit(KernelVizCallback(every_n_train_steps=1))
    found = compare(trainer.log_dir)
    assert [column.step for column in found.columns] == list(range(9))
    assert len([c for c in found.columns if c.weights is not None]) == MOST_PICTURED
    assert found.first.weights is not None
    assert found.last.weights is not None
    assert "drift" in repr(found)
    rows = found.to_rows()
    assert len(rows) == 9 * 8
    assert rows[-1]["step"] == 8
    described = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert described["schema_version"] == 1
    assert len(described["checkpoints"][4]["filters"]) == 8


@pytest.mark.parametrize("other", [None, "permuted", "shape"])
def test_the_chart_lists_every_filter(weight: torch.Tensor, other: str | None) -> None:
    later = {None: weight * 1.1, "permuted": weight.flip(0), "shape": weight[:, :, 1:, 1:]}[other]
    figure, axes = compare(conv(weight), conv(later)).plot()
    assert axes.shape == (2,)
    figure.canvas.draw()
    labels = [label.get_text() for label in axes[1].get_yticklabels()]
    assert len(labels) == 16
    assert set(labels) == set(map(str, range(16)))

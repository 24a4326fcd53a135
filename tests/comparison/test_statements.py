"""The sentences above a comparison are true, and each is there once."""

from pathlib import Path

import pytest
import torch
from convolutions import conv, random_weight
from torch import nn

from kernelviz_callback.comparison.compare import compare

BY_INDEX = "Filters with the same index are compared"


@pytest.fixture
def weight() -> torch.Tensor:
    return random_weight()


def test_a_match_that_the_user_chose_is_not_explained(weight: torch.Tensor) -> None:
    other = conv(weight.flip(0))
    assert "as after a separate training" in " ".join(compare(conv(weight), other).statements)
    [statement] = compare(conv(weight), other, match="weights").statements
    assert statement.startswith("Conv2d (2): each filter was matched with the filter whose weights")
    [statement] = compare(conv(weight), other, match="index").statements
    assert statement == f"{BY_INDEX}: as you chose."


def test_equal_indices_are_said_only_if_they_hold_for_all_checkpoints(
    weight: torch.Tensor,
) -> None:
    found = compare(conv(weight), conv(weight * 1.1), conv(weight.flip(0)))
    assert [column.match for column in found.columns] == ["index", "index", "weights"]
    assert BY_INDEX not in " ".join(found.statements)


def test_one_training_is_not_claimed_if_the_order_is_not_known(weight: torch.Tensor) -> None:
    statements = compare(conv(weight), conv(weight * 0)).statements
    assert any("filter order could not be verified" in statement for statement in statements)
    assert BY_INDEX not in " ".join(statements)


def test_layers_with_different_names_are_named(weight: torch.Tensor, tmp_path: Path) -> None:
    for name, layer in (("a", "conv1"), ("b", "stem")):
        torch.save({f"{layer}.weight": weight}, tmp_path / f"{name}.pt")
    names = tmp_path / "a.pt", tmp_path / "b.pt"
    assert "The layer is conv1 in a and stem in b." in compare(*names).statements
    assert "The layer is" not in " ".join(compare(names[0], names[0]).statements)


def test_a_note_about_the_first_checkpoint_names_it(weight: torch.Tensor) -> None:
    network = nn.Sequential(nn.ConvTranspose2d(3, 3, 5), conv(weight))
    statements = compare(network, conv(weight * 2)).statements
    assert [s for s in statements if "cannot be shown" in s] == [
        s for s in statements if s.startswith("Sequential: 0 cannot be shown, ")
    ]
    assert any("cannot be shown" in statement for statement in statements)


def test_partners_are_as_similar_as_the_statement_says(weight: torch.Tensor) -> None:
    found = compare(conv(weight), conv(weight.flip(0)), match="responses")
    alike = found.last.responses_alike
    assert alike is not None
    [statement] = [s for s in found.statements if "whose response is most correlated" in s]
    assert statement.endswith(
        f"Mean correlation of partners {alike.mean:.2f}; random filters reach {alike.chance:.2f}."
    )
    found = compare(conv(weight), conv(weight.flip(0)))
    alike = found.last.weights_alike
    assert alike is not None
    assert found.statements[0].endswith(
        f"Mean cosine of partners {alike.mean:.2f}; random filters reach {alike.chance:.2f}."
    )

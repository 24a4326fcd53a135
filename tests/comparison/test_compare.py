"""Compare checkpoints whose differences are known."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from convolutions import conv, conv_of, random_weight
from rich.console import Console
from torch import nn

from kernelviz_callback.comparison.compare import compare
from kernelviz_callback.comparison.labels import distinct_labels
from kernelviz_callback.comparison.table import comparison_table


@pytest.fixture
def weight() -> torch.Tensor:
    return random_weight()


def test_the_numbers_of_one_training_agree_with_numpy(weight: torch.Tensor) -> None:
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    through = [weight, weight + 0.1 * noise, weight + 0.4 * noise]
    found = compare(*map(conv, through))
    assert [column.match for column in found.columns] == ["index"] * 3
    flat = [w.double().flatten(1).numpy() for w in through]
    for k, column in enumerate(found.columns):
        lengths = np.linalg.norm(flat[0], axis=1)
        change = np.linalg.norm(flat[k] - flat[0], axis=1) / lengths
        cosine = (flat[k] * flat[0]).sum(1) / np.linalg.norm(flat[k], axis=1) / lengths
        if k:
            assert np.allclose(column.change_from_first.numpy(), change, atol=1e-5)
            assert np.allclose(column.cosine_to_first.numpy(), cosine, atol=1e-5)
            drift = np.linalg.norm(flat[k] - flat[0]) / np.linalg.norm(flat[0])
            assert column.drift == pytest.approx(drift, abs=1e-5)
            before = np.linalg.norm(flat[k] - flat[k - 1], axis=1)
            before /= np.linalg.norm(flat[k - 1], axis=1)
            assert np.allclose(column.change_from_previous.numpy(), before, atol=1e-5)
        else:
            assert column.change_from_first.isnan().all()
    order = (through[2] - weight).flatten(1).norm(dim=1) / weight.flatten(1).norm(dim=1)
    assert found.most_changed() == order.argsort(descending=True).tolist()
    assert "similar to the first one or to the one before it" in found.statements[0]


def test_filters_in_another_order_are_matched_by_weights(weight: torch.Tensor) -> None:
    order = torch.randperm(16, generator=torch.Generator().manual_seed(2))
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))
    found = compare(conv(weight), conv((weight + 0.2 * noise)[order]))
    last = found.last
    assert last.match == "weights"
    assert torch.equal(order[last.partner], torch.arange(16))
    assert torch.equal(last.matched_weights(), weight + 0.2 * noise)
    assert last.weights_alike is not None
    assert last.weights_alike.mean > 0.9 > 2 * last.weights_alike.chance
    assert "random filters reach" in " ".join(found.statements)


def test_a_later_checkpoint_of_a_training_keeps_the_matched_order(weight: torch.Tensor) -> None:
    order = torch.randperm(16, generator=torch.Generator().manual_seed(4))
    generator = torch.Generator().manual_seed(5)
    apart = torch.randn(weight.shape, generator=generator)
    found = compare(conv(weight), conv(weight[order]), conv(0.3 * weight[order] + apart))
    assert found.columns[1].match == found.columns[2].match == "weights"
    assert torch.equal(found.columns[1].partner, found.columns[2].partner)


def test_a_separate_training_is_as_similar_as_chance(weight: torch.Tensor) -> None:
    other = torch.randn(weight.shape, generator=torch.Generator().manual_seed(6))
    last = compare(conv(weight), conv(other)).last
    assert last.weights_alike is not None
    assert last.responses_alike is not None
    assert last.weights_alike.mean == pytest.approx(last.weights_alike.chance, abs=0.05)
    assert last.responses_alike.mean == pytest.approx(last.responses_alike.chance, abs=0.1)


def test_layers_of_different_shapes_are_compared_by_responses_only(weight: torch.Tensor) -> None:
    order = torch.randperm(16, generator=torch.Generator().manual_seed(7))
    larger = nn.functional.pad(weight[order][:12], (1, 1, 1, 1))
    found = compare(conv(weight), conv(larger))
    last = found.last
    assert last.match == "responses"
    expected = torch.full((16,), -1)
    expected[order[:12]] = torch.arange(12)
    assert torch.equal(last.partner, expected)
    assert last.cosine_to_first.isnan().all()
    assert np.isnan(last.drift)
    assert last.weights_alike is None
    assert last.correlation[expected >= 0].min() > 0.999
    assert last.correlation[expected < 0].isnan().all()
    statements = " ".join(found.statements)
    assert "no cosine, change or drift" in statements
    assert "4 filters of Conv2d have no partner" in statements
    assert found.most_changed()[:4] == sorted((expected < 0).nonzero().flatten().tolist())


@pytest.mark.parametrize(
    ("kept", "said"),
    [(15, "1 filter of Conv2d has no partner here"), (14, "2 filters of Conv2d have no")],
)
def test_fewer_filters_are_not_called_another_order(
    weight: torch.Tensor, kept: int, said: str
) -> None:
    found = compare(conv(weight), conv(weight[:kept]))
    assert torch.equal(found.last.partner[:kept], torch.arange(kept))
    statements = " ".join(found.statements)
    assert "order" not in statements
    assert f"it has {kept} filters and Conv2d has 16; each filter was matched" in statements
    assert said in statements
    more = " ".join(compare(conv(weight[:kept]), conv(weight)).statements)
    verb = "has" if kept == 15 else "have"
    assert f"{16 - kept} of its filters {verb} no partner in Conv2d." in more
    assert "order" not in more


def test_a_single_filter_is_counted_in_the_singular() -> None:
    found = compare(nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3))
    texts = io.StringIO()
    Console(file=texts, width=120).print(comparison_table(found))
    assert texts.getvalue().startswith("Conv2d: 1 filter 1x3x3")
    assert repr(found.last.health).startswith("KernelHealth of Conv2d: 1 filter 1x3x3")


def test_the_match_argument_is_obeyed_or_refused(weight: torch.Tensor) -> None:
    order = torch.arange(15, -1, -1)
    pair = conv(weight), conv(weight[order])
    asked = compare(*pair, match="index")
    assert torch.equal(asked.last.partner, torch.arange(16))
    assert "one training" not in " ".join(asked.statements)
    assert torch.equal(compare(*pair, match="weights").last.partner, order)
    assert torch.equal(compare(*pair, match="responses").last.partner, order)
    fewer = conv(weight[:8])
    assert compare(pair[0], fewer, match="weights").last.match == "weights"
    with pytest.raises(ValueError, match='match="responses"'):
        compare(pair[0], fewer, match="index")
    with pytest.raises(ValueError, match="found 1"):
        compare(pair[0])


@pytest.mark.parametrize("what", ["nan", "zero", "constant", "points", "one"])
def test_the_order_is_assumed_unchanged_if_it_cannot_be_verified(what: str) -> None:
    generator = torch.Generator().manual_seed(9)
    first = torch.randn(16, 3, 5, 5, generator=generator)
    later = {
        "nan": first * torch.nan,
        "zero": first * 0,
        "constant": torch.ones_like(first),
        "points": first,
        "one": torch.randn(1, 3, 5, 5, generator=generator),
    }[what]
    first = {
        "constant": torch.ones_like(first),
        "points": first[:, :1, :1, :1],
        "one": torch.randn(1, 3, 5, 5, generator=generator),
    }.get(what, first)
    later = 1.1 * first if what == "points" else later
    found = compare(conv(first), conv(later))
    assert found.last.match == "index"
    statements = " ".join(found.statements)
    assert "another order" not in statements
    assert ("could not be verified" in statements) == (what != "points")


def test_noise_does_not_swap_near_duplicates_in_a_small_layer() -> None:
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        first = torch.randn(6, 3, 5, 5, generator=generator)
        first[4] = first[1] + 0.01 * torch.randn(3, 5, 5, generator=generator)
        later = first + 0.05 * torch.randn(first.shape, generator=generator)
        assert compare(conv(first), conv(later)).last.match == "index"


def test_a_geometry_that_one_file_states_is_used_for_both(tmp_path, weight: torch.Tensor) -> None:
    layer = conv(weight)
    layer.dilation = (4, 4)
    torch.save({"weight": weight}, tmp_path / "a.pt")
    for pair in ((layer, tmp_path / "a.pt"), (tmp_path / "a.pt", layer)):
        assert compare(*pair).last.correlation.min() > 0.999


def test_weights_are_compared_if_the_probe_does_not_fit(weight: torch.Tensor) -> None:
    wide = torch.randn(8, 64, 3, 3, generator=torch.Generator().manual_seed(10))
    photo = torch.rand(3, 40, 40)
    found = compare(conv(wide), conv(1.5 * wide), probe=photo)
    assert found.last.drift == pytest.approx(0.5)
    assert found.last.correlation.isnan().all()
    assert "responses cannot be compared" in " ".join(found.statements)
    assert "64 input channels" in found.last.health.absent["response_rms"]
    with pytest.raises(ValueError, match="cannot be compared at all"):
        compare(conv(wide), conv(wide[:, :, :2, :2]), probe=photo)


def test_labels_are_short_and_distinct() -> None:
    names = ["a/b/step=1.ckpt", "a/b/step=2.ckpt", "a/c/step=1.ckpt"]
    assert distinct_labels(names) == ["b/step=1", "b/step=2", "c/step=1"]
    assert distinct_labels(["x.pt", "y.ckpt"]) == ["x.pt", "y.ckpt"]
    assert len(set(distinct_labels(["x.pt", "x.pt", "x.pt"]))) == 3


def test_labels_have_no_folders_that_every_run_has() -> None:
    files = [f"logs/version_{n}/checkpoints/epoch=4-step=145.ckpt" for n in (0, 1)]
    shown = ["version_0/epoch=4-step=145", "version_1/epoch=4-step=145"]
    assert distinct_labels(files) == shown
    snapshot = "logs/version_0/kernelviz/step-00000001.safetensors"
    assert distinct_labels([files[0], snapshot])[1] == "step-00000001.safetensors"
    same = ["a/kernelviz/x.pt", "a/checkpoints/x.pt"]
    assert distinct_labels(same) == ["kernelviz/x", "checkpoints/x"]


def test_a_label_stays_on_one_line_of_a_narrow_terminal(tmp_path: Path) -> None:
    paths = [tmp_path / f"version_{n}" / "checkpoints" / "epoch=4-step=145.ckpt" for n in (0, 1)]
    for path in paths:
        path.parent.mkdir(parents=True)
        torch.save({"conv.weight": random_weight()}, path)
    texts = io.StringIO()
    Console(file=texts, width=80).print(comparison_table(compare(*paths)))
    lines = texts.getvalue().splitlines()
    for label in ("version_0/epoch=4-step=145", "version_1/epoch=4-step=145"):
        assert any(line.startswith(label) for line in lines)


def test_equal_statements_about_several_checkpoints_are_made_once() -> None:
    layers = []
    for seed in range(4):
        torch.manual_seed(seed)
        layers.append(nn.Conv2d(3, 16, 5))
    found = compare(*layers)
    [statement] = found.statements
    assert statement.startswith("Conv2d (2) and 2 more: filters with the same index")
    assert "no more similar to them than other filters" in statement
    alike = [c.weights_alike for c in found.columns[1:]]
    means = sorted(each.mean for each in alike)
    assert f"Mean cosine of partners {means[0]:.2f} to {means[-1]:.2f};" in statement


@pytest.mark.parametrize("shape", [(16, 2, 31), (16, 3, 3, 5, 4)])
def test_layers_with_1d_and_3d_kernels_are_compared(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(8)
    first, noise = (torch.randn(shape, generator=generator) for _ in range(2))
    order = torch.randperm(16, generator=generator)
    later = first + 0.3 * noise
    later[5] = 0
    found = compare(conv_of(first), conv_of(later))
    assert found.last.match == "index"
    assert "similar to the first one or to the one before it" in found.statements[0]
    one, two = (w.double().flatten(1).numpy() for w in (first, later))
    change = np.linalg.norm(two - one, axis=1) / np.linalg.norm(one, axis=1)
    assert np.allclose(found.last.change_from_first.numpy(), change, atol=1e-5)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    cosine = np.delete((one * two).sum(1), 5) / np.delete(lengths, 5)
    assert np.allclose(np.delete(found.last.cosine_to_first.numpy(), 5), cosine, atol=1e-5)
    assert found.last.drift == pytest.approx(np.linalg.norm(two - one) / np.linalg.norm(one))
    assert found.new_verdicts()[5] == {"near-zero"}
    assert found.last.shape == shape
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["checkpoints"][1]["shape"] == [
        *shape
    ]

    later = first + 0.3 * noise
    fewer = compare(conv_of(first), conv_of(later[order][:12])).last
    assert fewer.match == "weights"
    paired = fewer.partner >= 0
    matched = fewer.matched_weights()
    assert matched is not None
    assert torch.equal(matched[paired], later[paired])
    assert matched[~paired].isnan().all()
    assert int(paired.sum()) == 12


def test_1d_layers_have_no_responses_and_one_statement_says_so() -> None:
    generator = torch.Generator().manual_seed(9)
    first = torch.randn(8, 1, 31, generator=generator)
    found = compare(conv_of(first), conv_of(first + 0.1), conv_of(first + 0.2))
    statements = [s for s in found.statements if "signals" in s]
    reason = "responses cannot be compared: a 1-D convolution reads signals, not images."
    assert statements == [f"Every checkpoint: {reason}"]
    assert found.last.correlation.isnan().all()
    assert found.last.responses_alike is None
    for match, advice in (("responses", 'use match="weights"'), ("index", 'use match="weights"')):
        fewer = first[:6] if match == "index" else first
        with pytest.raises(ValueError, match=f"{advice}$"):
            compare(conv_of(first), conv_of(fewer), match=match)
    shorter = conv_of(first[..., :15])
    for match in (None, "responses"):
        with pytest.raises(
            ValueError, match=r"reads signals.*\(8, 1, 15\) cannot be compared at all"
        ):
            compare(conv_of(first), shorter, match=match)
    with pytest.raises(ValueError, match="responses cannot be compared either: a 1-D convolution"):
        compare(conv_of(first), shorter, match="weights")
    with pytest.raises(ValueError, match=r"has 3 dimensions and .* name a layer that has"):
        compare(conv(torch.rand(8, 3, 5, 5)), conv_of(torch.rand(8, 3, 2, 5, 5)))

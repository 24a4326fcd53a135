"""Responses and pairs computed in a browser equal those of torch and SciPy."""

from typing import Any

import numpy as np
import pytest
import torch
from engine_page import Engine
from scipy.optimize import linear_sum_assignment
from scipy.stats import kstest
from torch import Tensor

from kernelviz_callback.comparison.matching import cosines
from kernelviz_callback.filters.responses import channel_responses, summed_responses
from kernelviz_callback.probe.probe import CHART, Probe
from kernelviz_callback.probe.probe_chart import make_chart

pytestmark = pytest.mark.browser


def _random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    strength = torch.rand(shape[0], *[1] * (len(shape) - 1), generator=generator)
    return torch.randn(shape, generator=generator) * strength


def _image(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3))


RESPONSES: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((3, 40, 52), (8, 3, 7, 7), {}),
    ((3, 41, 53), (8, 3, 7, 7), {"shrink": 2}),
    ((3, 224, 224), (64, 3, 7, 7), {"shrink": 2}),
    ((3, 47, 50), (5, 3, 11, 11), {"shrink": 3}),
    ((1, 30, 31), (6, 1, 5, 5), {"shrink": 4, "dilation": (2, 3)}),
    ((2, 33, 29), (4, 2, 3, 2), {"dilation": (3, 1), "shrink": 5}),
    ((8, 20, 22), (6, 4, 3, 3), {"groups": 2, "shrink": 2}),
    ((6, 17, 19), (6, 1, 3, 3), {"groups": 6}),
    ((6, 17, 19), (12, 1, 1, 7), {"groups": 6, "shrink": 3, "dilation": (1, 2)}),
    ((5, 12, 12), (3, 5, 12, 12), {}),
    ((3, 9, 9), (2, 3, 1, 1), {"shrink": 9}),
]


@pytest.mark.parametrize(("probe_shape", "shape", "options"), RESPONSES)
@pytest.mark.parametrize("summed", [False, True])
def test_responses_equal_those_of_torch(
    engine: Engine, probe_shape: Any, shape: Any, options: dict[str, Any], summed: bool
) -> None:
    probe = _image(*probe_shape) - 0.3
    weights = _random(*shape)
    expected = (summed_responses if summed else channel_responses)(probe, weights, **options)
    found = _respond(engine, probe, weights, summed=summed, **options)
    assert found.shape == tuple(expected.shape)
    ranges = expected.abs().amax((1, 2, 3), keepdim=True)
    assert (torch.as_tensor(found.copy()) - expected).div(ranges).abs().max() < 1e-5
    some = _respond(engine, probe, weights, summed=summed, filters=[1, 2], **options)
    np.testing.assert_array_equal(some, found[1:2])


def _respond(engine: Engine, probe: Tensor, weights: Tensor, **options: Any) -> np.ndarray:
    found = engine(
        "return respond(planes, probeShape, kernels, shape, options)",
        planes=probe,
        probeShape=list(probe.shape),
        kernels=weights,
        shape=list(weights.shape),
        options=options,
    )
    shape = [found[name] for name in ("filters", "planes", "height", "width")]
    return found["data"].reshape(shape)


def test_a_probe_in_grey_is_convolved_once(engine: Engine) -> None:
    probe = Probe(make_chart(64), CHART).for_channels(32)
    weights = _random(4, 32, 3, 3)
    expected = summed_responses(probe, weights, shrink=2)
    found = _respond(engine, probe, weights, summed=True, shrink=2)
    assert (torch.as_tensor(found.copy()) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_the_first_filters_of_a_grouped_layer_keep_their_groups(engine: Engine) -> None:
    probe, weights = _image(6, 12, 12), _random(9, 2, 3, 3)
    expected = channel_responses(probe, weights, groups=3)
    cut = _respond(engine, probe, weights[:5], groups=3, total=9)
    np.testing.assert_allclose(cut, expected[:5].numpy(), atol=1e-5)
    fewer = _respond(engine, probe, weights[:, :1].contiguous(), groups=3)
    np.testing.assert_allclose(fewer, expected[:, :1].numpy(), atol=1e-5)


def test_a_weight_that_is_not_finite_affects_its_own_plane(engine: Engine) -> None:
    probe, weights = _image(3, 12, 12), _random(3, 3, 3, 3)
    weights[1, 2, 0, 0] = torch.nan
    expected = channel_responses(probe, weights, shrink=2)
    found = _respond(engine, probe, weights, shrink=2)
    np.testing.assert_array_equal(np.isnan(found), expected.isnan().numpy())


def test_a_probe_that_does_not_fit_is_reported(engine: Engine) -> None:
    script = """try { return responseShape(probeShape, [4, 3, 7, 7], options); }
        catch (error) { return error.message; }"""
    said = engine(script, probeShape=[1, 9, 9], options={})
    assert said == "The layer reads 3 input channels and the probe has 1."
    said = engine(script, probeShape=[3, 9, 30], options={"dilation": [2, 2]})
    assert said.startswith("A response covers 13x13 pixels of the probe, which has only 9x30.")
    shape = engine(script, probeShape=[3, 224, 224], options={"shrink": 2, "summed": True})
    assert shape == {"filters": 4, "planes": 1, "height": 109, "width": 109}


# The worker, and the page without a worker.

WORKERS = {
    "worker": "new TabSource()",
    "no worker": "{ makeWorker() { throw new Error('not here'); } }",
    "missing worker": "{ makeWorker: () => new Worker('missing.js', { type: 'module' }) }",
}
GRID = """
const request = {planes, probeShape: [3, 60, 70], kernels, shape: [40, 3, 5, 5], shrink: 2};
const collect = (request, chunks) => new Promise((resolve) => {
  const taken = (chunk) => { chunks.push(chunk); if (chunk.done) resolve(chunks); };
  collect.cancel = responder.grid(request, taken);
});
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
"""


def _grid(engine: Engine, worker: str, script: str) -> tuple[Any, np.ndarray]:
    """Run a script that computes a grid; return it and the expected grid, (40, 3, 28, 33)."""
    probe, weights = _image(3, 60, 70), _random(40, 3, 5, 5)
    given = {"planes": probe, "kernels": weights}
    found = engine(f"const responder = new Responder({WORKERS[worker]});{GRID}{script}", **given)
    return found, channel_responses(probe, weights, shrink=2).numpy()


def _whole(chunks: list[dict[str, Any]]) -> np.ndarray:
    """Join the chunks of a grid, after a check that they are in order and complete."""
    firsts = np.cumsum([0] + [chunk["filters"] for chunk in chunks])
    assert [chunk["first"] for chunk in chunks] == firsts[:-1].tolist()
    assert [chunk["done"] for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert {(c["planes"], c["height"], c["width"]) for c in chunks} == {(3, 28, 33)}
    return np.concatenate([chunk["data"] for chunk in chunks]).reshape(firsts[-1], 3, 28, 33)


@pytest.mark.parametrize("worker", WORKERS)
def test_a_grid_arrives_in_chunks(engine: Engine, worker: str) -> None:
    script = "return [await collect(request, []), responder.one(request, 7)]"
    (chunks, one), expected = _grid(engine, worker, script)
    assert len(chunks) > 1
    np.testing.assert_allclose(_whole(chunks), expected, atol=1e-5)
    np.testing.assert_allclose(one["data"].reshape(3, 28, 33), expected[7], atol=1e-5)


@pytest.mark.parametrize("worker", WORKERS)
def test_a_new_grid_replaces_the_last_one(engine: Engine, worker: str) -> None:
    script = """
    const early = [], late = [];
    const doubled = {...request, kernels: kernels.map((weight) => 2 * weight)};
    collect(request, early);
    const whole = await collect(doubled, late);
    const before = early.length;
    await pause(100);
    return [before, early.length, whole];"""
    (before, after, chunks), expected = _grid(engine, worker, script)
    assert before == after == 0
    np.testing.assert_allclose(_whole(chunks), 2 * expected, atol=2e-5)


@pytest.mark.parametrize("worker", WORKERS)
def test_a_grid_can_be_stopped(engine: Engine, worker: str) -> None:
    script = """
    const chunks = [];
    const large = {...request, shrink: 1};
    await new Promise((resolve) => {
      const cancel = responder.grid(large, (chunk) => {
        chunks.push(chunk.first);
        cancel();
        resolve();
      });
    });
    await pause(150);
    const ended = chunks.length;
    return [ended, await collect(request, [])];"""
    (ended, chunks), expected = _grid(engine, worker, script)
    assert ended == 1
    np.testing.assert_allclose(_whole(chunks), expected, atol=1e-5)


def test_the_worker_stops_with_its_grid(engine: Engine) -> None:
    script = """
    responder.start();
    const take = responder.worker.onmessage;
    let sent = 0;
    responder.worker.onmessage = (event) => { sent++; take(event); };
    const repeated = new Float32Array(40 * kernels.length);
    for (let k = 0; k < 40; k++) repeated.set(kernels, k * kernels.length);
    const large = {...request, kernels: repeated, shape: [1600, 3, 5, 5], shrink: 1};
    await new Promise((resolve) => {
      const cancel = responder.grid(large, () => { cancel(); resolve(); });
    });
    const before = sent;
    await pause(500);
    return [before, sent];"""
    (before, sent), _ = _grid(engine, "worker", script)
    assert sent <= before + 2


def test_the_probe_is_sent_once(engine: Engine) -> None:
    script = """
    const sent = [];
    const worker = responder.start() && responder.worker;
    const send = worker.postMessage.bind(worker);
    worker.postMessage = (message) => { sent.push(message.planes !== null); send(message); };
    const negative = {...request, planes: planes.map((value) => -value)};
    const grids = [];
    for (const one of [request, request, negative]) grids.push(await collect(one, []));
    return [sent, grids];"""
    (sent, grids), expected = _grid(engine, "worker", script)
    assert sent == [True, False, True]
    for chunks, sign in zip(grids, (1, 1, -1), strict=True):
        np.testing.assert_allclose(_whole(chunks), sign * expected, atol=1e-5)


def test_an_impossible_grid_is_refused_at_once(engine: Engine) -> None:
    script = """
    try { responder.grid({...request, probeShape: [3, 4, 4]}, () => {}); }
    catch (error) { return error.message; }"""
    said, _ = _grid(engine, "worker", script)
    assert said.startswith("A response covers 6x6 pixels of the probe, which has only 4x4.")


@pytest.mark.parametrize("worker", WORKERS)
def test_filters_are_matched_in_the_worker(engine: Engine, worker: str) -> None:
    weights = _random(24, 3, 5, 5)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(4))
    script = f"""
    const responder = new Responder({WORKERS[worker]}), shape = [24, 3, 5, 5];
    const refused = responder.match(ones, shape, ones, [24, 75, 1, 1]).catch((e) => e.message);
    const match = await responder.match(ones, shape, others, [20, 3, 5, 5]);
    return [match.partner, match.mean, await refused];"""
    shuffled = weights[order][:20].contiguous()
    shuffled += 0.1 * _random(*shuffled.shape, seed=1)
    partner, mean, refused = engine(script, ones=weights, others=shuffled)
    expected = np.full(24, -1)
    expected[order[:20].numpy()] = np.arange(20)
    np.testing.assert_array_equal(partner, expected)
    alike = torch.cosine_similarity(weights[order][:20].flatten(1), shuffled.flatten(1))
    assert mean == pytest.approx(alike.mean().item(), abs=1e-5)
    assert refused == "Filters of 3x5x5 and 75x1x1 weights cannot be matched."


# Matching.


def test_noise_is_normal_and_reproducible(engine: Engine) -> None:
    script = (
        "return [noiseOf([50, 3, 7, 7], 1), noiseOf([50, 3, 7, 7], 1), noiseOf([50, 3, 7, 7], 2)]"
    )
    one, again, other = engine(script)
    np.testing.assert_array_equal(one, again)
    assert kstest(one, "norm").pvalue > 0.01
    for a, b in ((one, other), (one[:-1], one[1:]), (one[:-147], one[147:])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(len(a))


def test_cosines_equal_those_of_the_comparison(engine: Engine) -> None:
    ones, others = _random(20, 3, 5, 5), _random(13, 3, 5, 5, seed=1)
    ones[3], ones[5, 0, 0, 0], others[2] = 0, torch.nan, -ones[7]
    found = engine(
        "return cosines(ones, [20, 3, 5, 5], others, [13, 3, 5, 5])", ones=ones, others=others
    )
    np.testing.assert_allclose(found.reshape(20, 13), cosines(ones, others).numpy(), atol=1e-6)
    script = (
        "try { cosines(ones, [20, 3, 5, 5], ones, [20, 1, 5, 15]) } catch (e) { return e.message; }"
    )
    assert engine(script, ones=ones) == "Filters of 3x5x5 and 1x5x15 weights cannot be matched."


@pytest.mark.parametrize(
    ("rows", "columns"), [(1, 1), (1, 9), (9, 1), (40, 40), (30, 55), (55, 30)]
)
@pytest.mark.parametrize("kind", ["random", "coarse", "equal", "product"])
def test_pairs_have_the_largest_sum_of_similarities(
    engine: Engine, rows: int, columns: int, kind: str
) -> None:
    rng = np.random.default_rng(rows * columns)
    similarity = {
        "random": rng.uniform(-1, 1, (rows, columns)),
        "coarse": rng.integers(0, 3, (rows, columns)).astype(float),
        "equal": np.ones((rows, columns)),
        "product": -np.outer(np.arange(rows), np.arange(columns)).astype(float),
    }[kind]
    partner = engine(
        "return assign(similarity, rows, columns)",
        similarity=similarity,
        rows=rows,
        columns=columns,
    )
    paired = np.flatnonzero(partner >= 0)
    assert len(paired) == len(set(partner[paired])) == min(rows, columns)
    best = similarity[linear_sum_assignment(similarity, maximize=True)].sum()
    assert similarity[paired, partner[paired]].sum() == pytest.approx(best, abs=1e-6)

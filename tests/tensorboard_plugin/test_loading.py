"""How the Kernels tab loads snapshots: the order, the number of requests, and failures."""

from typing import Any

import numpy as np
import pytest
import torch
from engine_page import Engine
from tab_runs import GEOMETRY

from kernelviz_callback.filters.measures import filter_norms, movement
from kernelviz_callback.tensorboard_plugin.codec import pack_snapshot, unpack_snapshot

pytestmark = pytest.mark.browser

# A server with a layer of two filters of two weights each. All weights are the step plus one.
SERVER = """
const layerOf = (steps, attempt = 1) => ({
  name: "conv", shape: [2, 1, 1, 2], filters: 2, channels: 1, geometry: {},
  snapshots: steps.map((step) => ({ id: `${step}-${attempt}`, step, dtype: "float16" })),
});
const upTo = (count) => Array.from({ length: count }, (_, step) => step);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const until = async (isTrue) => { while (!isTrue()) await pause(2); };
const server = {
  asked: [], active: 0, mostActive: 0, damaged: new Set(), isDown: false,
  async payloads(run, layer, ids) {
    this.asked.push(ids.map((id) => parseInt(id)));
    this.mostActive = Math.max(this.mostActive, ++this.active);
    await pause(10);
    this.active--;
    if (this.isDown) throw new Error("TensorBoard does not answer.");
    return ids.map((id) => this.damaged.has(id) ? null : this.payload(parseInt(id)));
  },
  payload(step) {
    const buffer = new ArrayBuffer(18);
    new Float32Array(buffer, 0, 2).fill(step + 1);
    new Uint16Array(buffer, 10, 4).fill(0x3c00);
    return buffer;
  },
};
const series = new Series(server, "run");
"""


def _serve(engine: Engine, script: str, **given: Any) -> Any:
    return engine(f"{SERVER}{script}", **given)


def test_visible_snapshots_are_loaded_first(engine: Engine) -> None:
    asked, most, loaded = _serve(
        engine,
        """series.update(layerOf(upTo(1000)));
        series.load(700);
        await until(() => series.loadedCount === 1000);
        return [server.asked, server.mostActive, series.isLoaded(999)];""",
    )
    assert set(asked[0]) == {700, 0, 999}
    assert most == 2
    assert loaded
    assert sorted(step for ids in asked for step in ids) == list(range(1000))
    assert max(map(len, asked)) == 64
    assert len(asked) <= 1000 / 64 + 4
    early = sorted(step for ids in asked[:3] for step in ids)
    logarithms = np.log1p(np.array(early))
    assert np.diff(logarithms).max() < 1.0  # each is at most a factor of e after the last
    third = sorted(step for ids in asked[:5] for step in ids)
    assert np.diff(third).max() <= 64


def test_required_snapshots_are_loaded_before_others(engine: Engine) -> None:
    asked, values = _serve(
        engine,
        """series.update(layerOf(upTo(1000)));
        series.load(0);
        await until(() => series.loadedCount > 20);
        const before = server.asked.length;
        const wanted = [901, 903, 907].filter((index) => !series.isLoaded(index));
        await Promise.all(wanted.map((index) => series.require(index)));
        await series.require(0);
        return [server.asked[before], wanted.map((index) => series.weights(index)[3] - 1)];""",
    )
    assert sorted(asked) == values
    assert values


def test_a_live_run_loads_new_snapshots(engine: Engine) -> None:
    found = _serve(
        engine,
        """series.update(layerOf(upTo(50)));
        series.load(10);
        await until(() => series.loadedCount === 50);
        const kept = series.weights(20), before = server.asked.length;
        series.update(layerOf(upTo(53)));
        await until(() => series.loadedCount === 53);
        return {asked: server.asked.slice(before).flat(), isSame: series.weights(20) === kept,
                value: series.weights(52)[0], drift: series.drift(52)};""",
    )
    assert sorted(found["asked"]) == [50, 51, 52]
    assert found["isSame"]
    assert found["value"] == 53


def test_replaced_snapshots_are_dropped(engine: Engine) -> None:
    found = _serve(
        engine,
        """series.update(layerOf(upTo(50)));
        series.load(0);
        await until(() => series.loadedCount === 50);
        const resumed = layerOf(upTo(30));
        resumed.snapshots.push(...layerOf([30, 40], 2).snapshots);
        const before = server.asked.length;
        series.update(resumed);
        const loaded = series.loadedCount, largest = [series.largest];
        await until(() => series.loadedCount === 32);
        largest.push(series.largest);
        return {loaded, largest, asked: server.asked.slice(before).flat(), at: series.indexAt(45),
                value: series.weights(31)[0]};""",
    )
    assert found["loaded"] == 30
    assert found["largest"] == [30, 41]
    assert sorted(found["asked"]) == [30, 40]
    assert (found["at"], found["value"]) == (31, 41)


def test_a_damaged_snapshot_is_reported_and_requested_again(engine: Engine) -> None:
    found = _serve(
        engine,
        """server.damaged = new Set(["0-1", "7-1"]);
        series.update(layerOf(upTo(20)));
        series.load(3);
        const said = await series.require(7).catch((error) => error.message);
        await until(() => series.loadedCount === 18 && !Number.isNaN(series.drift(19)));
        const again = await series.require(7).catch((error) => error.message);
        const failed = [...series.failed].sort(), drift = series.drift(19);
        for (let k = 0; k < 35; k++) {
          series.update(layerOf(upTo(20)));
          await pause(100);
        }
        const tries = server.asked.flat().filter((step) => step === 7).length;
        server.damaged.clear();
        await until(() => series.loadedCount === 20 && series.drift(1) === 1);
        return {said, again, failed, drift, tries, stillFailed: series.failed.size,
                value: series.weights(7)[0], error: series.error};""",
    )
    assert found["said"] == found["again"] == "The snapshot of step 7 could not be read."
    assert found["failed"] == ["0-1", "7-1"]
    assert found["drift"] == 18 / 2  # relative to step 1, the first that could be read
    assert found["tries"] == 2
    assert (found["stillFailed"], found["value"], found["error"]) == (0, 8, None)


def test_loading_continues_when_the_server_answers_again(engine: Engine) -> None:
    found = _serve(
        engine,
        """series.update(layerOf(upTo(20)));
        server.isDown = true;
        series.load(3);
        const said = await series.require(5).catch((error) => error.message);
        const error = series.error;
        await pause(2000);
        const tries = server.asked.length;
        server.isDown = false;
        await until(() => series.loadedCount === 20);
        return {said, error, tries, after: series.error, failed: series.failed.size};""",
    )
    assert found["said"] == found["error"] == "TensorBoard does not answer."
    assert found["tries"] <= 3
    assert (found["after"], found["failed"]) == (None, 0)


def test_changes_are_reported_once_a_frame(engine: Engine) -> None:
    calls, frames = _serve(
        engine,
        """const tellings = [];
        let frame = 0, isOver = false;
        const count = () => { frame++; if (!isOver) requestAnimationFrame(count); };
        requestAnimationFrame(count);
        series.onChange = () => tellings.push(frame);
        series.update(layerOf(upTo(500)));
        series.load(0);
        await until(() => series.loadedCount === 500 && !Number.isNaN(series.drift(499)));
        await pause(50);
        isOver = true;
        return [tellings, frame];""",
    )
    assert 0 < len(calls) <= frames
    assert len(set(calls)) == len(calls)


def test_a_closed_series_sends_no_requests(engine: Engine) -> None:
    before, after, calls = _serve(
        engine,
        """series.update(layerOf(upTo(1000)));
        series.load(0);
        await until(() => series.loadedCount > 0);
        let calls = 0;
        series.close();
        series.onChange = () => calls++;
        const before = server.asked.length;
        await pause(100);
        return [before, server.asked.length, calls];""",
    )
    assert before == after
    assert calls == 0


def test_payloads_beyond_the_memory_limit_are_requested_again(engine: Engine) -> None:
    found = _serve(
        engine,
        """series.keptBytes = 2 ** 29 - 10 * 18;
        series.update(layerOf(upTo(100)));
        series.load(0);
        const isKnown = (index) => !Number.isNaN(series.drift(index)) || index === 0;
        await until(() => upTo(100).every((index) => series.slots[index].row >= 0));
        await until(() => !series.loader.inFlight);
        const loaded = series.loadedCount, asked = server.asked.flat().length;
        const ends = [0, 99].map((index) => series.isLoaded(index));
        const away = upTo(100).find((index) => !series.isLoaded(index));
        await series.require(away);
        const isRight = series.weights(away)[0] === away + 1;
        return {loaded, asked, ends, isRight, after: series.loadedCount};""",
    )
    assert found == {"loaded": 10, "asked": 100, "ends": [True, True], "isRight": True, "after": 10}


@pytest.mark.parametrize("filters", [8, 7])
def test_derived_numbers_equal_those_of_python(engine: Engine, filters: int) -> None:
    rng = np.random.default_rng(filters)
    start = rng.normal(0, 0.1, (filters, 3, 5, 5)).astype(np.float32)
    layers = [start + rng.normal(0, 0.02 * k, start.shape).astype(np.float32) for k in range(6)]
    layers[0][1] = 0
    layers[3][2, 0, 0, 0] = np.nan
    layers[4][3] *= 1e25
    layers[5][1] = 0
    about = {"layer": "conv", "epoch": 0, "wall_time": 0.0, "attempt": 0, "geometry": GEOMETRY}
    packed = [pack_snapshot(w, step=k, **about) for k, w in enumerate(layers)]
    stored = [torch.from_numpy(unpack_snapshot(*each).weights()) for each in packed]
    found = engine(
        """const server = { payloads: async (run, layer, ids) =>
          ids.map((id) => payload.slice(id * size, (id + 1) * size)) };
        const series = new Series(server, "run");
        const snapshots = Array.from({length: 6}, (_, id) => ({id, step: id, dtype: "float16"}));
        series.update({name: "conv", shape, filters: 9, channels: 3, geometry: {}, snapshots});
        series.load(3);
        while (series.underived.length || series.loadedCount < 6) {
          await new Promise((resolve) => setTimeout(resolve, 5));
        }
        const of = snapshots.map((_, index) =>
          [series.norms(index), series.changes(index), series.drift(index), series.weights(index)]);
        return {of, total: series.total, largest: series.largest};""",
        payload=b"".join(payload for _, payload in packed),
        size=len(packed[0][1]),
        shape=list(start.shape),
    )
    assert found["total"] == {"filters": 9, "channels": 3}
    largest = max(w.where(w.isfinite(), 0).abs().max().item() for w in stored)
    assert found["largest"] == pytest.approx(largest)
    for weights, (norms, changes, drift, decoded) in zip(stored, found["of"], strict=True):
        moved = movement(weights, stored[0])
        np.testing.assert_array_equal(decoded, weights.numpy().ravel())
        np.testing.assert_allclose(norms, filter_norms(weights).numpy(), rtol=1e-6)
        np.testing.assert_allclose(changes, moved.relative.numpy(), rtol=1e-6)
        assert drift == pytest.approx(moved.drift, nan_ok=True)


def test_marks_are_where_verdicts_begin(engine: Engine) -> None:
    verdicts = [None, {}, {"a": 2}, {"a": 2, "b": 1}, {"a": 3}, None, {"b": 1}, {"a": 1}, {"a": 4}]
    marks, at = engine(
        """const series = new Series({}, "run");
        const snapshots = verdicts.map((one, k) => ({id: k, step: 10 + 10 * k, verdicts: one}));
        series.update({name: "conv", shape: [2, 1, 1, 2], snapshots});
        const steps = [-1, 10, 19, 20, 89, 90, 1e9];
        return [series.verdictMarks(), steps.map((step) => series.indexAt(step))];""",
        verdicts=verdicts,
    )
    expected = [(2, "a", 2), (3, "b", 1), (4, "a", 3), (6, "b", 1), (7, "a", 1), (8, "a", 4)]
    assert [(m["index"], m["name"], m["count"]) for m in marks] == expected
    assert at == [0, 0, 0, 1, 7, 8, 8]

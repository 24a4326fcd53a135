"""The limit beyond which the Kernels tab does not match the filters of two runs."""

import pytest
from engine_page import Engine

pytestmark = pytest.mark.browser

MATCHING = """
const { Ordering } = await import(new URL("ordering.js", document.baseURI));
const asked = [];
const tracks = counts.map((count, k) => ({
  run: `run ${k}`, layer: "conv", shape: [count, 1, 1, 1], entries: [{ step: 0 }],
  series: { indexAt: () => 0, require: async () => {}, weights: () => new Float32Array(count) },
  responder: { async match(...layers) {
    asked.push([layers[1][0], layers[3][0]]);
    return { partner: new Int32Array(count), mean: 0.5 };
  } },
}));
const view = { order: "index", match: true, ordered: null };
const ordering = new Ordering({ view, lead: tracks[0], shown: tracks }, () => {});
ordering.update();
await new Promise((done) => setTimeout(done, 20));
const found = ordering.alike.size;
view.match = false;
ordering.update();
return [ordering.why, asked, found, ordering.alike.size];
"""


def test_filters_are_matched_up_to_a_limit(engine: Engine) -> None:
    why, asked, found, left = engine(MATCHING, counts=[1024, 1000])
    assert (found, left) == (1, 0)  # the similarity is removed together with the pairs
    assert why is None
    assert asked == [[1024, 1000]] * 2  # these filters, and filters of noise for the chance level
    for counts in ([1025, 8], [8, 1025]):
        why, asked, *_ = engine(MATCHING, counts=counts)
        assert why == "Up to 1,024 filters can be matched here; kernelviz compare matches more."
        assert asked == []

"""The colour scale of a whole run covers the present snapshots, not those that were replaced."""

import pytest
from engine_page import Engine

pytestmark = pytest.mark.browser

# A run of one filter with one weight: the number at the beginning of its id.
RUN = """
const { Track } = await import(new URL("tracks.js", document.baseURI));
const source = {
  async payloads(run, layer, ids) {
    return ids.map((id) => {
      const buffer = new ArrayBuffer(7);
      new Float32Array(buffer, 0, 1).fill(parseFloat(id)); // NaN of a word
      new DataView(buffer).setUint16(5, 0x3c00, true);
      return buffer;
    });
  },
};
const layerOf = (ids) => ({
  name: "conv", shape: [1, 1, 1, 1], filters: 1, channels: 1, geometry: {},
  snapshots: ids.map((id, step) => ({ id, step, dtype: "float16" })),
});
const track = new Track(source, "run", () => {});
const widest = async (ids) => {
  track.setLayer(layerOf(ids));
  track.series.load(0);
  while (track.series.loadedCount < ids.length) await new Promise((done) => setTimeout(done, 2));
  while (!track.widen(view)) {}
  return track.widest.value;
};
"""


@pytest.mark.parametrize(
    ("difference", "expected"), [("none", [9, 4, 5]), ("first", [8, 3, 4]), ("previous", [7, 2, 4])]
)
def test_the_scale_of_a_run_excludes_replaced_snapshots(
    engine: Engine, difference: str, expected: list[int]
) -> None:
    script = f"""{RUN}
    return [
      await widest(["1-a", "2-a", "9-a", "3-a"]),
      await widest(["1-a", "2-a", "4-b"]),
      await widest(["1-a", "2-a", "4-b", "1-c", "5-b"]),
    ];"""
    assert engine(script, view={"difference": difference, "pinned": None}) == expected


def test_a_damaged_scale_does_not_change_that_of_the_run(engine: Engine) -> None:
    script = f"""{RUN}
    return widest(["1-a", "damaged", "3-a", "Infinity"]);"""
    assert engine(script, view={"difference": "none", "pinned": None}) == 3

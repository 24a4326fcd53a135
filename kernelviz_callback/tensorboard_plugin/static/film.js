import { el, fittingSize, setText } from "./dom.js";
import { halfRanges } from "./paint.js";
import { Atlas } from "./pictures.js";
import { tileShape } from "./tile_layout.js";

const FRAME_GAP = 6; // CSS pixels between frames
const LEAST_FRAME = 30; // CSS pixels
const HIGHEST_FRAME = 240; // CSS pixels
const SLENDER = 8; // frames that are higher than so many widths never fill the strip
const MANY_FRAMES = [10, 9, 8, 7, 6]; // the usual numbers of frames, the preferred one first
const FEW_FRAMES = [5, 4, 3]; // for filters with so many channels that no more frames fit

/**
 * Pictures of a filter from the first snapshot to the last, on one colour scale. A click shows the
 * step of a frame.
 */
export class Film {
  constructor(track, actions) {
    Object.assign(this, { track, actions, frames: [], key: "", atlas: new Atlas() });
    this.root = el("div", { class: "film", role: "group", "aria-label": "Film strip", "data-role": "film", "data-run": track.run });
  }

  /** Build the strip for a filter. Frames that are not loaded yet are drawn when they arrive. */
  show(model, filter, room, dpr) {
    const { track } = this, { view } = model;
    const key = [filter, track.layer, track.entries.length, track.entries.at(-1).id, view.difference, view.pinned, view.channel, room, dpr].join("\n");
    if (key === this.key && this.isComplete) return;
    const tile = tileShape(track.shape, model.channelOf(track));
    const count = fullestCount(tile, room, dpr);
    const chosen = track.axis.spread(count).map((at) => track.series.indexAt(track.axis.steps[at]));
    const ready = chosen.filter((index) => track.isReady(index, view));
    if (key === this.key && ready.length === this.ready) return;
    Object.assign(this, { key, ready: ready.length, isComplete: ready.length === chosen.length });
    const missing = chosen.filter((index) => !track.isReady(index, view));
    Promise.allSettled(missing.map((index) => track.require(index, view))).then(() => missing.length && this.actions.refresh());
    const zoom = zoomOfFrame(tile, count, room, dpr), wide = roomOfFrame(count, room);
    this.frames = chosen.map((index) => this.frame(index, tile, zoom, wide, dpr));
    this.root.replaceChildren(...this.frames.map((frame) => frame.button));
    this.paint(model, filter, ready, zoom);
  }

  frame(index, tile, zoom, room, dpr) {
    const { step } = this.track.entries[index], width = tile.width * zoom, height = tile.height * zoom;
    const canvas = el("canvas", { width, height, style: fittingSize(width, height, Math.max(room, height), dpr) });
    const button = el("button", {
      type: "button", class: "film-frame", "aria-label": `step ${step}`, "data-step": step,
      click: () => this.actions.moveToStep(step),
    }, canvas, el("span", {}, String(step)));
    return { index, step, canvas, button };
  }

  paint(model, filter, ready, zoom) {
    const { track } = this, [, ...inner] = track.shape, size = inner.reduce((product, side) => product * side, 1);
    const values = ready.map((index) => track.values(index, model.view).slice(filter * size, (filter + 1) * size));
    const end = Math.max(0, ...values.map((own) => halfRanges(own, [1, ...inner], "filter")[0]));
    values.forEach((own, k) => {
      const { canvas } = this.frames.find((frame) => frame.index === ready[k]);
      this.atlas.paint(own, [1, ...inner], [end], model.channelOf(track));
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      this.atlas.draw(context, 0, 0, 0, zoom);
    });
  }

  /** Mark the frame at the slider's step; if there is none, outline the last frame before it. */
  place(step) {
    const current = this.frames.findLast((frame) => frame.step <= step) ?? this.frames[0];
    for (const frame of this.frames) {
      frame.button.classList.toggle("passed", frame === current && frame.step !== step);
      if (frame.step === step) frame.button.setAttribute("aria-current", "step");
      else frame.button.removeAttribute("aria-current");
    }
  }
}

const roomOfFrame = (count, room) => (room - (count - 1) * FRAME_GAP) / count;

function zoomOfFrame(tile, count, room, dpr) {
  return Math.max(1, Math.floor(Math.min((roomOfFrame(count, room) * dpr) / tile.width, (HIGHEST_FRAME * dpr) / tile.height)));
}

/** The number of frames that fills the strip best, at a whole zoom. */
function fullestCount(tile, room, dpr) {
  if (tile.height > SLENDER * tile.width) return MANY_FRAMES[0];
  const covered = (count) => {
    const wide = (zoomOfFrame(tile, count, room, dpr) * tile.width) / dpr;
    const isLegible = tile.planes === 1 || zoomOfFrame(tile, count, room, dpr) > 1;
    return wide < LEAST_FRAME || wide * count > room || !isLegible ? 0 : wide * count;
  };
  const fullest = (counts) => counts.reduce((best, count) => (covered(count) > 1.05 * covered(best) ? count : best));
  const many = fullest(MANY_FRAMES);
  return covered(many) ? many : covered(fullest(FEW_FRAMES)) ? fullest(FEW_FRAMES) : FEW_FRAMES.at(-1);
}

/** What a verdict says about a filter. */
const VERDICT_TEXTS = {
  "non-finite": "holds NaN or infinity",
  "near-zero": "is far weaker than the rest of the layer, and hardly contributes",
  silent: "responds to almost nothing in the probe",
  duplicate: "is nearly the same as another filter",
  dominating: "is far stronger than the rest of the layer",
  frozen: "does not change while the others do",
  "noise-like": "has no more structure than random weights",
};

export const verdictText = (name) => VERDICT_TEXTS[name] ?? "";

/** The verdicts of a filter over the steps: one row for each verdict that it ever had. */
export class HealthBars {
  constructor() {
    this.root = el("div", { class: "health", "data-role": "health" });
    this.note = el("p", { class: "hint" });
  }

  draw(model, track, filter, run) {
    const rows = model.verdictNames.map((name, bit) => ({ name, spans: spansOf(track, filter, bit, model.axis) }))
      .filter(({ spans }) => spans.length);
    const isExamined = track.entries.some((entry) => entry.verdicts);
    setText(this.note, !isExamined ? "Health was not examined in this run." : rows.length ? "" : "No verdict in the snapshots loaded.");
    this.root.replaceChildren(...rows.map(({ name, spans }) => el("div", { class: "health-row" },
      el("span", {}, name, run ? ` (${run})` : ""),
      el("div", { class: "health-lane" }, ...spans.map(([from, to]) => el("i", {
        style: `left:${100 * from}%;width:max(3px, ${100 * (to - from)}%);background:${model.colourOfVerdict(name)}`,
      }))))), this.note);
  }
}

function spansOf({ entries, series }, filter, bit, axis) {
  const spans = [];
  let open = null;
  entries.forEach((entry, index) => {
    if (!series.isLoaded(index) || !entry.verdicts) return;
    const share = axis.place(entry.step);
    const has = series.bits(index)[filter] & (1 << bit);
    if (has && !open) spans.push((open = [share, share]));
    else if (open) open[1] = share;
    if (!has) open = null;
  });
  return spans;
}

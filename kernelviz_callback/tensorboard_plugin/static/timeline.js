import { curveDrawing, curvePath } from "./curves.js";
import { clamp, el, grouped, numberText, setText, svg } from "./dom.js";

const CLOSE = 14; // CSS pixels: marks at a smaller distance become one
const TICKS = 5; // at most
const FAR = 10; // snapshots that a key moves by with shift, or Page Up and Page Down

/**
 * The slider over the drift of the layer, with marks where verdicts began.
 *
 * `actions` holds `setView`, `moveTo`, `moveBy`, `pause` and `showTip`.
 */
export class Timeline {
  constructor(model, actions) {
    Object.assign(this, { model, actions, drawn: "", isDragging: false });
    this.curve = curveDrawing("drift");
    this.loaded = svg("path", { class: "loaded" });
    this.loadedDrawing = svg("svg", { class: "loaded-lane", viewBox: "0 0 1000 2", preserveAspectRatio: "none", "aria-hidden": "true" }, this.loaded);
    this.needle = el("div", { class: "needle handle" });
    this.caption = el("span", { class: "lane-caption", "data-role": "drift" });
    this.lane = el("div", {
      class: "lane", role: "slider", tabindex: 0, "aria-label": "Step", "aria-orientation": "horizontal",
      "data-role": "slider",
    }, this.curve, this.loadedDrawing, this.caption, this.needle);
    this.marks = el("div", { class: "marks", role: "group", "aria-label": "Where verdicts began" });
    this.ticks = el("div", { class: "ticks", "aria-hidden": "true" });
    this.kind = el("button", {
      type: "button", class: "quiet axis-kind", "data-role": "axis",
      click: () => actions.setView({ axis: model.axis.isLogarithmic ? "linear" : "log" }),
    });
    this.root = el("div", { class: "track", "data-role": "track" }, this.marks, this.lane, this.ticks, this.kind);
    this.listen();
    new ResizeObserver(() => this.resize()).observe(this.lane);
  }

  focus() {
    this.lane.focus({ preventScroll: true });
  }

  listen() {
    const { lane } = this;
    const follow = (event) => {
      const box = this.box;
      this.actions.moveTo(this.model.axis.nearest(clamp((event.clientX - box.left) / box.width, 0, 1)));
    };
    lane.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      lane.setPointerCapture(event.pointerId);
      this.isDragging = true;
      this.box = lane.getBoundingClientRect();
      this.actions.pause();
      follow(event);
    });
    lane.addEventListener("pointermove", (event) => this.isDragging && follow(event));
    for (const name of ["pointerup", "pointercancel"]) lane.addEventListener(name, () => (this.isDragging = false));
    lane.addEventListener("keydown", (event) => {
      const by = { ArrowUp: 1, ArrowDown: -1, PageUp: FAR, PageDown: -FAR }[event.key];
      if (by === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      this.actions.moveBy(event.shiftKey ? FAR * Math.sign(by) : by);
    });
  }

  resize() {
    const width = this.lane.clientWidth;
    if (!width || width === this.width) return;
    this.width = width;
    this.placeMarks();
    this.place();
  }

  /** Draw everything again. */
  draw() {
    const { model } = this, { axis } = model;
    this.lane.setAttribute("aria-valuemin", 0);
    this.lane.setAttribute("aria-valuemax", Math.max(0, axis.last));
    this.drawCurves();
    this.drawTicks();
    this.placeMarks();
    this.place();
  }

  drawCurves() {
    const { model } = this, { axis } = model;
    let high = 0;
    for (const { series, entries } of model.shown) {
      for (let k = 0; k < entries.length; k++) {
        const drift = series.drift(k);
        if (drift > high && drift < Infinity) high = drift;
      }
    }
    this.high = high;
    this.curve.replaceChildren(...model.shown.flatMap((track, k) => {
      const shares = track.entries.map((entry) => axis.place(entry.step));
      const line = curvePath(shares, (at) => track.series.drift(at), 0, high);
      const ends = line.match(/[ML][\d.]+/g) ?? [];
      const area = k || ends.length < 2 ? [] : [svg("path", { class: "area", style: `--run: ${model.colourOf(track)}`, d: `${line}V100H${ends[0].slice(1)}Z` })];
      return [...area, svg("path", { class: "line", style: `--run: ${model.colourOf(track)}`, d: line })];
    }));
    this.drawLoaded();
  }

  /** Draw a line below the snapshots that are loaded. */
  drawLoaded() {
    const { axis, shown } = this.model;
    let path = "", open = false;
    for (let at = 0; at <= axis.last; at++) {
      const isLoaded = shown.every((track) => track.series.isLoaded(track.series.indexAt(axis.steps[at])));
      const x = (1000 * axis.shares[at]).toFixed(1);
      if (isLoaded) path += open ? "" : `M${x} 1h1`;
      if (open && (!isLoaded || at === axis.last)) path += `H${x}`;
      open = isLoaded;
    }
    this.loaded.setAttribute("d", path);
  }

  drawTicks() {
    const { axis } = this.model;
    const [own, other] = axis.isLogarithmic ? ["log", "linear"] : ["linear", "log"];
    const key = `${own} ${axis.steps[0]} ${axis.steps.at(-1)} ${axis.steps.length}`;
    if (this.ticks.dataset.key === key || axis.last < 0) return;
    this.ticks.dataset.key = key;
    const chosen = new Set(Array.from({ length: TICKS }, (_, k) => axis.nearest(k / (TICKS - 1))));
    const places = [...chosen].sort((a, b) => a - b).filter((at, k, all) =>
      k === 0 || k === all.length - 1 || (axis.shares[at] - axis.shares[all[k - 1]] > 0.1 && axis.shares.at(-1) - axis.shares[at] > 0.1));
    this.ticks.replaceChildren(...places.map((at) =>
      el("span", { style: `left:${100 * axis.shares[at]}%` }, grouped(axis.steps[at]))));
    setText(this.kind, own);
    this.kind.title = `Steps on a ${own === "log" ? "logarithmic" : "linear"} scale; press for ${other}`;
  }

  /** Place a button for each group of verdicts that began at about the same place. */
  placeMarks() {
    const { model } = this, { axis } = model;
    if (!this.width) return;
    const isOne = model.shown.length === 1;
    const all = model.shown.flatMap((track) => track.series.verdictMarks()
      .filter(({ index }) => index > 0 || track.entries.length === 1 || this.hasSteps(track))
      .map(({ index, name, count }) => ({
        name, step: track.entries[index].step,
        text: `${isOne ? "" : `${track.run}, `}step ${grouped(track.entries[index].step)}: ${name}, ${count} filter${count > 1 ? "s" : ""}`,
      }))).sort((a, b) => a.step - b.step);
    const groups = [];
    for (const mark of all) {
      const x = axis.place(mark.step) * this.width, last = groups.at(-1);
      if (last && x - last.x < CLOSE) last.marks.push(mark);
      else groups.push({ x, marks: [mark] });
    }
    const key = JSON.stringify([this.width, groups]);
    if (key === this.drawn) return;
    this.drawn = key;
    this.marks.replaceChildren(...groups.map(({ x, marks }) => {
      const names = [...new Set(marks.map((mark) => mark.name))];
      const worst = model.verdictNames.find((name) => names.includes(name));
      const lines = marks.slice(0, 8).map((mark) => mark.text).concat(marks.length > 8 ? [`and ${marks.length - 8} more`] : []);
      const { step } = marks.find((mark) => mark.name === worst);
      return el("button", {
        type: "button", class: "mark", style: `left:${x}px;--verdict:${model.colourOfVerdict(worst)}`,
        "aria-label": lines.join("; "), "data-step": step,
        click: () => this.actions.moveTo(axis.at(step)),
        pointerenter: (event) => event.pointerType !== "touch" && this.actions.showTip(lines, event.currentTarget),
        focus: (event) => event.target.matches(":focus-visible") && this.actions.showTip(lines, event.currentTarget),
        pointerleave: () => this.actions.showTip(null), blur: () => this.actions.showTip(null),
      });
    }));
  }

  hasSteps(track) {
    return track.entries.length > 1;
  }

  /** Move the needle to the step of the slider, without a layout of the page. */
  place() {
    const { model } = this, { axis, position } = model;
    if (!this.width || axis.last < 0) return;
    this.needle.style.transform = `translateX(${(axis.shares[position] * this.width).toFixed(1)}px)`;
    this.lane.setAttribute("aria-valuenow", position);
    this.lane.setAttribute("aria-valuetext", `step ${model.step}`);
    const drifts = model.shown.map((track) => numberText(track.series.drift(model.indexOf(track))));
    setText(this.caption, `drift ${drifts.join(" · ")}`);
  }
}

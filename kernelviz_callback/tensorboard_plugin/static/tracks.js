import { difference, differenceFloor, halfRanges } from "./paint.js";
import { Responder } from "./responder.js";
import { Series } from "./series.js";
import { StepAxis } from "./step_axis.js";

const WHY_NO_RESPONSE = "A 3-D convolution reads several images at a time, and the probe is one.";
const WIDENING_MILLISECONDS = 6; // of each turn, spent on the colour scale of a whole run

/** One run on the page: its layer, and the numbers that are drawn of it. */
export class Track {
  constructor(source, run, onChange) {
    Object.assign(this, { source, run, onChange, layer: null, series: null, info: null });
    this.responder = new Responder(source);
    this.widest = { key: "", value: 0, done: new Map() };
  }

  /**
   * Set the layer's entry in the timeline, again after each change; null if the run does not have
   * the layer.
   */
  setLayer(info) {
    this.info = info;
    if (this.layer !== (info?.name ?? null)) {
      this.series?.close();
      this.layer = info?.name ?? null;
      this.series = info && new Series(this.source, this.run);
      if (info) this.series.onChange = () => this.onChange(this);
    }
    this.series?.update(info);
  }

  get shape() {
    return this.series.shape;
  }

  /** Whether the layer is 1-D: its filters have frequency responses, and no responses to a probe. */
  get isOfSignals() {
    return this.series?.shape.length === 3;
  }

  /** Why its filters have no responses, in a sentence; null if they have responses. */
  get whyNoResponse() {
    return this.shape.length === 5 ? WHY_NO_RESPONSE : null;
  }

  /** Which channels of the layer are stored, in words; empty if all are. */
  get part() {
    const { shape: [, channels], total } = this.series;
    return channels < total.channels ? `of the first ${channels} of ${total.channels} channels` : "";
  }

  /** The axis of its own snapshots, made once for each list of entries. */
  get axis() {
    if (this.axisOf !== this.entries) {
      this.axisOf = this.entries;
      this.ownAxis = new StepAxis(this.entries.map((entry) => entry.step));
    }
    return this.ownAxis;
  }

  get entries() {
    return this.series?.entries ?? [];
  }

  /** The index of the snapshot that is subtracted; -1 where the weights themselves are shown. */
  reference(index, { difference: mode, pinned }) {
    if (mode === "first") return 0;
    if (mode === "previous") return Math.max(0, index - 1);
    return mode === "pinned" && pinned !== null ? this.series.indexAt(pinned) : -1;
  }

  isReady(index, view) {
    const reference = this.reference(index, view);
    return this.series.isLoaded(index) && (reference < 0 || this.series.isLoaded(reference));
  }

  require(index, view) {
    const reference = this.reference(index, view);
    return Promise.all([index, reference].filter((at) => at >= 0).map((at) => this.series.require(at)));
  }

  /** The values that are drawn: the weights, or a difference. Null until they are loaded. */
  values(index, view) {
    const reference = this.reference(index, view);
    const now = this.series.weights(index);
    const then = reference < 0 ? null : this.series.weights(reference);
    if (!now || (reference >= 0 && !then)) return null;
    return then ? difference(now, then) : now;
  }

  /** The key of the values: equal keys have equal values. */
  key(index, view) {
    const reference = this.reference(index, view);
    return [this.run, this.layer, this.entries[index]?.id, reference < 0 ? "" : this.entries[reference]?.id].join(" ");
  }

  /** The magnitude at the ends of each tile's colours; `common` is that of everything on the page. */
  halfRanges(values, index, view, common) {
    const isDifference = this.reference(index, view) >= 0;
    const floor = isDifference ? differenceFloor(this.series.scales(index), this.entries[index].dtype) : 0;
    return halfRanges(values, this.shape, view.scale === "run" ? common : view.scale, { floor });
  }

  /** Why the values have no scale, in words; null if they have one. */
  whyNoScale(values, index, view) {
    if (!values.some(Number.isFinite)) return "not finite";
    return this.reference(index, view) === index ? "no difference" : null;
  }

  /** Extend the scale of the run by loaded snapshots, for a limited time. Returns whether all are included. */
  widen(view) {
    if (view.difference === "none") {
      this.widest = { key: "", value: this.series.largest, done: new Map() };
      return true;
    }
    const key = [this.layer, view.difference, view.difference === "pinned" ? view.pinned : ""].join(" ");
    if (this.widest.key !== key || this.widest.entries !== this.entries) this.beginWidening(key, view);
    const { widest } = this, until = performance.now() + WIDENING_MILLISECONDS;
    if (widest.done.size === this.entries.length) return true;
    for (let index = 0; index < this.entries.length; index++) {
      const name = this.key(index, view);
      if (widest.done.has(name) || !this.isReady(index, view)) continue;
      if (performance.now() > until) return false;
      widest.done.set(name, this.largest(index, view));
      widest.value = Math.max(widest.value, widest.done.get(name));
    }
    return true;
  }

  /** Begin a new scale with the differences that are known and still exist. */
  beginWidening(key, view) {
    const before = this.widest.key === key ? this.widest.done : new Map();
    const names = this.entries.map((_, index) => this.key(index, view)).filter((name) => before.has(name));
    const done = new Map(names.map((name) => [name, before.get(name)]));
    this.widest = { key, entries: this.entries, done, value: Math.max(0, ...done.values()) };
  }

  largest(index, view) {
    return halfRanges(this.values(index, view), this.shape, "layer")[0];
  }

  /**
   * The names of a filter's verdicts, the worst first; null if its health was not examined or is
   * not loaded.
   */
  verdicts(index, filter, names) {
    if (!this.entries[index]?.verdicts || !this.series.isLoaded(index)) return null;
    const bits = this.series.bits(index)[filter];
    return names.filter((_, bit) => bits & (1 << bit));
  }

  close() {
    this.responder.close();
    this.series?.close();
  }
}

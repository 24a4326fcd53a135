import { difference, differenceFloor, halfRanges } from "./paint.js";
import { Responder } from "./responder.js";
import { Series } from "./series.js";
import { StepAxis } from "./step_axis.js";

const WHY_NO_RESPONSE = "A 3-D convolution reads several images at a time, and the probe is one.";
const WIDENING_MILLISECONDS = 6; // of each turn, spent on the scale of a whole run

/** One run on the page: the layer it shows, and the numbers that are drawn of it. */
export class Track {
  constructor(source, run, onChange) {
    Object.assign(this, { source, run, onChange, layer: null, series: null, info: null });
    this.responder = new Responder(source);
    this.widest = { key: "", value: 0, done: new Map() };
  }

  /** The layer, and of a live run what it has become; null where the run has no such layer. */
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

  /** Whether it reads signals: its filters respond to frequencies, not to a probe. */
  get isOfSignals() {
    return this.series?.shape.length === 3;
  }

  /** Why there are no responses of its filters, in a sentence; null where there are. */
  get whyNoResponse() {
    return this.shape.length === 5 ? WHY_NO_RESPONSE : null;
  }

  /** What there is of a layer of which not all channels are stored, in words. */
  get part() {
    const { shape: [, channels], total } = this.series;
    return channels < total.channels ? `of the first ${channels} of ${total.channels} channels` : "";
  }

  /** Where its own snapshots lie, made once for what there is of them. */
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

  /** Index of the snapshot that a difference is taken from; -1 where there is none. */
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

  /** What is drawn: the weights, or their difference. Null until they are loaded. */
  values(index, view) {
    const reference = this.reference(index, view);
    const now = this.series.weights(index);
    const then = reference < 0 ? null : this.series.weights(reference);
    if (!now || (reference >= 0 && !then)) return null;
    return then ? difference(now, then) : now;
  }

  /** What names the values: the same key, the same picture. */
  key(index, view) {
    const reference = this.reference(index, view);
    return [this.run, this.layer, this.entries[index]?.id, reference < 0 ? "" : this.entries[reference]?.id].join(" ");
  }

  /** The ends of each tile's colours; `common` is the scale of everything on the page. */
  halfRanges(values, index, view, common) {
    const isDifference = this.reference(index, view) >= 0;
    const floor = isDifference ? differenceFloor(this.series.scales(index), this.entries[index].dtype) : 0;
    return halfRanges(values, this.shape, view.scale === "run" ? common : view.scale, { floor });
  }

  /** Why the values have no scale, in words; null where they have one. */
  whyNoScale(values, index, view) {
    if (!values.some(Number.isFinite)) return "not finite";
    return this.reference(index, view) === index ? "no difference" : null;
  }

  /** Take what has been loaded into the scale of the run; true when nothing is left to do. */
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

  /** Keep what is known of differences that there still are. */
  beginWidening(key, view) {
    const before = this.widest.key === key ? this.widest.done : new Map();
    const names = this.entries.map((_, index) => this.key(index, view)).filter((name) => before.has(name));
    const done = new Map(names.map((name) => [name, before.get(name)]));
    this.widest = { key, entries: this.entries, done, value: Math.max(0, ...done.values()) };
  }

  largest(index, view) {
    return halfRanges(this.values(index, view), this.shape, "layer")[0];
  }

  /** Names of a filter's verdicts, the gravest first; null where nobody has looked. */
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

import { decodePayload, weightsOf } from "./decode.js";
import { DerivedRows, verdictMarksOf } from "./derived.js";
import { Loader, loadingOrder, Slot } from "./loader.js";

const KEPT_BYTES = 512 * 2 ** 20; // of payloads; the oldest ones beyond are dropped, and requested again when needed
const DECODED_BYTES = 16 * 2 ** 20; // of decoded weights
const DERIVING_MILLISECONDS = 6; // of each turn, spent on derived numbers

/**
 * One layer of one run in all its snapshots. An index counts the snapshots in the order of their steps.
 *
 * `onChange` is called at most once a frame, after something has arrived or was computed. `error` is
 * a sentence while the server does not answer, else null. `largest` is the largest magnitude that has
 * been loaded.
 */
export class Series {
  onChange = null;
  layer = "";
  shape = null;
  total = null;
  geometry = null;
  entries = [];
  loadedCount = 0;
  largest = 0;

  constructor(source, run) {
    this.run = run;
    this.slots = [];
    this.decoded = new Map();
    this.kept = new Set();
    this.keptBytes = 0;
    this.underived = [];
    this.reference = null;
    this.around = null;
    this.deriving = 0;
    this.frame = 0;
    this.isClosed = false;
    this.loader = new Loader({
      ask: (ids) => source.payloads(run, this.layer, ids),
      take: (slot, payload) => this.take(slot, payload),
      onProgress: () => this.progress(),
    });
  }

  /** Take over the layer's entry in the timeline. Loaded snapshots stay. */
  update(layerInfo) {
    if (layerInfo.name !== this.layer || String(layerInfo.shape) !== String(this.shape)) this.begin(layerInfo);
    this.entries = layerInfo.snapshots;
    this.marks = null;
    const before = new Map(this.slots.map((slot) => [slot.entry.id, slot]));
    this.slots = this.entries.map((entry) => {
      const slot = before.get(entry.id) ?? new Slot();
      before.delete(entry.id);
      return Object.assign(slot, { entry });
    });
    for (const slot of before.values()) this.drop(slot);
    if (before.size) this.largest = this.slots.reduce((most, slot) => Math.max(most, slot.largest), 0);
    this.chooseReference();
    if (this.around !== null) this.load(this.around);
    this.changed();
  }

  /**
   * Load everything: first the snapshot at the index, the first and the last one, then landmarks,
   * then the rest.
   */
  load(aroundIndex) {
    this.around = Math.max(0, Math.min(aroundIndex, this.entries.length - 1));
    const slots = loadingOrder(this.entries, this.around).map((index) => this.slots[index]);
    this.loader.want(slots.filter((slot) => slot.row < 0), 2 * this.weightCount());
  }

  /** Load a snapshot before all others. Resolves when it is loaded, rejects if it cannot be read now. */
  async require(index) {
    if (!this.isLoaded(index)) await this.loader.hurry(this.slots[index]);
  }

  isLoaded(index) {
    return Boolean(this.slots[index]?.payload);
  }

  /** The ids of snapshots that could not be read. Some are requested again later. */
  get failed() {
    return this.loader.failed;
  }

  get error() {
    return this.loader.error;
  }

  /** The index of the last snapshot at or before a step; 0 if there is none. */
  indexAt(step) {
    let low = 0, high = this.entries.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.entries[middle].step <= step) low = middle + 1;
      else high = middle;
    }
    return Math.max(0, low - 1);
  }

  /** The weights of a snapshot, null until it is loaded. The array is shared: do not modify it. */
  weights(index) {
    if (!this.isLoaded(index)) return null;
    const { id } = this.entries[index];
    const weights = this.decoded.get(id) ?? this.decode(this.slots[index]);
    this.decoded.delete(id);
    this.decoded.set(id, weights);
    if (this.decoded.size > 2 && this.decoded.size * weights.byteLength > DECODED_BYTES) {
      this.decoded.delete(this.decoded.keys().next().value);
    }
    return weights;
  }

  /** The largest magnitude of each filter. Null until the snapshot is loaded. */
    scales(index) {
    return this.isLoaded(index) ? this.parts(this.slots[index]).scales : null;
  }

  /** One byte for each filter: bit b is set if it has verdict b of the timeline's `verdict_names`. */
  bits(index) {
    return this.isLoaded(index) ? this.parts(this.slots[index]).bits : null;
  }

  /** The norm of each filter. Null until it is known. */
  norms(index) {
    return this.isKnown(index) ? this.derived.norms(this.slots[index].row) : null;
  }

  /**
   * The distance of each filter from the first snapshot, relative to its norm there. Null until it
   * is known.
   */
  changes(index) {
    return this.isKnown(index) ? this.derived.changes(this.slots[index].row) : null;
  }

  /** The drift of the layer: the recorded one, else that of the stored weights. NaN until it is known. */
  drift(index) {
    const row = this.slots[index]?.row ?? -1;
    return this.entries[index]?.drift ?? (row < 0 ? NaN : this.derived.drifts[row]);
  }

  /** The snapshots where a verdict began, or had more filters than in all before: `[{index, name, count}]`. */
  verdictMarks() {
    this.marks ??= verdictMarksOf(this.entries);
    return this.marks;
  }

  /** Stop loading, when the page shows something else. */
  close() {
    this.isClosed = true;
    this.loader.close();
    clearTimeout(this.deriving);
    cancelAnimationFrame(this.frame);
  }

  begin(layerInfo) {
    for (const slot of this.slots) this.drop(slot);
    this.layer = layerInfo.name;
    this.shape = layerInfo.shape;
    this.total = { filters: layerInfo.filters, channels: layerInfo.channels };
    this.geometry = layerInfo.geometry;
    this.slots = [];
    this.reference = null;
    this.derived = new DerivedRows(this.shape[0]);
    this.largest = 0;
  }

  drop(slot) {
    this.release(slot);
    this.discardDerived(slot);
    this.decoded.delete(slot.entry.id);
    this.loader.drop(slot);
  }

  weightCount() {
    return this.shape.reduce((product, side) => product * side, 1);
  }

  parts(slot) {
    return decodePayload(slot.payload, slot.entry, this);
  }

  decode(slot, into) {
    return weightsOf(this.parts(slot), slot.entry.dtype, this.shape, into);
  }

  take(slot, payload) {
    const { scales } = decodePayload(payload, slot.entry, this);
    slot.largest = scales.reduce((a, b) => (b > a && b < Infinity ? b : a), 0); // a damaged payload may hold NaN
    this.largest = Math.max(this.largest, slot.largest);
    slot.payload = payload;
    this.loadedCount++;
    this.kept.add(slot);
    this.keptBytes += payload.byteLength;
    if (slot.row < 0) this.underived.push(slot);
    this.keepWithinBounds();
  }

  release(slot) {
    if (!slot.payload) return;
    this.loadedCount--;
    this.kept.delete(slot);
    this.keptBytes -= slot.payload.byteLength;
    slot.payload = null;
  }

  keepWithinBounds() {
    for (const slot of this.kept) {
      if (this.keptBytes <= KEPT_BYTES) return;
      if (slot.row >= 0 && slot !== this.reference.slot && slot !== this.slots.at(-1)) this.release(slot);
    }
  }

  progress() {
    this.chooseReference();
    this.deriveSoon();
    this.changed();
  }

  changed() {
    if (this.isClosed || this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.onChange?.();
    });
  }

  /** Choose the first snapshot that can be read: changes are measured from it. */
  chooseReference() {
    const first = this.slots.find((slot) => !this.failed.has(slot.entry.id)) ?? null;
    if (first === (this.reference?.slot ?? null)) return;
    this.reference = first && { slot: first, weights: null };
    for (const slot of this.slots) this.discardDerived(slot);
    this.underived = this.slots.filter((slot) => slot.payload);
    if (this.around !== null) this.load(this.around);
    this.deriveSoon();
  }

  discardDerived(slot) {
    if (slot.row >= 0) this.derived.free(slot.row);
    slot.row = -1;
  }

  deriveSoon() {
    if (this.deriving || this.isClosed || !this.underived.length || !this.referenceWeights()) return;
    this.deriving = setTimeout(() => {
      this.deriving = 0;
      const until = performance.now() + DERIVING_MILLISECONDS;
      while (this.underived.length && performance.now() < until) this.derive(this.underived.pop());
      this.keepWithinBounds();
      this.changed();
      this.deriveSoon();
    });
  }

  derive(slot) {
    const reference = this.referenceWeights();
    if (slot.row >= 0 || !slot.payload || !reference) return;
    this.scratch = this.decode(slot, this.scratch);
    slot.row = this.derived.add(this.scratch, reference);
  }

  isKnown(index) {
    const slot = this.slots[index];
    if (slot) this.derive(slot);
    return slot?.row >= 0;
  }

  referenceWeights() {
    const { reference } = this;
    if (reference?.slot.payload) reference.weights ??= this.decode(reference.slot);
    return reference?.weights ?? null;
  }
}

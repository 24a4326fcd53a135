import { decodePayload, weightsOf } from "./decode.js";

/** One layer of one run through all its snapshots: loads them, and derives what curves show. */

const MOST_IDS = 64; // of a request, as the server has it
const FEW_IDS = 16; // while the page waits for them
const REQUEST_BYTES = 4 * 2 ** 20;
const AT_ONCE = 2; // requests
const KEPT_BYTES = 512 * 2 ** 20; // payloads; beyond, the oldest are asked for again when needed
const DECODED_BYTES = 16 * 2 ** 20;
const SLICE_MILLISECONDS_DERIVING = 6;
const RETRY_MILLISECONDS = [1000, 4000, 16000]; // for a payload that cannot be read
const LONGEST_PAUSE = 30000; // milliseconds, for a server that does not answer
const LANDMARKS = 32; // snapshots, log-spaced, that are loaded before the rest

/**
 * Snapshots by index, in the order of their steps.
 *
 * `onChange` is called at most once a frame, whenever something has arrived or was derived. `error`
 * is a sentence while the server does not answer, `largest` the largest magnitude seen so far.
 */
export class Series {
  onChange = null;
  layer = "";
  shape = null;
  total = null;
  geometry = null;
  entries = [];
  failed = new Set();
  loadedCount = 0;
  largest = 0;
  error = null;

  constructor(source, run) {
    this.source = source;
    this.run = run;
    this.slots = [];
    this.slotOf = new Map();
    this.decoded = new Map();
    this.kept = new Set();
    this.derived = new DerivedRows(0);
    this.queue = [];
    this.urgent = [];
    this.underived = [];
    this.around = null;
    this.inFlight = 0;
    this.pause = 0;
    this.frame = 0;
    this.timers = { load: 0, derive: 0 };
    this.closed = false;
  }

  /** Take over what the timeline tells of the layer; what is loaded stays. */
  update(layerInfo) {
    if (layerInfo.name !== this.layer || String(layerInfo.shape) !== String(this.layerInfo.shape)) this.reset(layerInfo);
    this.layerInfo = layerInfo;
    this.entries = layerInfo.snapshots;
    this.marks = null;
    const before = this.slotOf;
    this.slots = this.entries.map((entry) => Object.assign(before.get(entry.id) ?? newSlot(), { entry }));
    this.slotOf = new Map(this.slots.map((slot) => [slot.entry.id, slot]));
    for (const [id, slot] of before) if (!this.slotOf.has(id)) this.drop(slot);
    this.chooseReference();
    if (this.around !== null) this.load(Math.min(this.around, this.entries.length - 1));
    this.changed();
  }

  /** Load everything: the snapshot asked for, the first and the last, landmarks, then the rest. */
  load(aroundIndex) {
    this.around = aroundIndex;
    this.queue = loadingOrder(this.entries, aroundIndex).map((index) => this.slots[index]).reverse();
    this.loadMore();
  }

  /** Resolves once the snapshot is loaded, before others; rejects if it cannot be read now. */
  require(index) {
    const slot = this.slots[index];
    if (slot.payload) return Promise.resolve();
    if (slot.retryAt > performance.now()) return Promise.reject(unreadable(slot));
    return new Promise((resolve, reject) => {
      slot.waiting.push({ resolve, reject });
      this.urgent.push(slot);
      this.loadMore();
    });
  }

  isLoaded(index) {
    return Boolean(this.slots[index]?.payload);
  }

  /** The last snapshot at or before a step; the first if none is. */
  indexAt(step) {
    let low = 0, high = this.entries.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.entries[middle].step <= step) low = middle + 1;
      else high = middle;
    }
    return Math.max(0, low - 1);
  }

  /** Shared and kept for a while: not to be modified. null until loaded. */
  weights(index) {
    const slot = this.slots[index];
    if (!slot?.payload) return null;
    const { id, dtype } = slot.entry;
    const known = this.decoded.get(id);
    const weights = known ?? weightsOf(this.parts(slot), dtype, this.layerInfo.shape);
    this.decoded.delete(id);
    this.decoded.set(id, weights);
    if (this.decoded.size > 2 && this.decoded.size * weights.byteLength > DECODED_BYTES) {
      this.decoded.delete(this.decoded.keys().next().value);
    }
    return weights;
  }

  scales(index) {
    return this.isLoaded(index) ? this.parts(this.slots[index]).scales : null;
  }

  /** A byte a filter: bit b is set if it has verdict b of the timeline's `verdict_names`. */
  bits(index) {
    return this.isLoaded(index) ? this.parts(this.slots[index]).bits : null;
  }

  /** How strong each filter is. null until loaded. */
  norms(index) {
    return this.known(index) ? this.derived.norms(this.slots[index].row) : null;
  }

  /** How far each filter has gone from the first snapshot, in lengths of that. null until known. */
  changes(index) {
    return this.known(index) ? this.derived.changes(this.slots[index].row) : null;
  }

  /** How far the layer has gone, as `measures.movement` has it. NaN until known. */
  drift(index) {
    const row = this.slots[index]?.row ?? -1;
    return row < 0 ? NaN : this.derived.drifts[row];
  }

  /** Where a verdict began or had more filters than ever before: [{index, name, count}]. */
  verdictMarks() {
    this.marks ??= marksOf(this.entries);
    return this.marks;
  }

  /** Stop loading, for a page that shows something else. */
  close() {
    this.closed = true;
    this.queue = [];
    this.urgent = [];
    this.underived = [];
    clearTimeout(this.timers.load);
    clearTimeout(this.timers.derive);
    cancelAnimationFrame(this.frame);
  }

  reset(layerInfo) {
    for (const slot of this.slots) this.drop(slot);
    const [filters, channels, height, width] = layerInfo.shape;
    this.layer = layerInfo.name;
    this.shape = { filters, channels, height, width };
    this.total = { filters: layerInfo.filters, channels: layerInfo.channels };
    this.geometry = layerInfo.geometry;
    this.slotOf = new Map();
    this.reference = null;
    this.derived = new DerivedRows(filters);
    this.largest = 0;
  }

  drop(slot) {
    this.release(slot);
    this.failed.delete(slot.entry.id);
    this.decoded.delete(slot.entry.id);
    if (slot.row >= 0) this.derived.free(slot.row);
    slot.isGone = true;
    settle(slot, new Error(`The snapshot of step ${slot.entry.step} was replaced by a later attempt.`));
  }

  release(slot) {
    if (slot.payload) this.loadedCount--;
    slot.payload = null;
    this.kept.delete(slot);
  }

  parts(slot) {
    return decodePayload(slot.payload, slot.entry, this.layerInfo);
  }

  changed() {
    if (this.closed || this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.onChange?.();
    });
  }

  // Loading.

  loadMore() {
    while (!this.closed && this.inFlight < (this.loadedCount ? AT_ONCE : 1) && !this.timers.load) {
      const batch = this.nextBatch();
      if (batch.length === 0) return this.wakeForRetries();
      this.fetch(batch);
    }
  }

  nextBatch() {
    const isWanted = (slot) => !slot.isGone && !slot.payload && !slot.isComing && slot.retryAt <= performance.now();
    const [filters, channels, height, width] = this.layerInfo.shape;
    const fitting = Math.max(1, Math.floor(REQUEST_BYTES / (2 * filters * channels * height * width)));
    const batch = new Set();
    const take = (from, most, isOf) => {
      while (from.length && batch.size < Math.min(most, fitting)) {
        const slot = from.pop();
        if (isOf(slot)) batch.add(slot);
      }
    };
    take(this.urgent, FEW_IDS, isWanted);
    if (batch.size) return [...batch];
    const most = this.loadedCount === 0 ? 3 : this.loadedCount < FEW_IDS ? FEW_IDS : MOST_IDS;
    take(this.queue, most, (slot) => isWanted(slot) && slot.row < 0);
    return [...batch];
  }

  async fetch(batch) {
    this.inFlight++;
    for (const slot of batch) slot.isComing = true;
    try {
      const payloads = await this.source.payloads(this.run, this.layer, batch.map((slot) => slot.entry.id));
      batch.forEach((slot, k) => this.receive(slot, payloads[k]));
      this.pause = 0;
      this.error = null;
    } catch (error) {
      this.waitForServer(batch, error);
    }
    for (const slot of batch) slot.isComing = false;
    this.inFlight--;
    this.changed();
    this.loadMore();
  }

  receive(slot, payload) {
    if (slot.isGone || this.closed) return;
    try {
      if (!payload) throw unreadable(slot);
      const { scales } = decodePayload(payload, slot.entry, this.layerInfo);
      for (const scale of scales) if (scale > this.largest) this.largest = scale;
    } catch (error) {
      slot.retryAt = performance.now() + (RETRY_MILLISECONDS[slot.tries++] ?? Infinity);
      this.failed.add(slot.entry.id);
      this.chooseReference();
      settle(slot, error);
      return;
    }
    slot.payload = payload;
    this.loadedCount++;
    this.kept.add(slot);
    this.failed.delete(slot.entry.id);
    if (slot.row < 0) this.underived.push(slot);
    this.scheduleDeriving();
    settle(slot);
  }

  waitForServer(batch, error) {
    this.error = error.message;
    this.pause = Math.min(LONGEST_PAUSE, 2 * this.pause || 1000);
    this.queue.push(...batch.reverse());
    for (const slot of batch) settle(slot, error);
    this.wakeAfter(this.pause);
  }

  /** When nothing else is left, what failed is tried again as its pause ends. */
  wakeForRetries() {
    if (this.inFlight || this.around === null) return;
    const waiting = this.slots.filter((slot) => this.failed.has(slot.entry.id) && slot.retryAt < Infinity);
    if (waiting.length === 0) return;
    const soonest = Math.min(...waiting.map((slot) => slot.retryAt));
    this.queue.push(...waiting);
    this.wakeAfter(Math.max(0, soonest - performance.now()));
  }

  wakeAfter(milliseconds) {
    clearTimeout(this.timers.load);
    this.timers.load = setTimeout(() => {
      this.timers.load = 0;
      this.loadMore();
    }, milliseconds);
  }

  // Deriving.

  known(index) {
    const slot = this.slots[index];
    if (slot?.row < 0 && slot.payload && this.reference?.weights) this.derive(slot);
    return slot?.row >= 0;
  }

  /** Changes are from the first snapshot that can be read. */
  chooseReference() {
    const first = this.slots.find((slot) => slot.payload || slot.row >= 0 || slot.retryAt < Infinity) ?? null;
    if (first === this.reference?.slot) return;
    this.reference = first && { slot: first, weights: null, norms: null };
    this.underived = this.slots.filter((slot) => slot.payload);
    for (const slot of this.slots) {
      if (slot.row >= 0) this.derived.free(slot.row);
      slot.row = -1;
    }
    this.scheduleDeriving();
  }

  scheduleDeriving() {
    if (this.timers.derive || this.closed || !this.underived.length || !this.readReference()) return;
    this.timers.derive = setTimeout(() => {
      this.timers.derive = 0;
      const until = performance.now() + SLICE_MILLISECONDS_DERIVING;
      while (this.underived.length && performance.now() < until) this.derive(this.underived.pop());
      this.changed();
      this.scheduleDeriving();
    });
  }

  readReference() {
    const { reference } = this;
    if (reference?.weights || !reference?.slot.payload) return Boolean(reference?.weights);
    reference.weights = weightsOf(this.parts(reference.slot), reference.slot.entry.dtype, this.layerInfo.shape);
    return true;
  }

  derive(slot) {
    if (slot.row >= 0 || !slot.payload) return;
    this.scratch = weightsOf(this.parts(slot), slot.entry.dtype, this.layerInfo.shape, this.scratch);
    slot.row = this.derived.add(this.scratch, this.reference.weights);
    this.keepWithinBounds();
  }

  keepWithinBounds() {
    let most = Math.floor(KEPT_BYTES / this.slots[0].payload?.byteLength);
    for (const slot of this.kept) {
      if (!(this.kept.size > most)) return;
      if (slot.row >= 0 && slot !== this.slots[0] && slot !== this.slots.at(-1)) this.release(slot);
    }
  }
}

/** A row of numbers a snapshot, in three arrays that grow. */
class DerivedRows {
  constructor(filters) {
    this.filters = filters;
    this.count = 0;
    this.freed = [];
    this.allNorms = new Float32Array(0);
    this.allChanges = new Float32Array(0);
    this.drifts = new Float64Array(0);
  }

  norms(row) {
    return this.allNorms.subarray(row * this.filters, (row + 1) * this.filters);
  }

  changes(row) {
    return this.allChanges.subarray(row * this.filters, (row + 1) * this.filters);
  }

  free(row) {
    this.freed.push(row);
  }

  add(weights, reference) {
    const row = this.freed.pop() ?? this.count++;
    if (row >= this.drifts.length) this.grow();
    const size = weights.length / this.filters;
    let way = 0, whole = 0;
    for (let filter = 0, at = 0; filter < this.filters; filter++) {
      let energy = 0, moved = 0, before = 0;
      for (const end = at + size; at < end; at++) {
        const now = weights[at], then = reference[at];
        energy += now * now;
        before += then * then;
        moved += (now - then) * (now - then);
      }
      this.allNorms[row * this.filters + filter] = Math.sqrt(energy);
      this.allChanges[row * this.filters + filter] = Math.sqrt(moved) / Math.sqrt(before);
      if (moved < Infinity) {
        way += moved;
        whole += before;
      }
    }
    this.drifts[row] = Math.sqrt(way) / Math.sqrt(whole);
    return row;
  }

  grow() {
    const rows = Math.max(64, 2 * this.drifts.length);
    const larger = (old, width) => {
      const grown = new old.constructor(rows * width);
      grown.set(old);
      return grown;
    };
    this.allNorms = larger(this.allNorms, this.filters);
    this.allChanges = larger(this.allChanges, this.filters);
    this.drifts = larger(this.drifts, 1);
  }
}

/** Indices, most wanted first: every curve and film strip fills in from coarse to fine. */
export function loadingOrder(entries, around) {
  if (entries.length === 0) return [];
  const last = entries.length - 1;
  const order = new Set([around, 0, last]);
  const span = entries[last].step - entries[0].step + 1;
  for (let k = 1, at = 0; k < LANDMARKS; k++) {
    const step = entries[0].step + span ** (k / LANDMARKS) - 1;
    while (at < last && entries[at].step < step) at++;
    order.add(at);
  }
  for (let stride = 2 ** Math.ceil(Math.log2(entries.length)); stride >= 1; stride /= 2) {
    for (let index = 0; index <= last; index += stride) order.add(index);
  }
  return [...order];
}

function newSlot() {
  return { payload: null, row: -1, tries: 0, retryAt: 0, isComing: false, isGone: false, waiting: [] };
}

function unreadable({ entry }) {
  return new Error(`The snapshot of step ${entry.step} could not be read.`);
}

function settle(slot, error) {
  const waiting = slot.waiting.splice(0);
  for (const { resolve, reject } of waiting) error ? reject(error) : resolve();
}

function marksOf(entries) {
  const marks = [], most = {}, last = {};
  entries.forEach(({ verdicts }, index) => {
    for (const [name, count] of Object.entries(verdicts ?? {})) {
      if (count > (most[name] ?? 0) || (count > 0 && last[name] === 0)) marks.push({ index, name, count });
      most[name] = Math.max(count, most[name] ?? 0);
      last[name] = count;
    }
  });
  return marks;
}

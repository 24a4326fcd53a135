/** Loads payloads in few requests, first those that the page waits for. */

const MOST_IDS = 64; // of a request: the server's limit
const FEW_IDS = 16; // of a request that the page waits for
const FIRST_IDS = 3; // of the first request
const REQUESTS_AT_ONCE = 2;
const REQUEST_BYTES = 4 * 2 ** 20;
const RETRY_MILLISECONDS = [1000, 4000, 16000]; // before a payload that cannot be read is requested again
const FIRST_PAUSE = 1000; // milliseconds, after a request without an answer; doubled each time
const LONGEST_PAUSE = 30000; // milliseconds
const LANDMARKS = 32; // log-spaced snapshots that are loaded before the rest

/** A snapshot with its state of loading, and the promises that wait for it. */
export class Slot {
  entry = null;
  payload = null;
  largest = 0; // largest magnitude of its weights
  row = -1; // index of its row in `DerivedRows`
  retryAt = 0;
  tries = 0;
  isComing = false;
  isGone = false;
  waiting = [];

  settle(error) {
    for (const { resolve, reject } of this.waiting.splice(0)) error ? reject(error) : resolve();
  }

  unreadable() {
    return new Error(`The snapshot of step ${this.entry.step} could not be read.`);
  }
}

/**
 * Loads slots, some at a time.
 *
 * `ask(ids)` fetches payloads. `take(slot, payload)` receives each payload, and throws if it is
 * damaged. `onProgress` is called after each request.
 */
export class Loader {
  failed = new Set();
  error = null;

  constructor({ ask, take, onProgress }) {
    Object.assign(this, { ask, take, onProgress });
    this.queue = [];
    this.urgent = [];
    this.toRetry = new Set();
    this.received = 0;
    this.inFlight = 0;
    this.pause = 0;
    this.pausing = 0;
    this.retrying = 0;
    this.isClosed = false;
  }

  /** Replace the queue by these slots, the most wanted first. */
  want(slots, payloadBytes) {
    this.queue = slots.reverse();
    this.fitting = Math.max(1, Math.floor(REQUEST_BYTES / payloadBytes));
    this.next();
  }

  /** Load a slot before all others; the latest such request comes first. Rejects if it cannot be read now. */
  hurry(slot) {
    if (slot.retryAt > performance.now()) return Promise.reject(slot.unreadable());
    return new Promise((resolve, reject) => {
      slot.waiting.push({ resolve, reject });
      this.urgent.push(slot);
      this.next();
    });
  }

  drop(slot) {
    slot.isGone = true;
    this.failed.delete(slot.entry.id);
    this.toRetry.delete(slot);
    slot.settle(new Error(`A later attempt replaced the snapshot of step ${slot.entry.step}.`));
  }

  close() {
    this.isClosed = true;
    clearTimeout(this.pausing);
    clearTimeout(this.retrying);
  }

  next() {
    const most = this.received ? REQUESTS_AT_ONCE : 1;
    while (!this.isClosed && !this.pausing && this.inFlight < most) {
      const batch = this.nextBatch();
      if (batch.length === 0) return this.awaitRetries();
      this.request(batch);
    }
  }

  nextBatch() {
    const urgent = this.pick(this.urgent, FEW_IDS);
    if (urgent.length) return urgent;
    return this.pick(this.queue, this.received === 0 ? FIRST_IDS : this.received < FEW_IDS ? FEW_IDS : MOST_IDS);
  }

  pick(slots, most) {
    const picked = new Set(), now = performance.now();
    while (slots.length && picked.size < Math.min(most, this.fitting)) {
      const slot = slots.pop();
      if (!slot.isGone && !slot.payload && !slot.isComing && slot.retryAt <= now) picked.add(slot);
    }
    return [...picked];
  }

  async request(batch) {
    this.inFlight++;
    for (const slot of batch) slot.isComing = true;
    try {
      const payloads = await this.ask(batch.map((slot) => slot.entry.id));
      batch.forEach((slot, k) => this.receive(slot, payloads[k]));
      this.error = null;
      this.pause = 0;
    } catch (error) {
      this.awaitServer(batch, error);
    }
    for (const slot of batch) slot.isComing = false;
    this.inFlight--;
    this.onProgress();
    this.next();
  }

  receive(slot, payload) {
    if (slot.isGone || this.isClosed) return;
    try {
      if (!payload) throw slot.unreadable();
      this.take(slot, payload);
    } catch (error) {
      this.fail(slot, error);
      return;
    }
    this.received++;
    this.failed.delete(slot.entry.id);
    this.toRetry.delete(slot);
    slot.settle();
  }

  fail(slot, error) {
    slot.retryAt = performance.now() + (RETRY_MILLISECONDS[slot.tries++] ?? Infinity);
    this.failed.add(slot.entry.id);
    if (slot.retryAt < Infinity) this.toRetry.add(slot);
    else this.toRetry.delete(slot);
    slot.settle(error);
  }

  awaitServer(batch, error) {
    this.error = error.message;
    this.pause = Math.min(LONGEST_PAUSE, 2 * this.pause || FIRST_PAUSE);
    this.queue.push(...batch.reverse());
    for (const slot of batch) slot.settle(error);
    clearTimeout(this.pausing);
    this.pausing = setTimeout(() => {
      this.pausing = 0;
      this.next();
    }, this.pause);
  }

  /** When the queue is empty, request the failed slots again after their pause. */
  awaitRetries() {
    clearTimeout(this.retrying);
    if (this.inFlight || this.toRetry.size === 0) return;
    const soonest = [...this.toRetry].reduce((least, slot) => Math.min(least, slot.retryAt), Infinity);
    this.retrying = setTimeout(() => {
      this.queue.push(...this.toRetry);
      this.next();
    }, soonest - performance.now());
  }
}

/**
 * Indices of snapshots, the most wanted first, so that curves and film strips appear coarse first
 * and then get finer.
 */
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

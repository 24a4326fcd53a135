import { averagesOf, respond, responseShape } from "./convolve.js";
import { matched } from "./matching.js";

/**
 * Responses for the page: of one filter at once, of all filters in a worker or, without a worker,
 * in slices of time.
 */

const SLICE_MILLISECONDS = 8; // of each turn, spent on responses without a worker

/**
 * Computes responses and pairs in a worker. A new response grid ends the last one.
 *
 * A request is `{planes, probeShape, kernels, shape, dilation, groups, shrink, summed, total}`, the
 * arguments and options of `respond`. Its arrays must not change afterwards.
 */
export class Responder {
  constructor(source) {
    this.source = source;
    this.worker = null;
    this.canWork = true;
    this.sentPlanes = null;
    this.lastId = 0;
    this.job = null;
    this.matches = new Map();
    this.averages = null;
  }

  /** Compute the response of one filter at once. At full size this takes some milliseconds. */
  one(request, filter) {
    return this.respondHere(request, filter);
  }

  /**
   * Compute the responses of all filters and call `onChunk({first, filters, planes, height, width, data, done})` for each chunk.
   *
   * Throws at once if the probe does not fit the layer. Returns a function that stops it.
   */
  grid(request, onChunk) {
    const { planes, probeShape, kernels, shape } = request;
    const options = optionsOf(request);
    responseShape(probeShape, shape, options);
    const job = { id: ++this.lastId, request, onChunk, next: 0 };
    this.job = job;
    if (this.start()) {
      const sent = planes === this.sentPlanes ? null : planes;
      this.sentPlanes = planes;
      this.worker.postMessage({ id: job.id, kind: "respond", planes: sent, probeShape, kernels, shape, options });
    } else {
      this.inSlices(job);
    }
    return () => {
      if (this.job !== job) return;
      this.job = null;
      this.worker?.postMessage({ kind: "cancel" });
    };
  }

  /** Pair the filters of `a` with those of `b`. Resolves to the result of `matched`. */
  match(a, shapeA, b, shapeB) {
    const id = ++this.lastId;
    return new Promise((resolve, reject) => {
      this.matches.set(id, { layers: { a, shapeA, b, shapeB }, resolve, reject });
      if (this.start()) this.worker.postMessage({ id, kind: "match", a, shapeA, b, shapeB });
      else this.matchHere(id);
    });
  }

  /** End the worker, when the page shows something else. It starts again when needed. */
  close() {
    this.job = null;
    this.matches.clear();
    this.stop();
  }

  start() {
    if (this.worker || !this.canWork) return this.canWork;
    try {
      this.worker = this.source.makeWorker();
    } catch {
      this.canWork = false;
      return false;
    }
    this.worker.onmessage = (event) => this.receive(event.data);
    this.worker.onerror = (event) => this.replaceWorker(event);
    return true;
  }

  stop() {
    this.worker?.terminate();
    this.worker = null;
    this.sentPlanes = null;
  }

  /** The worker failed: compute on the page what it has not delivered, and everything from now on. */
  replaceWorker(event) {
    event.preventDefault();
    this.canWork = false;
    this.stop();
    if (this.job) this.inSlices(this.job);
    for (const id of this.matches.keys()) this.matchHere(id);
  }

  receive({ id, chunk, match, error }) {
    const waiting = this.matches.get(id);
    this.matches.delete(id);
    if (waiting) error ? waiting.reject(new Error(error)) : waiting.resolve(match);
    else if (id === this.job?.id) error ? this.inSlices(this.job) : this.deliver(this.job, chunk);
  }

  deliver(job, chunk) {
    job.next = chunk.first + chunk.filters;
    if (chunk.done) this.job = null;
    job.onChunk(chunk);
  }

  inSlices(job) {
    setTimeout(() => {
      const until = performance.now() + SLICE_MILLISECONDS;
      while (this.job === job && performance.now() < until) {
        const first = job.next, done = first + 1 === job.request.shape[0];
        this.deliver(job, { ...this.respondHere(job.request, first), first, done });
      }
      if (this.job === job) this.inSlices(job);
    });
  }

  respondHere(request, filter) {
    const { planes, probeShape, kernels, shape, shrink = 1 } = request;
    if (this.averages?.planes !== planes || this.averages.shrink !== shrink) {
      this.averages = { planes, shrink, value: averagesOf(planes, probeShape, shrink) };
    }
    const options = { ...optionsOf(request), averages: this.averages.value, filters: [filter, filter + 1] };
    return respond(planes, probeShape, kernels, shape, options);
  }

  matchHere(id) {
    setTimeout(() => {
      if (!this.matches.has(id)) return;
      const { layers: { a, shapeA, b, shapeB }, resolve, reject } = this.matches.get(id);
      this.matches.delete(id);
      try {
        resolve(matched(a, shapeA, b, shapeB));
      } catch (error) {
        reject(error);
      }
    });
  }
}

function optionsOf({ dilation, groups, shrink, summed, total }) {
  return { dilation, groups, shrink, summed, total };
}

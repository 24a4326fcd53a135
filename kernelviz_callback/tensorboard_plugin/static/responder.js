import { averagesOf, respond, responseShape } from "./convolve.js";
import { assign, cosines } from "./matching.js";

/** Responses for the page: one filter at once, a grid from the worker or, without one, in slices. */

const SLICE_MILLISECONDS = 8;

/**
 * The front of the worker. One grid at a time: a new one ends the one before.
 *
 * A request is `{planes, probeShape, kernels, shape, dilation, groups, shrink, summed, total}`, the
 * arguments and options of `respond`.
 */
export class Responder {
  constructor(source) {
    this.source = source;
    this.worker = null;
    this.works = true;
    this.lastId = 0;
    this.grids = new Map();
    this.matches = new Map();
    this.sentPlanes = null;
  }

  /** The response of one filter, at once: full size takes some milliseconds. */
  one(request, filter) {
    const { planes, probeShape, kernels, shape } = request;
    return respond(planes, probeShape, kernels, shape, { ...optionsOf(request), filters: [filter, filter + 1] });
  }

  /**
   * All filters; `onChunk({first, filters, planes, height, width, data, done})` as they come.
   *
   * Throws at once where the probe does not fit the layer. Returns a function that ends it.
   */
  grid(request, onChunk) {
    responseShape(request.probeShape, request.shape, request);
    const id = ++this.lastId;
    this.grids.clear();
    const job = { request, onChunk, next: 0 };
    this.grids.set(id, job);
    const worker = this.ready();
    if (worker) this.send(worker, id, request);
    else this.inSlices(id, job);
    return () => {
      if (this.grids.delete(id)) this.worker?.postMessage({ kind: "cancel" });
    };
  }

  /** The partner of each filter of `a` among those of `b`, -1 where there is none. */
  match(a, shapeA, b, shapeB) {
    const id = ++this.lastId;
    return new Promise((resolve, reject) => {
      this.matches.set(id, { arguments: { a, shapeA, b, shapeB }, resolve, reject });
      const worker = this.ready();
      if (worker) worker.postMessage({ id, kind: "match", a, shapeA, b, shapeB });
      else this.matchHere(id);
    });
  }

  /** End the worker: for a page that goes away. */
  close() {
    this.grids.clear();
    this.worker?.terminate();
    this.worker = null;
  }

  ready() {
    if (this.worker || !this.works) return this.worker;
    try {
      this.worker = this.source.makeWorker();
      this.worker.onmessage = (event) => this.receive(event.data);
      this.worker.onerror = (event) => this.giveUp(event);
    } catch {
      this.works = false;
    }
    return this.worker;
  }

  send(worker, id, { planes, probeShape, kernels, shape, ...rest }) {
    const known = planes === this.sentPlanes;
    this.sentPlanes = planes;
    const options = optionsOf(rest);
    worker.postMessage({ id, kind: "respond", planes: known ? null : planes, probeShape, kernels, shape, options });
  }

  receive({ id, chunk, partner, error }) {
    if (chunk && this.grids.has(id)) this.deliver(id, chunk);
    const match = this.matches.get(id);
    this.matches.delete(id);
    if (match && error) match.reject(new Error(error));
    else if (match) match.resolve(partner);
    else if (error) this.grids.delete(id);
  }

  deliver(id, chunk) {
    const job = this.grids.get(id);
    job.next = chunk.first + chunk.filters;
    if (chunk.done) this.grids.delete(id);
    job.onChunk(chunk);
  }

  /** The worker does not run here: what it owes is computed on the page. */
  giveUp(event) {
    event.preventDefault();
    this.works = false;
    this.worker?.terminate();
    this.worker = null;
    for (const [id, job] of this.grids) this.inSlices(id, job);
    for (const id of [...this.matches.keys()]) this.matchHere(id);
  }

  matchHere(id) {
    const { arguments: { a, shapeA, b, shapeB }, resolve, reject } = this.matches.get(id);
    this.matches.delete(id);
    setTimeout(() => {
      try {
        resolve(assign(cosines(a, shapeA, b, shapeB), shapeA[0], shapeB[0]));
      } catch (error) {
        reject(error);
      }
    });
  }

  inSlices(id, { request, next }) {
    const { planes, probeShape, kernels, shape } = request;
    const averages = averagesOf(planes, probeShape, request.shrink ?? 1);
    const slice = () => {
      const until = performance.now() + SLICE_MILLISECONDS;
      while (this.grids.has(id) && performance.now() < until) {
        const options = { ...optionsOf(request), averages, filters: [next, next + 1] };
        const chunk = respond(planes, probeShape, kernels, shape, options);
        this.deliver(id, { ...chunk, first: next, done: ++next === shape[0] });
      }
      if (this.grids.has(id)) setTimeout(slice);
    };
    setTimeout(slice);
  }
}

function optionsOf({ dilation, groups, shrink, summed, total }) {
  return { dilation, groups, shrink, summed, total };
}

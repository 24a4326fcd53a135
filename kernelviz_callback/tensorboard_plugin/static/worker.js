import { averagesOf, respond } from "./convolve.js";
import { assign, cosines } from "./matching.js";

/** Computes beside the page: responses chunk by chunk, matchings at once. */

const CHUNK_MILLISECONDS = 30;

let latestGrid = 0;
let workerProbe = null;

/** What the worker does with a message; a newer grid ends an older one. */
export async function work(message) {
  try {
    if (message.kind === "match") sendMatch(message);
    else if (message.kind === "cancel") latestGrid = 0;
    else await sendGrid(message);
  } catch (error) {
    self.postMessage({ id: message.id, error: error.message });
  }
}

function sendMatch({ id, a, shapeA, b, shapeB }) {
  const partner = assign(cosines(a, shapeA, b, shapeB), shapeA[0], shapeB[0]);
  self.postMessage({ id, partner }, [partner.buffer]);
}

async function sendGrid({ id, planes, probeShape, kernels, shape, options }) {
  latestGrid = id;
  workerProbe = planes ?? workerProbe;
  const averages = averagesOf(workerProbe, probeShape, options.shrink ?? 1);
  let count = 1;
  for (let first = 0; first < shape[0] && latestGrid === id; ) {
    const last = Math.min(shape[0], first + count);
    const began = performance.now();
    const chunk = respond(workerProbe, probeShape, kernels, shape, { ...options, averages, filters: [first, last] });
    count = Math.max(1, Math.round((count * CHUNK_MILLISECONDS) / Math.max(1, performance.now() - began)));
    self.postMessage({ id, chunk: { ...chunk, first, done: last === shape[0] } }, [chunk.data.buffer]);
    first = last;
    await nextMessages();
  }
}

/** Let messages that wait be read: one of them may end this grid. */
function nextMessages() {
  return new Promise((resolve) => {
    const channel = new MessageChannel();
    channel.port1.onmessage = resolve;
    channel.port2.postMessage(null);
  });
}

if (typeof WorkerGlobalScope !== "undefined" && self instanceof WorkerGlobalScope) {
  self.onmessage = (event) => work(event.data);
}

import { averagesOf, respond } from "./convolve.js";
import { matched } from "./matching.js";

/** The worker: it computes responses in chunks, and pairs of filters at once. */

const CHUNK_MILLISECONDS = 30; // the time that a chunk should take

let currentGrid = 0;
let currentProbe = null;

/** Answer a message of the `Responder`. A new grid ends the last one. */
export async function answer(message) {
  try {
    if (message.kind === "match") answerMatch(message);
    else if (message.kind === "cancel") currentGrid = 0;
    else await answerGrid(message);
  } catch (error) {
    self.postMessage({ id: message.id, error: error.message });
  }
}

function answerMatch({ id, a, shapeA, b, shapeB }) {
  const match = matched(a, shapeA, b, shapeB);
  self.postMessage({ id, match }, [match.partner.buffer]);
}

async function answerGrid({ id, planes, probeShape, kernels, shape, options }) {
  currentGrid = id;
  currentProbe = planes ?? currentProbe; // null stands for the last probe
  const averages = averagesOf(currentProbe, probeShape, options.shrink ?? 1);
  let count = 1;
  for (let first = 0; first < shape[0] && currentGrid === id; ) {
    const last = Math.min(shape[0], first + count);
    const began = performance.now();
    const chunk = respond(currentProbe, probeShape, kernels, shape, { ...options, averages, filters: [first, last] });
    count = Math.max(1, Math.floor((count * CHUNK_MILLISECONDS) / Math.max(1, performance.now() - began)));
    self.postMessage({ id, chunk: { ...chunk, first, done: last === shape[0] } }, [chunk.data.buffer]);
    first = last;
    await messagesAreRead();
  }
}

/** Let the worker read waiting messages, which may end this grid. */
function messagesAreRead() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

if (typeof WorkerGlobalScope !== "undefined" && self instanceof WorkerGlobalScope) {
  self.onmessage = (event) => answer(event.data);
}

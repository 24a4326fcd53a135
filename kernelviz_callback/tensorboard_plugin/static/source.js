import { bytesOfBase64 } from "./base64.js";

/** Where the data comes from: TensorBoard's server, or the report that holds the page itself. */

/** The plugin's routes. Addresses are relative: the frame's base is `plugin/kernels/`. */
export class TabSource {
  live = true;

  /** All runs, layers and snapshots; `{unchanged: true}` if that is still `revision`. */
  async timeline(revision) {
    const query = revision ? `?${new URLSearchParams({ revision })}` : "";
    return asked(`timeline${query}`, (reply) => reply.json());
  }

  /** The payloads of at most 64 snapshots; null for one that could not be read. */
  async payloads(run, layer, ids) {
    const query = new URLSearchParams({ run, layer, ids: ids.join(",") });
    return asked(`snapshots?${query}`, async (reply) => splitPayloads(await reply.arrayBuffer(), ids.length));
  }

  async probe(run, digest) {
    return asked(`probe?${new URLSearchParams({ run, digest })}`, (reply) => reply.arrayBuffer());
  }

  makeWorker() {
    return new Worker("worker.js", { type: "module" });
  }
}

/** The data embedded in a report: the same methods, and no network. */
export class EmbeddedSource {
  live = false;

  constructor() {
    this.data = JSON.parse(document.getElementById("kernels-data").textContent);
    this.notes = this.data.notes ?? [];
  }

  async timeline() {
    return this.data.timeline;
  }

  async payloads(run, layer, ids) {
    await new Promise((resolve) => setTimeout(resolve)); // between two requests the page may draw
    const ofLayer = ownOf(ownOf(this.data.payloads, run), layer);
    return ids.map((id) => ownOf(ofLayer, id)).map((text) => (text ? bytesOfBase64(text).buffer : null));
  }

  async probe(run, digest) {
    const found = ownOf(ownOf(this.data.probes, run), digest);
    if (!found) throw new Error("This report does not hold the probe of this snapshot.");
    return bytesOfBase64(found).buffer;
  }

  makeWorker() {
    const text = document.getElementById("kernels-worker").textContent;
    const address = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
    const worker = new Worker(address);
    URL.revokeObjectURL(address);
    return worker;
  }
}

/** Ask, and once more if that failed: the fast loader drops a request now and then. */
async function asked(address, read) {
  try {
    return await askedOnce(address, read);
  } catch {
    return askedOnce(address, read);
  }
}

async function askedOnce(address, read) {
  const reply = await fetch(address, { cache: "no-store" }).catch(() => null);
  if (reply === null) throw new Error("TensorBoard does not answer. Is it still running?");
  if (!reply.ok) throw new Error(await reasonOf(reply));
  return read(reply).catch(() => {
    throw new Error("TensorBoard's answer was cut off.");
  });
}

async function reasonOf(reply) {
  const told = await reply.json().catch(() => null);
  return told?.error ?? `TensorBoard answered with an error (${reply.status} ${reply.statusText}).`;
}

/** uint32 count, count lengths, then the payloads; a length of 0 is one that could not be read. */
function splitPayloads(reply, expected) {
  const view = new DataView(reply);
  const count = reply.byteLength >= 4 ? view.getUint32(0, true) : 0;
  let at = 4 + 4 * count;
  if (count !== expected || at > reply.byteLength) throw new Error(`${reply.byteLength} bytes of ${expected} payloads`);
  return Array.from({ length: count }, (_, k) => {
    const length = view.getUint32(4 + 4 * k, true);
    at += length;
    return length > 0 && at <= reply.byteLength ? reply.slice(at - length, at) : null;
  });
}

/** Not what every object inherits: a layer may be called "constructor". */
function ownOf(table, name) {
  return table && Object.hasOwn(table, name) ? table[name] : null;
}

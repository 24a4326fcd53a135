import { bytesOfBase64 } from "./base64.js";

/** The source of the data: TensorBoard's server, or the report that the page is part of. */

/** Requests to the plugin in TensorBoard. Addresses are relative to the frame's base, `plugin/kernels/`. */
export class TabSource {
  live = true;

  /** All runs, layers and snapshots; `{unchanged: true}` if the revision is still the same. */
  async timeline(revision) {
    const query = revision ? `?${new URLSearchParams({ revision })}` : "";
    return fetchTwice(`timeline${query}`, (reply) => reply.json());
  }

  /** The payloads of at most 64 snapshots; null for a snapshot that could not be read. */
  async payloads(run, layer, ids) {
    const query = new URLSearchParams({ run, layer, ids: ids.join(",") });
    return fetchTwice(`snapshots?${query}`, async (reply) => splitPayloads(await reply.arrayBuffer(), ids.length));
  }

  async probe(run, digest) {
    return fetchTwice(`probe?${new URLSearchParams({ run, digest })}`, (reply) => reply.arrayBuffer());
  }

  makeWorker() {
    return new Worker("worker.js", { type: "module" });
  }
}

/** The data that is embedded in a report. This class has the methods of `TabSource`, without requests. */
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
    await new Promise((resolve) => setTimeout(resolve)); // let the page draw between two requests
    const ofLayer = ownEntry(ownEntry(this.data.payloads, run), layer);
    return ids.map((id) => ownEntry(ofLayer, id)).map((text) => (text ? bytesOfBase64(text).buffer : null));
  }

  async probe(run, digest) {
    const found = ownEntry(ownEntry(this.data.probes, run), digest);
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

/** Fetch an address and read the reply. Retry once, because TensorBoard's fast loader sometimes drops a request. */
async function fetchTwice(address, read) {
  try {
    return await fetchOnce(address, read);
  } catch {
    return fetchOnce(address, read);
  }
}

async function fetchOnce(address, read) {
  const reply = await fetch(address, { cache: "no-store" }).catch(() => null);
  if (reply === null) throw new Error("TensorBoard does not answer. Is it still running?");
  if (!reply.ok) throw new Error(await errorReason(reply));
  return read(reply).catch(() => {
    throw new Error("TensorBoard's answer was cut off.");
  });
}

async function errorReason(reply) {
  const answer = await reply.json().catch(() => null);
  return answer?.error ?? `TensorBoard answered with an error (${reply.status} ${reply.statusText}).`;
}

/**
 * Split a reply into payloads. A payload of length 0 could not be read and becomes null.
 *
 * The reply has three parts: the number of payloads as a uint32, the length of each payload as a
 * uint32, and the payloads.
 */
function splitPayloads(reply, expected) {
  const view = new DataView(reply);
  const count = reply.byteLength >= 4 ? view.getUint32(0, true) : 0;
  let at = 4 + 4 * count;
  if (count !== expected || at > reply.byteLength) {
    throw new Error(`A reply of ${reply.byteLength} bytes does not hold ${expected} payloads.`);
  }
  return Array.from({ length: count }, (_, k) => {
    const length = view.getUint32(4 + 4 * k, true);
    at += length;
    return length > 0 && at <= reply.byteLength ? reply.slice(at - length, at) : null;
  });
}

/** An entry of a table, or null. Inherited properties do not count: a layer may have the name "constructor". */
function ownEntry(table, name) {
  return table && Object.hasOwn(table, name) ? table[name] : null;
}

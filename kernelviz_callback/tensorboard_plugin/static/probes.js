import { decodeProbe, probeForChannels } from "./decode.js";
import { averagesOf, respond, responseShape } from "./convolve.js";
import { grouped } from "./dom.js";

const MOST_PROBE_VALUES = 2 ** 27; // of all channels: 512 MiB
export const OWN_SIDE = 224; // pixels: the size of the test chart, and to which Python shrinks image files
const FREQUENCIES = { id: "frequencies", planes: [], note: "0 to half the sampling rate" }; // takes the place of a probe for 1-D layers
export const MOST_PLANES_SHOWN = 16; // response planes of one filter; of more planes only the sum is shown

/** The images that filters are convolved with: those of the runs, or one that the user chose. */
export class Probes {
  constructor(source, onChange) {
    Object.assign(this, { source, onChange, own: null, ownCount: 0, known: new Map() });
  }

  setOwn(probe) {
    this.own = probe && { id: `own ${++this.ownCount}`, probe, adapted: new Map() };
    this.onChange();
  }

  /** The probe of a snapshot: `{probe}`, or `{isLoading}`, or `{why}` it is missing. */
  original(model, track, index) {
    if (this.own) return this.own;
    const digest = track.entries[index]?.probe;
    if (!digest) return { why: "No probe was recorded with this snapshot." };
    const key = JSON.stringify([track.run, digest]);
    if (!this.known.has(key)) this.fetch(key, model, track.run, digest);
    return this.known.get(key);
  }

  fetch(key, model, run, digest) {
    const { probes } = model.runs.find((one) => one.name === run);
    const entry = probes.find((probe) => probe.digest === digest);
    if (!entry) {
      this.known.set(key, { why: "The probe of this run could not be read." });
      return;
    }
    this.known.set(key, { isLoading: true });
    this.source.probe(run, digest)
      .then((buffer) => decodeProbe(buffer, entry))
      .then((probe) => this.known.set(key, { id: digest, probe, adapted: new Map() }))
      .catch((error) => {
        this.known.set(key, { why: `The probe could not be read: ${error.message}` });
        setTimeout(() => this.known.delete(key), 5000);
      })
      .finally(this.onChange);
  }

  /**
     * The probe for the channels of the layer: `{id, planes, probeShape, note}`, or `{isLoading}`, or
     * `{why}` it is missing, with `isFinal` if no image can replace it. The note names the probe, and
     * says whether it is in grey, and whether the layer reads it in the place of its own input.
     */
  adapted(model, track, index) {
    if (track.whyNoResponse) return { why: track.whyNoResponse, isFinal: true };
    if (track.isOfSignals) return FREQUENCIES;
    const found = this.original(model, track, index);
    if (!found.probe) return found;
    const channels = track.series.total.channels * (track.series.geometry.groups ?? 1);
    if (!found.adapted.has(channels)) found.adapted.set(channels, this.adapt(found, channels));
    return found.adapted.get(channels);
  }

  adapt({ id, probe }, channels) {
    const [count, height, width] = probe.shape;
    if (channels * height * width > MOST_PROBE_VALUES) {
      return { why: `The layer reads ${grouped(channels)} input channels of the probe: too many for this page.` };
    }
    const note = channels === count ? `to ${probe.name}`
      : channels === 1 ? `to ${probe.name}, in grey`
        : `of the layer alone to ${probe.name}, ${count === 3 ? "in grey " : ""}in each of ${grouped(channels)} channels`;
    const adapted = { id, note, probeShape: [channels, height, width], isAdapted: channels !== count };
    const planes = probeForChannels(probe, channels);
    if (planes) return { ...adapted, planes };
    if (this.own?.probe !== probe) {
      return { why: `The layer reads ${channels} input channels; the probe (${probe.name}) has ${count}.` };
    }
    const grey = { name: "", shape: [1, height, width], planes: probeForChannels(probe, 1) };
    return { ...adapted, planes: probeForChannels(grey, channels) };
  }
}

/**
 * Describe what to convolve for the channels that are shown. Throws an error for the user if the
 * probe does not fit.
 */
export function responseRequest(track, values, channel, response, { planes, probeShape }) {
  const { series, shape } = track;
  const { dilation = [1, 1], groups = 1 } = series.geometry;
  const isOne = typeof channel === "number" && shape[1] > 1;
  const tooMany = shape[1] > MOST_PLANES_SHOWN;
  const request = {
    planes, probeShape, shape, dilation, groups,
    kernels: isOne ? onlyChannel(values, shape, channel) : values,
    summed: isOne || tooMany || response === "sum" || (response === "auto" && shape[1] !== 3),
    total: series.total.filters,
  };
  return { ...request, size: responseShape(probeShape, shape, request) };
}

/** Compute the response of one filter at once. The averages of the probe are kept for the next call. */
export function responseOf(request, filter, shrink, probe) {
  probe.averages ??= new Map();
  if (!probe.averages.has(shrink)) probe.averages.set(shrink, averagesOf(request.planes, request.probeShape, shrink));
  const options = { ...request, shrink, averages: probe.averages.get(shrink), filters: [filter, filter + 1] };
  return respond(request.planes, request.probeShape, request.kernels, request.shape, options);
}

function onlyChannel(values, [filters, channels, height, width], channel) {
  const kept = new Float32Array(values.length), size = height * width;
  for (let filter = 0; filter < filters; filter++) {
    const at = (filter * channels + channel) * size;
    kept.set(values.subarray(at, at + size), at);
  }
  return kept;
}

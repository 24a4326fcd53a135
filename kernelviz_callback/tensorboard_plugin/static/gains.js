import { ResponseFeed } from "./response_feed.js";
import { paintCurve } from "./taps.js";

/** The frequency responses of 1-D filters: the same numbers as `filters.frequency.frequency_gain`. */

const FEWEST_POINTS = 256; // of a Fourier transform
const MOST_POINTS = 2 ** 16; // of a Fourier transform: more than a screen has columns
const GAIN_MILLISECONDS = 8; // of each turn, spent on frequency responses
const MOST_SLENDER = 1.5; // a curve is at most so many times as high as wide

/** Describe what to transform: the taps of all channels, or of the one channel that is shown. */
export function gainRequest({ series, shape: [filters, channels, taps] }, values, channel) {
  const dilation = series.geometry.dilation?.[0] ?? 1;
  const isOne = typeof channel === "number";
  return {
    kernels: values, shape: [filters, channels, taps], dilation,
    channels: isOne ? [channel, channel + 1] : [0, channels],
    size: { planes: 1, height: 1, width: pointsOf(taps, dilation) / 2 + 1 },
  };
}

/** The number of multiplications for one filter. */
export function gainProducts({ shape: [, , taps], channels: [first, last], size }) {
  return taps * (((last - first) * taps) / 2 + size.width);
}

/**
 * |H(f)| of one filter, from 0 to half the sampling rate in equal steps; not finite if a weight is not.
 *
 * The sum of |H(f)|² over the channels is the Fourier transform of the sum of their autocorrelations,
 * so that one transform is enough for all channels.
 */
export function gainOf({ kernels, shape: [, channels, taps], dilation, channels: [first, last], size }, filter) {
  const own = kernels.subarray((filter * channels + first) * taps, (filter * channels + last) * taps);
  const lags = autocorrelation(own, taps);
  const points = 2 * (size.width - 1), cosineTable = cosineTableOf(points), gain = new Float32Array(size.width);
  for (let k = 0; k < gain.length; k++) {
    const step = (k * dilation) % points;
    let sum = 0;
    for (let lag = 1, at = step; lag < taps; lag++, at = (at + step) % points) sum += lags[lag] * cosineTable[at];
    gain[k] = Math.sqrt(Math.max(0, lags[0] + 2 * sum));
  }
  return gain;
}

/**
 * The frequency responses of one run: a `ResponseFeed` that computes them on the page and draws
 * them as curves.
 */
export class GainFeed extends ResponseFeed {
  constructor(onChange) {
    super({ grid: gainsInSlices }, onChange);
    Object.assign(this, { gains: [], channel: "all" });
  }

  prepare([filters]) {
    if (this.gains.length !== filters) this.gains = new Array(filters).fill(null);
  }

  /** Draw the new response of a filter from now on, instead of its last one. */
  paint(filter, end) {
    this.setEnd(filter, end);
    this.gains[filter] = this.valuesOf(filter);
  }

  draw(context, filter, cell) {
    if (!this.gains[filter]) return;
    const { width } = cell, height = Math.min(cell.height, Math.floor(width * MOST_SLENDER));
    paintGain(this.canvas, this.gains[filter], this.ends[filter], width, height);
    context.drawImage(this.canvas, cell.x, cell.y + ((cell.height - height) >> 1));
  }
}

/** Set the size of a canvas and draw a frequency response as bars from its bottom. */
export function paintGain(canvas, gain, end, width, height) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const picture = new ImageData(width, height);
  paintCurve(new Uint32Array(picture.data.buffer), 0, width, gain, height, width, end, height);
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

/** Compute all filters, in chunks as `Responder.grid`. Returns a function that stops it. */
function gainsInSlices(request, onChunk) {
  const [filters] = request.shape;
  let next = 0, timer = setTimeout(slice);
  function slice() {
    const first = next, until = performance.now() + GAIN_MILLISECONDS, { width } = request.size;
    const gains = [];
    do gains.push(gainOf(request, next++));
    while (next < filters && performance.now() < until);
    const data = new Float32Array(gains.length * width);
    gains.forEach((gain, k) => data.set(gain, k * width));
    if (next < filters) timer = setTimeout(slice);
    onChunk({ first, filters: gains.length, planes: 1, height: 1, width, data, done: next === filters });
  }
  return () => clearTimeout(timer);
}

/** The points of a Fourier transform that holds all dilated taps, as in `frequency_gain`. */
function pointsOf(taps, dilation) {
  let points = FEWEST_POINTS;
  while (points <= dilation * (taps - 1) && points < MOST_POINTS) points *= 2;
  return points;
}

/** The autocorrelation of rows of taps, summed over the rows, for each lag. */
function autocorrelation(rows, taps) {
  const lags = new Float64Array(taps);
  for (let row = 0; row < rows.length; row += taps) {
    for (let lag = 0; lag < taps; lag++) {
      let sum = 0;
      for (let at = row, end = row + taps - lag; at < end; at++) sum += rows[at] * rows[at + lag];
      lags[lag] += sum;
    }
  }
  return lags;
}

let cosineTable = new Float64Array(0); // one period of the cosine, in the size that was requested last

function cosineTableOf(points) {
  if (cosineTable.length !== points) cosineTable = Float64Array.from({ length: points }, (_, k) => Math.cos((2 * Math.PI * k) / points));
  return cosineTable;
}

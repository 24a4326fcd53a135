/** Decode what the server sends, payloads of snapshots and probes, and images of the user. */

const NOT_FINITE_LEVEL = 0;
const ZERO_LEVEL_STORED = 128;
const MOST_LEVELS = 127;
// Shares of red, green and blue: ITU-R BT.601, as in `Probe.for_channels`.
const LUMINANCE = [0.2989, 0.587, 0.114];

let halfTable = null;

/**
 * Split a payload into its parts. The weights are not decoded: `weightsOf` does that when they are
 * shown. Throws if the length does not fit the shape of the layer, because the payload is damaged.
 */
export function decodePayload(buffer, snapshot, layer) {
  const [filters, ...rest] = layer.shape;
  const numbers = filters * rest.reduce((product, side) => product * side, 1);
  const isHalf = snapshot.dtype === "float16";
  const expected = 5 * filters + numbers * (isHalf ? 2 : 1);
  if (buffer.byteLength !== expected) {
    throw new Error(`expected ${expected} bytes for ${layer.shape.join("x")} weights; found ${buffer.byteLength}`);
  }
  const start = 5 * filters;
  return {
    scales: new Float32Array(buffer, 0, filters),
    bits: new Uint8Array(buffer, 4 * filters, filters),
    data: isHalf ? halves(buffer, start, numbers) : new Uint8Array(buffer, start, numbers),
  };
}

/**
 * Decode the weights of a layer, filter by filter; NaN where a weight is not finite. An array
 * `into` of the right length is reused.
 */
export function weightsOf({ scales, data }, dtype, shape, into) {
  const weights = into?.length === data.length ? into : new Float32Array(data.length);
  const size = data.length / shape[0];
  const table = dtype === "float16" ? halfTable ?? makeHalfTable() : makeLevelTable();
  for (let filter = 0, at = 0; filter < shape[0]; filter++) {
    const scale = scales[filter];
    for (const end = at + size; at < end; at++) weights[at] = table[data[at]] * scale;
  }
  return weights;
}

/** Inflate a probe. Planes of uint8 hold 255 times the value. */
export async function decodeProbe(buffer, { name, shape, dtype }) {
  const inflated = new Blob([buffer]).stream().pipeThrough(new DecompressionStream("deflate"));
  const raw = await new Response(inflated).arrayBuffer();
  const numbers = shape[0] * shape[1] * shape[2];
  const bytes = numbers * (dtype === "uint8" ? 1 : 4);
  if (raw.byteLength !== bytes) {
    throw new Error(`expected ${bytes} bytes for a probe of ${shape.join("x")}; found ${raw.byteLength}`);
  }
  if (dtype !== "uint8") return { name, shape, planes: new Float32Array(raw) };
  return { name, shape, planes: Float32Array.from(new Uint8Array(raw), (level) => level / 255) };
}

/** The planes of a probe for a layer of `channels` input channels; null if it does not fit. */
export function probeForChannels({ name, shape, planes }, channels) {
  const found = shape[0];
  if (found === channels) return planes;
  if (found === 3 && (channels === 1 || name === "chart")) return repeated(luminance(planes), channels);
  return found === 1 ? repeated(planes, channels) : null;
}

/** Make a probe of a user's image, shrunk so that its longer side has at most `size` pixels. */
export function probeOfBitmap(bitmap, size, name) {
  const share = Math.min(1, size / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * share));
  const height = Math.max(1, Math.round(bitmap.height * share));
  const { data } = shrunk(bitmap, width, height).getImageData(0, 0, width, height);
  const planes = new Float32Array(3 * width * height);
  for (let at = 0, from = 0; at < width * height; at++, from += 4) {
    for (let c = 0; c < 3; c++) planes[c * width * height + at] = data[from + c] / 255;
  }
  return { name, shape: [3, height, width], planes };
}

function halves(buffer, start, numbers) {
  // After an odd number of filters the weights begin at an odd byte, where no Uint16Array can begin.
  return start % 2 ? new Uint16Array(buffer.slice(start)) : new Uint16Array(buffer, start, numbers);
}

function makeHalfTable() {
  halfTable = new Float32Array(65536).fill(NaN);
  for (let bits = 0; bits < 0x7c00; bits++) {
    const exponent = bits >> 10, fraction = bits & 0x3ff;
    const value = exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24;
    halfTable[bits] = value;
    halfTable[bits | 0x8000] = -value;
  }
  return halfTable;
}

function makeLevelTable() {
  const table = Float32Array.from({ length: 256 }, (_, level) => (level - ZERO_LEVEL_STORED) / MOST_LEVELS);
  table[NOT_FINITE_LEVEL] = NaN;
  return table;
}

function luminance(planes) {
  const size = planes.length / 3;
  const grey = new Float32Array(size);
  for (let at = 0; at < size; at++) {
    grey[at] = LUMINANCE[0] * planes[at] + LUMINANCE[1] * planes[size + at] + LUMINANCE[2] * planes[2 * size + at];
  }
  return grey;
}

function repeated(plane, count) {
  const planes = new Float32Array(plane.length * count);
  for (let c = 0; c < count; c++) planes.set(plane, c * plane.length);
  return planes;
}

/** Shrink by halves: every browser then averages 2x2 pixels. Some browsers skip pixels in one long step. */
function shrunk(image, width, height) {
  let from = image;
  while (from.width > 2 * width && from.height > 2 * height) {
    from = drawn(from, Math.ceil(from.width / 2), Math.ceil(from.height / 2)).canvas;
  }
  return drawn(from, width, height);
}

function drawn(image, width, height) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, width, height);
  return context;
}

/** Weights to pixels, with the numbers of `colour.to_levels` and `grid.paint_tiles`. */

const ZERO_LEVEL = 128;
const SMALLEST_SCALE = 2 ** -126; // as a float32 has it, see `to_levels`
const STRIPE = 3; // pixels
const STRIPED_ZOOM = 8; // pixels a weight: enough for three stripes to be seen
const STRIPES = [0xffff00ff, 0xff000000]; // magenta and black, as ABGR
const OPAQUE = 0xff000000;
const TO_WHOLE = 2 ** 23; // the sum of this and a float32 from 0 to 255 is rounded half to even
// Below so many quantisation steps of what is stored, a difference is rounding noise.
const NOISE_STEPS = 16;
const MOST_CURVES = 8; // of one filter; more would be too small to read
const LARGEST_STEP = { float16: 2 ** -11, uint8: 1 / 127 }; // in shares of a filter's scale
const ANCHORS = // ColorBrewer's RdBu, reversed: blue negative, red positive
  "053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f";

/** The colour of each level, 256 x 3 bytes; level 0 is never used. */
export const COLOURS = makeColours();
const PACKED_COLOURS = packColours();

/**
 * The magnitude at the ends of each tile's colours.
 *
 * `scale` is "filter" (each its own), "layer" (the largest of all) or a number, widened where the
 * layer exceeds it. `options.floor` (a number, or one a filter) keeps them from being smaller.
 */
export function halfRanges(values, shape, scale, { floor = 0 } = {}) {
  const own = new Float32Array(shape[0]);
  const size = values.length / shape[0];
  for (let filter = 0, at = 0; filter < own.length; filter++) {
    let largest = typeof floor === "number" ? floor : floor[filter];
    for (const end = at + size; at < end; at++) {
      const magnitude = Math.abs(values[at]);
      if (magnitude > largest && magnitude < Infinity) largest = magnitude;
    }
    own[filter] = largest;
  }
  if (scale === "filter") return own;
  const widest = own.reduce((a, b) => Math.max(a, b), scale === "layer" ? 0 : scale);
  return own.fill(widest);
}

/** The sides of one kernel; a shape is [N, C, k], [N, C, kH, kW] or, of a 3-D layer, [N, C, kD, kH, kW]. */
export function kernelOf(shape) {
  const [slices, height, width] = [1, 1, ...shape.slice(2)].slice(-3);
  return { slices, height, width };
}

/** The shape that weights are pictured in: those of a 1-D layer of many channels as a matrix, channels by taps. */
export function picturedAs(shape, channel) {
  const isMatrix = shape.length === 3 && typeof channel !== "number" && shape[1] > MOST_CURVES;
  return isMatrix ? [shape[0], 1, shape[1], shape[2]] : shape;
}

/** Whether three channels are one picture; of a curve they never are. */
export function isColour(shape, channel) {
  return channel === "rgb" && shape[1] === 3 && shape.length > 3;
}

/** How many pictures a filter has: for each channel shown its slices, one after the other. */
export function picturesOf(shape, channel) {
  const isOne = typeof channel === "number" || isColour(shape, channel);
  return kernelOf(shape).slices * (isOne ? 1 : shape[1]);
}

/** Pixels of a tile at zoom 1: `channel` is "rgb" (of three), "all" (side by side) or one index. */
export function tileSize(shape, channel) {
  const { width, height } = kernelOf(shape);
  return { width: picturesOf(shape, channel) * (width + 1) - 1, height };
}

/** Where `paintAtlas` puts tiles: tile i at column i % columns, row i / columns, without gaps. */
export function atlasLayout(count, tileWidth, tileHeight) {
  const square = Math.ceil(Math.sqrt((count * tileHeight) / tileWidth) - 1e-9);
  const columns = Math.max(1, Math.min(count, square));
  const rows = Math.ceil(count / columns);
  return { columns, rows, tileWidth, tileHeight, width: columns * tileWidth, height: rows * tileHeight };
}

/** Whether any value is NaN or infinite: its stripes want a zoom of 4 or more. */
export function hasNonFinite(values) {
  let sum = 0;
  for (let at = 0; at < values.length; at++) sum += values[at] - values[at];
  return sum !== 0;
}

/** How many pixels a weight needs in a picture of these values, so that stripes can be seen as stripes. */
export function stripedZoom(values) {
  return hasNonFinite(values) ? STRIPED_ZOOM : 1;
}

/**
 * Paint a layer, one tile a filter as `atlasLayout` tells, `zoom` pixels a weight.
 *
 * Stripes of what is not finite are 3 pixels wide at any zoom: at zoom 1 a single weight is plain
 * magenta or black. `into`, an ImageData of the right size, is painted again.
 */
export function paintAtlas(values, shape, ranges, { channel = "rgb", zoom = 1, into = null } = {}) {
  const [filters, channels] = shape, { slices, height, width } = kernelOf(shape);
  const tile = tileSize(shape, channel);
  const layout = atlasLayout(filters, tile.width * zoom, tile.height * zoom);
  const fits = into?.width === layout.width && into.height === layout.height;
  const picture = fits ? into : new ImageData(layout.width, layout.height);
  const pixels = new Uint32Array(picture.data.buffer);
  const isRgb = isColour(shape, channel), shown = picturesOf(shape, channel);
  const first = typeof channel === "number" ? channel * slices : 0;
  const plane = height * width;
  for (let filter = 0; filter < filters; filter++) {
    const row = Math.floor(filter / layout.columns), column = filter % layout.columns;
    const corner = row * layout.tileHeight * layout.width + column * layout.tileWidth;
    const start = (filter * channels * slices + first) * plane;
    const half = ranges[filter];
    for (let k = 0; k < shown; k++) {
      const left = corner + k * (width + 1) * zoom, from = start + k * plane;
      paintPicture(pixels, left, layout.width, values, from, isRgb ? slices * plane : 0, height, width, half, zoom);
    }
  }
  return picture;
}

/**
 * Paint one picture of a filter, `zoom` pixels a weight.
 *
 * `corner` is the index of its first pixel, `stride` the width of the whole picture in pixels,
 * `start` the index of its first weight. `between` is the distance, in weights, from a weight to the
 * same weight of the next of three colour channels; 0 paints one channel.
 */
export function paintPicture(pixels, corner, stride, values, start, between, height, width, half, zoom) {
  const end = Math.max(half, SMALLEST_SCALE);
  if (between) paintRgb(pixels, corner, stride, values, start, between, height, width, end, zoom);
  else paintPlane(pixels, corner, stride, values, start, height, width, end, zoom);
}

/** What changed: a - b. */
export function difference(a, b) {
  const changed = new Float32Array(a.length);
  for (let at = 0; at < a.length; at++) changed[at] = a[at] - b[at];
  return changed;
}

/** For `halfRanges` of a difference: what rounding alone may do is not blown up to look like change. */
export function differenceFloor(scales, dtype) {
  return scales.map((scale) => scale * LARGEST_STEP[dtype] * NOISE_STEPS);
}

/** The colour of a finite value, as ABGR. */
export function shareColour(value, half) {
  return PACKED_COLOURS[levelOf(value, Math.max(half, SMALLEST_SCALE))];
}

/** What stands for a value that is not finite, in a pixel. */
export function stripeColour(u, v) {
  return STRIPES[Math.floor((u + v) / STRIPE) % 2];
}

/** The level of a finite value, 1 to 255, each step rounded to float32 as torch does. */
function levelOf(value, half) {
  let share = Math.fround(value / half);
  if (share > 1) share = 1;
  else if (share < -1) share = -1;
  const level = Math.fround(Math.fround(share * 127) + ZERO_LEVEL);
  return Math.fround(level + TO_WHOLE) - TO_WHOLE;
}

function paintPlane(pixels, corner, stride, values, start, height, width, half, zoom) {
  for (let y = 0, at = start; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      const value = values[at];
      if (value - value === 0) fillBlock(pixels, corner, stride, y, x, zoom, PACKED_COLOURS[levelOf(value, half)]);
      else stripeBlock(pixels, corner, stride, y, x, zoom);
    }
  }
}

/** `between` is how far the same weight of the next channel is. */
function paintRgb(pixels, corner, stride, values, start, between, height, width, half, zoom) {
  for (let y = 0, at = start; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      const red = values[at], green = values[at + between], blue = values[at + 2 * between];
      if (red - red + (green - green) + (blue - blue) !== 0) {
        stripeBlock(pixels, corner, stride, y, x, zoom);
        continue;
      }
      const high = (levelOf(blue, half) << 16) | (levelOf(green, half) << 8);
      fillBlock(pixels, corner, stride, y, x, zoom, OPAQUE | high | levelOf(red, half));
    }
  }
}

function fillBlock(pixels, corner, stride, y, x, zoom, colour) {
  for (let v = 0, at = corner + y * zoom * stride + x * zoom; v < zoom; v++, at += stride) {
    for (let u = 0; u < zoom; u++) pixels[at + u] = colour;
  }
}

function stripeBlock(pixels, corner, stride, y, x, zoom) {
  for (let v = y * zoom; v < (y + 1) * zoom; v++) {
    for (let u = x * zoom; u < (x + 1) * zoom; u++) {
      pixels[corner + v * stride + u] = stripeColour(u, v);
    }
  }
}

/** The anchors, interpolated in 255 steps. */
function makeColours() {
  const anchors = ANCHORS.split(" ").map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255));
  const colours = new Uint8Array(256 * 3);
  for (let k = 0; k < 255; k++) {
    const place = (k / 254) * (anchors.length - 1);
    const low = Math.min(Math.floor(place), anchors.length - 2);
    for (let c = 0; c < 3; c++) {
      const value = anchors[low][c] + (place - low) * (anchors[low + 1][c] - anchors[low][c]);
      colours[3 * (k + 1) + c] = Math.floor(value * 255 + 1e-9);
    }
  }
  colours.copyWithin(0, 3, 6);
  return colours;
}

function packColours() {
  return Uint32Array.from({ length: 256 }, (_, level) => {
    const [red, green, blue] = COLOURS.subarray(3 * level, 3 * level + 3);
    return OPAQUE | (blue << 16) | (green << 8) | red;
  });
}

/** Paint weights as pixels: the same numbers as `drawing.colour.to_levels` and `drawing.tiles.paint_tiles`. */

const ZERO_LEVEL = 128;
const SMALLEST_SCALE = 2 ** -126; // the smallest normal float32, as in `to_levels`
const STRIPE = 3; // pixels: the width of a stripe
const STRIPED_ZOOM = 8; // pixels a weight: enough for three stripes to be seen
const SQUARE = { height: 1, width: 1 };
const SQUARE_UP_TO = 8; // a kernel whose long side is up to so many times its short side is not stretched
const STRETCHED = 4; // the long side of a stretched kernel over its short side, ...
const SHORT_SIDE = 16; // pixels: ... unless the short side is as long as this, not enlarged
const STRIPES = [0xffff00ff, 0xff000000]; // magenta and black, as ABGR
const OPAQUE = 0xff000000;
const TO_WHOLE = 2 ** 23; // added to a float32 from 0 to 255, it rounds the number half to even
// A difference below so many quantisation steps of the stored weights is rounding noise.
const NOISE_STEPS = 16;
const MOST_CURVES = 8; // of one filter: more curves would be too small to read
const LARGEST_STEP = { float16: 2 ** -11, uint8: 1 / 127 }; // the largest quantisation step, as a share of a filter's scale
const ANCHORS = // ColorBrewer's RdBu, reversed: blue negative, red positive
  "053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f";

/** The colour of each level, 256 x 3 bytes; level 0 is never used. */
export const COLOURS = makeColours();
const PACKED_COLOURS = packColours();

/**
 * The magnitude at the ends of each tile's colours.
 *
 * `scale` is "filter" (the largest magnitude of each filter), "layer" (the largest of all) or a
 * number, replaced by the largest magnitude of the layer if that is larger. `options.floor`, one
 * number or one for each filter, is the least value.
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

/** The sides of one kernel. A shape is [N, C, k], [N, C, kH, kW] or, for a 3-D layer, [N, C, kD, kH, kW]. */
export function kernelOf(shape) {
  const [slices, height, width] = [1, 1, ...shape.slice(2)].slice(-3);
  return { slices, height, width };
}

/** The pixels of a weight in a kernel that is not enlarged: the same as `drawing.cells.cell_size`. */
export function weightSize({ height, width }) {
  const short = Math.min(height, width), long = Math.max(height, width);
  if (long <= SQUARE_UP_TO * short) return SQUARE;
  const factor = Math.max(1, Math.floor(Math.min(long / STRETCHED, SHORT_SIDE) / short + 0.5));
  return height < width ? { height: factor, width: 1 } : { height: 1, width: factor };
}

/** A cell, so many times as large. */
export const scaled = ({ height, width }, zoom) => ({ height: height * zoom, width: width * zoom });

/**
 * The shape in which weights are drawn. A 1-D layer of many channels is drawn as a matrix, channels
 * by taps.
 */
export function picturedAs(shape, channel) {
  const isMatrix = shape.length === 3 && typeof channel !== "number" && shape[1] > MOST_CURVES;
  return isMatrix ? [shape[0], 1, shape[1], shape[2]] : shape;
}

/** Whether three channels are drawn as one colour picture. Curves never are. */
export function isColour(shape, channel) {
  return channel === "rgb" && shape[1] === 3 && shape.length > 3;
}

/** The number of pictures of a filter: the slices of each channel that is shown. */
export function picturesOf(shape, channel) {
  const isOne = typeof channel === "number" || isColour(shape, channel);
  return kernelOf(shape).slices * (isOne ? 1 : shape[1]);
}

/**
 * The pixels of a tile at zoom 1, if a weight has the size `cell`. `channel` is "rgb" (three in one
 * picture), "all" (side by side) or one index.
 */
export function tileSize(shape, channel, cell = SQUARE) {
  const { width, height } = kernelOf(shape);
  return { width: picturesOf(shape, channel) * (width * cell.width + 1) - 1, height: height * cell.height };
}

/** The layout of `paintAtlas`: tile i is in column i % columns and row i / columns, without gaps. */
export function atlasLayout(count, tileWidth, tileHeight) {
  const square = Math.ceil(Math.sqrt((count * tileHeight) / tileWidth) - 1e-9);
  const columns = Math.max(1, Math.min(count, square));
  const rows = Math.ceil(count / columns);
  return { columns, rows, tileWidth, tileHeight, width: columns * tileWidth, height: rows * tileHeight };
}

/** Whether any value is NaN or infinite. Its stripes are visible at a zoom of 4 or more. */
export function hasNonFinite(values) {
  let sum = 0;
  for (let at = 0; at < values.length; at++) sum += values[at] - values[at];
  return sum !== 0;
}

/** The enlargement of a picture of these values: more than 1 where stripes have to be visible. */
export function stripedZoom(values, cell = SQUARE) {
  return hasNonFinite(values) ? Math.ceil(STRIPED_ZOOM / Math.max(cell.width, cell.height)) : 1;
}

/**
 * Paint a layer in the layout of `atlasLayout`, one tile for each filter, at a zoom. At zoom 1 a weight
 * has the size `cell`.
 *
 * A weight that is not finite gets stripes of 3 pixels at any zoom: at zoom 1 it is all magenta or
 * all black. An ImageData `into` of the right size is reused.
 */
export function paintAtlas(values, shape, ranges, { channel = "rgb", zoom = 1, cell = SQUARE, into = null } = {}) {
  const [filters, channels] = shape, { slices, height, width } = kernelOf(shape);
  const tile = tileSize(shape, channel, cell), block = scaled(cell, zoom);
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
      const left = corner + k * (width * cell.width + 1) * zoom, from = start + k * plane;
      paintPicture(pixels, left, layout.width, values, from, isRgb ? slices * plane : 0, height, width, half, block);
    }
  }
  return picture;
}

/**
 * Paint one picture of a filter. `block` is the height and the width of a weight, in pixels.
 *
 * `corner` is the index of its first pixel, `stride` the width of the whole picture in pixels,
 * `start` the index of its first weight. `between` is the distance, in weights, from a weight to the
 * same weight of the next of three colour channels; 0 paints one channel.
 */
export function paintPicture(pixels, corner, stride, values, start, between, height, width, half, block) {
  const end = Math.max(half, SMALLEST_SCALE);
  if (between) paintRgb(pixels, corner, stride, values, start, between, height, width, end, block);
  else paintPlane(pixels, corner, stride, values, start, height, width, end, block);
}

/** The change: a - b. */
export function difference(a, b) {
  const changed = new Float32Array(a.length);
  for (let at = 0; at < a.length; at++) changed[at] = a[at] - b[at];
  return changed;
}

/** The `floor` of `halfRanges` for a difference: rounding errors must not look like changes. */
export function differenceFloor(scales, dtype) {
  return scales.map((scale) => scale * LARGEST_STEP[dtype] * NOISE_STEPS);
}

/** The colour of a finite value, as ABGR. */
export function shareColour(value, half) {
  return PACKED_COLOURS[levelOf(value, Math.max(half, SMALLEST_SCALE))];
}

/** The colour of a pixel of a value that is not finite. */
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

function paintPlane(pixels, corner, stride, values, start, height, width, half, block) {
  for (let y = 0, at = start; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      const value = values[at];
      if (value - value === 0) fillBlock(pixels, corner, stride, y, x, block, PACKED_COLOURS[levelOf(value, half)]);
      else stripeBlock(pixels, corner, stride, y, x, block);
    }
  }
}

/** `between` is the distance to the same weight of the next channel. */
function paintRgb(pixels, corner, stride, values, start, between, height, width, half, block) {
  for (let y = 0, at = start; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      const red = values[at], green = values[at + between], blue = values[at + 2 * between];
      if (red - red + (green - green) + (blue - blue) !== 0) {
        stripeBlock(pixels, corner, stride, y, x, block);
        continue;
      }
      const high = (levelOf(blue, half) << 16) | (levelOf(green, half) << 8);
      fillBlock(pixels, corner, stride, y, x, block, OPAQUE | high | levelOf(red, half));
    }
  }
}

function fillBlock(pixels, corner, stride, y, x, { height, width }, colour) {
  for (let v = 0, at = corner + y * height * stride + x * width; v < height; v++, at += stride) {
    for (let u = 0; u < width; u++) pixels[at + u] = colour;
  }
}

function stripeBlock(pixels, corner, stride, y, x, { height, width }) {
  for (let v = y * height; v < (y + 1) * height; v++) {
    for (let u = x * width; u < (x + 1) * width; u++) {
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

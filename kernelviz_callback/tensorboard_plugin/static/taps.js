import { kernelOf, picturesOf, shareColour, stripeColour } from "./paint.js";
import { planeOf, tileShape } from "./tile_layout.js";

/** Paint curves as bars from zero: the same numbers as `drawing.curves.draw_curves`. */

/**
 * Paint a row of taps, `height` by `width` pixels: red above zero, blue below it.
 *
 * `half` is the magnitude that reaches the edge. `room` is the number of rows above zero: half of an
 * even height, or all rows for values that are never negative. Where taps share a column of pixels,
 * the largest and the smallest are painted. A column with a tap that is not finite is striped.
 */
export function paintCurve(pixels, corner, stride, taps, height, width, half, room = height / 2) {
  const unit = half > 0 ? half : 1;
  for (let x = 0; x < width; x++) {
    const from = Math.floor((x * taps.length) / width), to = Math.ceil(((x + 1) * taps.length) / width);
    const [low, high] = extremesOf(taps, from, to);
    for (let y = 0, at = corner + x; y < height; y++, at += stride) {
      const end = y < room ? high : low, near = y < room ? room - 1 - y : y - room;
      if (Number.isNaN(end)) pixels[at] = stripeColour(x, y);
      else pixels[at] = shareColour(end * Math.max(0, Math.min(1, (Math.abs(end) / unit) * room - near)), half);
    }
  }
}

/** The filters of a 1-D layer, each drawn at the size that is requested. */
export class CurveTiles {
  constructor(values, shape, halfRanges, channel) {
    Object.assign(this, { values, shape, halfRanges, channel, tile: tileShape(shape, channel), plane: planeOf(shape) });
    this.canvas = document.createElement("canvas");
    this.context = this.canvas.getContext("2d");
  }

  draw(context, filter, x, y, zoom) {
    const width = this.tile.width * zoom, height = this.tile.height * zoom;
    if (this.picture?.width !== width || this.picture.height !== height) {
      this.picture = new ImageData(width, height);
      Object.assign(this.canvas, { width, height });
    }
    this.paint(new Uint32Array(this.picture.data.buffer), width, filter, zoom);
    this.context.putImageData(this.picture, 0, 0);
    context.drawImage(this.canvas, x, y);
  }

  paint(pixels, stride, filter, zoom) {
    const { shape, channel, tile, plane } = this, { width: taps } = kernelOf(shape);
    const first = filter * shape[1] + (typeof channel === "number" ? channel : 0);
    for (let k = 0; k < picturesOf(shape, channel); k++) {
      const left = (k % tile.across) * (plane.width + 1), top = Math.floor(k / tile.across) * (plane.height + 1);
      const own = this.values.subarray((first + k) * taps, (first + k + 1) * taps);
      paintCurve(pixels, (top * stride + left) * zoom, stride, own, plane.height * zoom, plane.width * zoom, this.halfRanges[filter]);
    }
  }
}

/** The smallest and the largest of zero and some taps; NaN if a tap is not finite. */
function extremesOf(taps, from, to) {
  let low = 0, high = 0;
  for (let k = from; k < to; k++) {
    if (taps[k] - taps[k] !== 0) return [NaN, NaN];
    low = Math.min(low, taps[k]);
    high = Math.max(high, taps[k]);
  }
  return [low, high];
}

import { atlasLayout, COLOURS, kernelOf, paintAtlas, picturedAs, stripedZoom, weightSize } from "./paint.js";
import { CurveTiles } from "./taps.js";
import { planeOf, tileShape } from "./tile_layout.js";

/**
 * All tiles of a layer at zoom 1 on a hidden canvas: one pixel for a weight, or more, see
 * `weightSize`. Curves are drawn when they are requested.
 */
export class Atlas {
  constructor() {
    this.canvas = document.createElement("canvas");
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.picture = null;
  }

  paint(values, weights, halfRanges, channel) {
    const shape = picturedAs(weights, channel);
    Object.assign(this, { tile: tileShape(shape, channel), plane: planeOf(shape), weights: kernelOf(shape) });
    this.curves = shape.length === 3 ? new CurveTiles(values, shape, halfRanges, channel) : null;
    if (this.curves) return;
    const cell = weightSize(this.weights);
    this.zoom = stripedZoom(values, cell);
    this.picture = paintAtlas(values, shape, halfRanges, { channel, zoom: this.zoom, cell, into: this.picture });
    const { width, height } = this.picture;
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    this.context.putImageData(this.picture, 0, 0);
    const inRow = this.tile.planes * (this.plane.width + 1) - 1;
    this.layout = atlasLayout(shape[0], inRow * this.zoom, this.plane.height * this.zoom);
  }

  draw(context, filter, x, y, zoom) {
    if (this.curves) this.curves.draw(context, filter, x, y, zoom);
    else drawTile(context, this, filter, x, y, zoom);
  }
}

/** Copy a filter from an atlas, with its pictures in the rows of its tile. */
export function drawTile(context, { canvas, layout, tile, plane, zoom: own }, filter, x, y, zoom) {
  const left = (filter % layout.columns) * layout.tileWidth;
  const top = Math.floor(filter / layout.columns) * layout.tileHeight;
  for (let row = 0, first = 0; row < tile.down; row++, first += tile.across) {
    const wide = Math.min(tile.across, tile.planes - first) * (plane.width + 1) - 1;
    context.drawImage(canvas,
      left + first * (plane.width + 1) * own, top, wide * own, plane.height * own,
      x, y + row * (plane.height + 1) * zoom, wide * zoom, plane.height * zoom);
  }
}

/** Paint the colours from the low end to the high end of a scale, one pixel high. */
export function paintRamp(canvas, isGrey) {
  Object.assign(canvas, { width: 255, height: 1 });
  const strip = new ImageData(255, 1);
  for (let level = 1; level < 256; level++) {
    strip.data.set(isGrey ? [level, level, level] : COLOURS.subarray(3 * level, 3 * level + 3), 4 * level - 4);
    strip.data[4 * level - 1] = 255;
  }
  canvas.getContext("2d").putImageData(strip, 0, 0);
}

/**
 * Paint a probe as an image, as `Probe.to_picture`: three channels in colour, otherwise the mean of
 * the channels.
 */
export function paintProbe(canvas, { shape: [channels, height, width], planes }) {
  Object.assign(canvas, { width, height });
  const picture = new ImageData(width, height), size = width * height;
  const shown = channels === 3 ? planes : averagePlanes(planes, channels, size);
  let low = 0, high = 1;
  for (const value of shown) [low, high] = [Math.min(low, value), Math.max(high, value)];
  for (let at = 0; at < size; at++) {
    for (let c = 0; c < 3; c++) {
      const value = shown[channels === 3 ? c * size + at : at];
      picture.data[4 * at + c] = Math.round(((value - low) / (high - low)) * 255);
    }
    picture.data[4 * at + 3] = 255;
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

function averagePlanes(planes, channels, size) {
  const average = new Float32Array(size);
  for (let at = 0; at < planes.length; at++) average[at % size] += planes[at] / channels;
  return average;
}

"use strict";

const ZERO = 128;
const STRIPE = 3;
const STRIPED = [[255, 0, 255], [0, 0, 0]];
const STRIPED_ZOOM = 8;

const decode = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

/** The tiles of one checkpoint, or of the difference of two. */
class Plate {
  constructor(given, colours) {
    Object.assign(this, given);
    this.levels = decode(given.levels);
    this.mend = decode(given.mend);
    this.colours = colours;
    this.isDifference = given.checkpoint === null;
    this.isRgb = given.channels === 3;
    this.plane = given.height * given.width;
    this.planes = this.isRgb ? 1 : given.shown;
    this.across = Math.ceil(Math.sqrt(this.planes));
    this.down = Math.ceil(this.planes / this.across);
  }

  /** Largest magnitude that the colours of a tile reach; `row` is that of its filter's tiles. */
  halfRange(tile, scale, row) {
    return scale === "all" ? this.common : scale === "filter" && row ? row : this.own[tile];
  }

  /** 1 to 255, 128 for zero, 0 for what is not finite; channel by channel. */
  levelsOf(tile, scale, row) {
    const size = this.shown * this.plane, start = tile * size;
    const ratio = this.own[tile] / this.halfRange(tile, scale, row) || 0;
    const mended = (k) => scale === "all" ? Math.floor(this.mend[Math.floor(k / 5)] / 3 ** (k % 5)) % 3 - 1 : 0;
    return this.levels.slice(start, start + size).map((level, k) =>
      level && ZERO + Math.floor((level - ZERO) * ratio + 0.5) + mended(start + k));
  }

  /** A weight, to 1/254 of the largest of its tile; NaN for what is not finite. */
  weight(tile, channel, at) {
    const level = this.levels[(tile * this.shown + channel) * this.plane + at];
    return level ? (level - ZERO) / 127 * this.own[tile] : NaN;
  }

  /** A pixel a weight, planes in rows, a transparent line between them. */
  paint(canvas, tile, scale, row) {
    const levels = this.levelsOf(tile, scale, row);
    const zoom = levels.includes(0) ? STRIPED_ZOOM : 1;
    const { height, width, across } = this;
    canvas.width = zoom * (across * (width + 1) - 1);
    canvas.height = zoom * (this.down * (height + 1) - 1);
    const context = canvas.getContext("2d");
    for (let plane = 0; plane < this.planes; plane++) {
      const left = plane % across * (width + 1), top = Math.floor(plane / across) * (height + 1);
      context.putImageData(this.picture(levels, plane, zoom), zoom * left, zoom * top);
    }
  }

  picture(levels, plane, zoom) {
    const picture = new ImageData(this.width * zoom, this.height * zoom);
    for (let k = 0, at = 0; k < picture.data.length; k += 4) {
      const x = k / 4 % picture.width, y = Math.floor(k / 4 / picture.width);
      at = Math.floor(y / zoom) * this.width + Math.floor(x / zoom);
      const own = this.isRgb
        ? [levels[at], levels[at + this.plane], levels[at + 2 * this.plane]]
        : [levels[at + plane * this.plane]];
      picture.data.set(own.includes(0) ? STRIPED[Math.floor((x + y) / STRIPE) % 2] : this.colour(own), k);
      picture.data[k + 3] = 255;
    }
    return picture;
  }

  colour(own) {
    return this.isRgb ? own : this.colours.subarray(3 * own[0], 3 * own[0] + 3);
  }

  /** The weight under a point of the canvas, in shares of its size: null between planes. */
  cellAt(x, y) {
    const column = Math.floor(x * (this.across * (this.width + 1) - 1));
    const line = Math.floor(y * (this.down * (this.height + 1) - 1));
    const cell = {
      plane: Math.floor(line / (this.height + 1)) * this.across + Math.floor(column / (this.width + 1)),
      y: line % (this.height + 1),
      x: column % (this.width + 1),
    };
    return this.has(cell) ? cell : null;
  }

  has({ plane, y, x }) {
    const inside = (value, end) => value >= 0 && value < end;
    return inside(plane, this.planes) && inside(y, this.height) && inside(x, this.width);
  }

  /** Where a weight is on the canvas, as CSS has it. */
  boxOf({ plane, y, x }) {
    const wide = this.across * (this.width + 1) - 1, high = this.down * (this.height + 1) - 1;
    const left = plane % this.across * (this.width + 1) + x;
    const top = Math.floor(plane / this.across) * (this.height + 1) + y;
    const share = (part, whole) => `${100 * part / whole}%`;
    return { left: share(left, wide), top: share(top, high), width: share(1, wide), height: share(1, high) };
  }
}

/** The colours from the low to the high end of the scale, as a strip one pixel high. */
function paintBar(canvas, isRgb, colours) {
  canvas.width = 255;
  canvas.height = 1;
  const strip = new ImageData(255, 1);
  for (let level = 1; level < 256; level++) {
    strip.data.set(isRgb ? [level, level, level] : colours.subarray(3 * level, 3 * level + 3), 4 * level - 4);
    strip.data[4 * level - 1] = 255;
  }
  canvas.getContext("2d").putImageData(strip, 0, 0);
}

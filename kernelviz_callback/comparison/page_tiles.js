"use strict";

const ZERO = 128;
const STRIPE = 3;
const STRIPED = [[255, 0, 255], [0, 0, 0]];
const STRIPED_ZOOM = 8;
const CURVE_HEIGHT = 96;

/** Pixels that a curve of so many points is wide; of very many, neighbours share one. */
const curveWidth = (points) =>
  points > 3 * CURVE_HEIGHT ? 3 * CURVE_HEIGHT : points * Math.max(1, Math.round(1.5 * CURVE_HEIGHT / points));

const decode = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

/** The tiles of one checkpoint, or of the difference of two. */
class Plate {
  constructor(given, colours) {
    Object.assign(this, given);
    this.levels = decode(given.levels);
    this.mend = decode(given.mend);
    this.colours = colours;
    this.isDifference = given.checkpoint === null;
    this.isCurve = given.kind === "curve";
    this.isVolume = given.kind === "volume";
    this.area = given.height * given.width;
    this.panels = given.rgb ? given.planes / 3 : given.planes;
    this.down = Math.ceil(this.panels / this.across);
    // Of a weight, and from one panel to the next, in pixels of the canvas.
    this.cellWidth = this.isCurve ? curveWidth(this.width) / this.width : 1;
    this.cellHeight = this.isCurve ? CURVE_HEIGHT : 1;
    this.pitchX = Math.round(this.width * this.cellWidth) + 1;
    this.pitchY = this.height * this.cellHeight + 1;
    this.canvasWidth = this.across * this.pitchX - 1;
    this.canvasHeight = this.down * this.pitchY - 1;
  }

  /** Largest magnitude that the colours of a tile reach; `row` is that of its filter's tiles. */
  halfRange(tile, scale, row) {
    return scale === "all" ? this.common : scale === "filter" && row ? row : this.own[tile];
  }

  /** 1 to 255, 128 for zero, 0 for what is not finite; plane by plane. */
  levelsOf(tile, scale, row) {
    const size = this.planes * this.area, start = tile * size;
    const ratio = this.own[tile] / this.halfRange(tile, scale, row) || 0;
    const mended = (k) => scale === "all" ? Math.floor(this.mend[Math.floor(k / 5)] / 3 ** (k % 5)) % 3 - 1 : 0;
    return this.levels.slice(start, start + size).map((level, k) =>
      level && ZERO + Math.floor((level - ZERO) * ratio + 0.5) + mended(start + k));
  }

  /** A weight, to 1/254 of the largest of its tile; NaN for what is not finite. */
  weight(tile, plane, at) {
    const level = this.levels[(tile * this.planes + plane) * this.area + at];
    return level ? (level - ZERO) / 127 * this.own[tile] : NaN;
  }

  /** A pixel a weight, or curves; panels in rows, a transparent line between them. */
  paint(canvas, tile, scale, row) {
    const levels = this.levelsOf(tile, scale, row);
    const zoom = levels.includes(0) && !this.isCurve ? STRIPED_ZOOM : 1;
    canvas.width = zoom * this.canvasWidth;
    canvas.height = zoom * this.canvasHeight;
    canvas.classList.toggle("curve", this.isCurve);
    const context = canvas.getContext("2d");
    for (let panel = 0; panel < this.panels; panel++) {
      const left = panel % this.across * this.pitchX, top = Math.floor(panel / this.across) * this.pitchY;
      const picture = this.isCurve ? this.curve(levels, panel) : this.picture(levels, panel, zoom);
      context.putImageData(picture, zoom * left, zoom * top);
    }
  }

  /** What lies between zero and the curve is in the colour of its weight; of many, of the largest. */
  curve(levels, panel) {
    const points = this.width, own = levels.slice(panel * points, (panel + 1) * points);
    const picture = new ImageData(this.pitchX - 1, CURVE_HEIGHT), { width, data } = picture;
    const room = CURVE_HEIGHT / 2;
    for (let x = 0; x < width; x++) {
      const here = own.slice(Math.floor(x * points / width), Math.ceil((x + 1) * points / width));
      const isBad = here.includes(0);
      const reach = [Math.max(ZERO, ...here) - ZERO, Math.min(ZERO, ...here) - ZERO];
      for (let y = 0; y < CURVE_HEIGHT; y++) {
        const height = reach[y < room ? 0 : 1], near = y < room ? room - 1 - y : y - room;
        const covered = Math.max(0, Math.min(1, Math.abs(height) / 127 * room - near));
        const own = this.colour([ZERO + Math.round(covered * height)]);
        data.set(isBad ? STRIPED[Math.floor((x + y) / STRIPE) % 2] : own, 4 * (y * width + x));
        data[4 * (y * width + x) + 3] = 255;
      }
    }
    return picture;
  }

  picture(levels, panel, zoom) {
    const picture = new ImageData(this.width * zoom, this.height * zoom);
    for (let k = 0, at = 0; k < picture.data.length; k += 4) {
      const x = k / 4 % picture.width, y = Math.floor(k / 4 / picture.width);
      at = Math.floor(y / zoom) * this.width + Math.floor(x / zoom);
      const own = this.planesOf(panel).map((plane) => levels[at + plane * this.area]);
      picture.data.set(own.includes(0) ? STRIPED[Math.floor((x + y) / STRIPE) % 2] : this.colour(own), k);
      picture.data[k + 3] = 255;
    }
    return picture;
  }

  /** The three of a panel in colour, the one of any other. */
  planesOf(panel) {
    return this.rgb ? [3 * panel, 3 * panel + 1, 3 * panel + 2] : [panel];
  }

  colour(own) {
    return this.rgb ? own : this.colours.subarray(3 * own[0], 3 * own[0] + 3);
  }

  /** The weight under a point of the canvas, in shares of its size: null between panels. */
  cellAt(x, y) {
    const column = Math.floor(x * this.canvasWidth), line = Math.floor(y * this.canvasHeight);
    const cell = {
      panel: Math.floor(line / this.pitchY) * this.across + Math.floor(column / this.pitchX),
      y: Math.floor(line % this.pitchY / this.cellHeight),
      x: Math.floor(column % this.pitchX / this.cellWidth),
    };
    return this.has(cell) ? cell : null;
  }

  has({ panel, y, x }) {
    const inside = (value, end) => value >= 0 && value < end;
    return inside(panel, this.panels) && inside(y, this.height) && inside(x, this.width);
  }

  /** Where a weight is on the canvas, as CSS has it. */
  boxOf({ panel, y, x }) {
    const wide = this.canvasWidth, high = this.canvasHeight;
    const left = panel % this.across * this.pitchX + x * this.cellWidth;
    const top = Math.floor(panel / this.across) * this.pitchY + y * this.cellHeight;
    const share = (part, whole) => `${100 * part / whole}%`;
    return {
      left: share(left, wide), top: share(top, high),
      width: share(this.cellWidth, wide), height: share(this.cellHeight, high),
    };
  }
}

/** The colours from the low to the high end of the scale, as a strip one pixel high. */
function paintBar(canvas, inGrey, colours) {
  canvas.width = 255;
  canvas.height = 1;
  const strip = new ImageData(255, 1);
  for (let level = 1; level < 256; level++) {
    strip.data.set(inGrey ? [level, level, level] : colours.subarray(3 * level, 3 * level + 3), 4 * level - 4);
    strip.data[4 * level - 1] = 255;
  }
  canvas.getContext("2d").putImageData(strip, 0, 0);
}

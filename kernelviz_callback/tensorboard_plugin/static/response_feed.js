import { LEAST_SHARP } from "./dom.js";
import { atlasLayout, halfRanges, paintAtlas, tileSize } from "./paint.js";
import { drawTile } from "./pictures.js";
import { arrangementOf } from "./tile_layout.js";

const KEPT_BYTES_OF_RESPONSES = 48 * 2 ** 20; // of earlier grids, for each run

/**
 * The response grid of one run. Its tiles are computed one after the other when the slider rests. An
 * old tile stays, marked as stale, until the new one arrives.
 */
export class ResponseFeed {
  constructor(responder, onChange) {
    Object.assign(this, { responder, onChange, key: "", cancel: null, shown: null, version: 0, largest: 0, common: 0, shrink: 1 });
    this.canvas = document.createElement("canvas");
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.kept = new Map();
    this.stale = new Set();
  }

  /** Set which responses belong to the step of the slider; all others are stale. */
  expect(key) {
    if (key === this.wanted) return;
    this.wanted = key;
    if (key !== this.key) this.touch();
  }

  isStale(filter) {
    return this.wanted !== this.key || this.stale.has(filter);
  }

  get isDone() {
    return this.shown !== null && this.wanted === this.key && this.stale.size === 0;
  }

  /**
   * Show the responses of a key, averaged over shrink x shrink pixels. They are computed unless they
   * are in memory. Finer responses cannot replace them: their largest values differ, so their colour
   * scale would differ.
   */
  show(key, request, shrink, scale) {
    if (key === this.key && shrink === this.shrink) return;
    this.stop();
    Object.assign(this, { key, wanted: key, shrink, scale });
    const kept = this.kept.get(this.name);
    if (kept) {
      this.prepare(kept.shape);
      this.shown = kept;
      this.stale.clear();
      this.repaint();
      return;
    }
    const filters = request.shape[0];
    const { planes, height, width } = request.size;
    const shape = [filters, planes, Math.floor(height / shrink), Math.floor(width / shrink)];
    this.largest = 0;
    this.prepare(shape);
    this.shown = { shape, data: new Float32Array(filters * planes * shape[2] * shape[3]) };
    this.stale = new Set(Array.from({ length: filters }, (_, k) => k));
    this.cancel = this.responder.grid({ ...request, shrink }, (chunk) => this.receive(chunk));
    this.touch();
  }

  /** The name of the responses in memory. */
  get name() {
    return `${this.key}\n${this.shrink}`;
  }

  stop() {
    this.cancel?.();
    this.cancel = null;
  }

  clear() {
    this.stop();
    Object.assign(this, { key: "", shown: null });
    this.touch();
  }

  prepare(shape) {
    const channel = shape[1] === 3 ? "rgb" : "all";
    const { width, height } = tileSize(shape, channel);
    this.plane = { width: shape[3], height: shape[2] };
    this.tile = arrangementOf(shape, channel, this.plane);
    this.channel = channel;
    this.layout = atlasLayout(shape[0], width, height);
    if (this.canvas.width === this.layout.width && this.canvas.height === this.layout.height) return;
    Object.assign(this.canvas, { width: this.layout.width, height: this.layout.height });
  }

  receive({ first, filters, data, done }) {
    const { shape } = this.shown;
    const size = shape[1] * shape[2] * shape[3];
    this.shown.data.set(data, first * size);
    const own = halfRanges(data, [filters, ...shape.slice(1)], "filter");
    for (const end of own) this.largest = Math.max(this.largest, end);
    for (let filter = first; filter < first + filters; filter++) {
      this.paint(filter, this.scale === "filter" ? own[filter - first] : this.end);
      this.stale.delete(filter);
    }
    if (done) {
      this.keep();
      if (this.scale !== "filter") this.repaint();
    }
    this.touch();
  }

  keep() {
    this.kept.delete(this.name);
    this.kept.set(this.name, this.shown);
    const most = Math.max(1, Math.floor(KEPT_BYTES_OF_RESPONSES / this.shown.data.byteLength));
    for (const name of this.kept.keys()) if (this.kept.size > most) this.kept.delete(name);
  }

  setScale(scale) {
    if (scale === this.scale) return;
    this.scale = scale;
    if (this.shown) this.repaint();
  }

  /**
   * Set the largest response of all runs at this step, for the scale "run". Responses of other
   * steps are not known.
   */
  share(common) {
    if (common === this.common) return;
    this.common = common;
    if (this.shown && this.scale === "run") this.repaint();
  }

  /** The magnitude at the ends of the colours of all filters. */
  get end() {
    return this.scale === "run" ? Math.max(this.common, this.largest) : this.largest;
  }

  repaint() {
    const { shape, data } = this.shown;
    const own = halfRanges(data, shape, "filter");
    this.largest = own.reduce((a, b) => Math.max(a, b), 0);
    const ends = this.scale === "filter" ? own : own.fill(this.end);
    for (let filter = 0; filter < shape[0]; filter++) if (!this.stale.has(filter)) this.paint(filter, ends[filter]);
    this.touch();
  }

  paint(filter, end) {
    this.setEnd(filter, end);
    const one = [1, ...this.shown.shape.slice(1)];
    const picture = paintAtlas(this.valuesOf(filter), one, [end], { channel: this.channel });
    const { columns, tileWidth, tileHeight } = this.layout;
    this.context.putImageData(picture, (filter % columns) * tileWidth, Math.floor(filter / columns) * tileHeight);
  }

  setEnd(filter, end) {
    const [filters] = this.shown.shape;
    if (this.ends?.length !== filters) this.ends = new Float32Array(filters);
    this.ends[filter] = end;
  }

  valuesOf(filter) {
    const { shape, data } = this.shown, size = shape[1] * shape[2] * shape[3];
    return data.subarray(filter * size, (filter + 1) * size);
  }

  /** Draw a tile as large as its cell allows. Pixels of twice their size or more are sharp squares. */
  draw(context, filter, cell) {
    const fitting = Math.min(cell.width / this.tile.width, cell.height / this.tile.height);
    const isSharp = fitting >= LEAST_SHARP, zoom = isSharp ? Math.floor(fitting) : fitting;
    context.imageSmoothingEnabled = !isSharp;
    const width = Math.round(this.tile.width * zoom), height = Math.round(this.tile.height * zoom);
    const x = cell.x + ((cell.width - width) >> 1), y = cell.y + ((cell.height - height) >> 1);
    if (this.tile.planes === 1) {
      const { columns, tileWidth, tileHeight } = this.layout;
      context.drawImage(this.canvas, (filter % columns) * tileWidth, Math.floor(filter / columns) * tileHeight,
        tileWidth, tileHeight, x, y, width, height);
    } else {
      drawTile(context, this, filter, x, y, zoom);
    }
    return { x, y, width, height };
  }

  touch() {
    this.version++;
    this.onChange();
  }
}

import { CellGrid } from "./cells.js";
import { el, fittingSize, numberText, setText, sharpenEnlarged, sizeText } from "./dom.js";
import { gainOf, gainProducts, gainRequest, paintGain } from "./gains.js";
import { halfRanges, isColour, kernelOf, paintAtlas, picturedAs } from "./paint.js";
import { responseOf, responseRequest } from "./probes.js";

const SLENDERNESS_OF_GAIN = 129 / 56; // the width of a frequency response over its height, as in `gain_grid`
const USUAL_SPEED = 1e6; // multiplications a millisecond, until it has been measured

/** One filter of one run, enlarged: its kernel, the weight under the pointer, and its response. */
export class Plate {
  constructor(track) {
    Object.assign(this, { track, filter: -1, cell: null, cells: null, responseKey: "", speed: USUAL_SPEED });
    this.title = el("h3", {});
    this.kernel = el("canvas", { "data-kind": "kernel", "data-run": track.run });
    this.mark = el("div", { class: "cell-mark", hidden: true });
    this.frame = el("div", { class: "frame", tabindex: 0, role: "img" }, this.kernel, this.mark);
    this.response = el("canvas", { "data-kind": "response", "data-run": track.run, role: "img" });
    this.why = el("p", { class: "hint", hidden: true });
    this.kernelNote = el("span", {});
    this.responseNote = el("span", {});
    this.readout = el("p", { class: "readout", "aria-live": "polite", "data-role": "weight" });
    this.pair = el("div", { class: "pair" },
      el("figure", {}, this.frame, el("figcaption", {}, this.kernelNote)),
      el("figure", {}, this.response, this.why, el("figcaption", {}, this.responseNote)));
    this.root = el("div", { class: "plate", "data-run": track.run }, this.title,
      this.pair, this.readout);
    this.listen();
  }

  listen() {
    const { frame } = this;
    frame.addEventListener("pointermove", (event) => {
      const box = this.kernel.getBoundingClientRect();
      this.point(this.cells?.at((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height) ?? null);
    });
    frame.addEventListener("pointerleave", () => this.point(null));
    frame.addEventListener("blur", () => this.point(null));
    frame.addEventListener("keydown", (event) => this.onKey(event));
  }

  onKey(event) {
    const by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!by || event.shiftKey || event.altKey || event.ctrlKey || event.metaKey || !this.cells) return;
    event.preventDefault();
    event.stopPropagation();
    const { y, x, plane } = this.cell ?? { y: 0, x: -by[1], plane: 0 };
    const { weights: { width }, count } = this.cells;
    const next = { plane, y: y + by[0], x: x + by[1] };
    if (next.x >= width && plane + 1 < count) Object.assign(next, { plane: plane + 1, x: 0 });
    if (next.x < 0 && plane > 0) Object.assign(next, { plane: plane - 1, x: width - 1 });
    if (this.cells.has(next)) this.point(next);
  }

  /** Draw the kernel from the atlas of the grid, with the same colours. */
  show(filter, atlas, room, dpr) {
    this.filter = filter;
    this.pair.classList.toggle("alone", this.track.shape.length !== 4);
    this.gainWidth = Math.floor(room * dpr);
    const { tile, plane, weights } = atlas;
    this.cells = new CellGrid({ count: tile.planes, across: tile.across, plane, weights });
    const zoom = Math.max(1, Math.floor((room * dpr) / Math.max(tile.width, tile.height)));
    const width = zoom * tile.width, height = zoom * tile.height;
    const { kernel } = this, context = kernel.getContext("2d");
    if (kernel.width !== width || kernel.height !== height) {
      Object.assign(kernel, { width, height });
    }
    kernel.style.cssText = fittingSize(width, height, room, dpr);
    kernel.dataset.zoom = zoom;
    context.imageSmoothingEnabled = false;
    context.clearRect(0, 0, width, height);
    atlas.draw(context, filter, 0, 0, zoom);
  }

  /**
   * Draw the response within so many milliseconds: at full size, or coarser, or, if even that takes
   * too long, not yet.
   */
  respond(key, values, channel, view, probe, feed, milliseconds) {
    if (key === this.responseKey) return;
    this.showReason(probe.why ?? null);
    if (!probe.planes) return;
    if (this.track.isOfSignals) {
      this.respondToFrequencies(key, gainRequest(this.track, values, channel), view, feed, milliseconds);
      return;
    }
    let request;
    try {
      request = responseRequest(this.track, values, channel, view.response, probe);
    } catch (error) {
      this.showReason(error.message);
      return;
    }
    const { size: { height, width }, shape } = request;
    const products = height * width * shape[1] * shape[2] * shape[3];
    const shrink = [1, 2, 3, 4].find((factor) => products <= milliseconds * this.speed * factor ** 2);
    this.response.classList.toggle("stale", shrink === undefined);
    if (shrink === undefined) return;
    this.responseKey = shrink === 1 ? key : "";
    const began = performance.now();
    const found = responseOf(request, this.filter, shrink, probe);
    this.speed += 0.2 * (products / shrink ** 2 / Math.max(0.1, performance.now() - began) - this.speed);
    this.drawResponse(found, view, feed, shrink);
    this.response.dataset.shrink = shrink;
    if (shrink === 1) this.response.setAttribute("aria-label", `Response of filter ${this.filter} ${probe.note}`);
  }

  drawResponse({ data, planes, height, width }, view, feed, shrink) {
    const one = [1, planes, height, width], { track } = this;
    const [end] = halfRanges(data, one, view.scale === "filter" ? "filter" : feed.end);
    const picture = paintAtlas(data, one, [end], { channel: planes === 3 ? "rgb" : "all", into: this.picture });
    this.picture = picture;
    if (this.response.width !== picture.width || this.response.height !== picture.height) {
      Object.assign(this.response, { width: picture.width, height: picture.height });
    }
    this.response.getContext("2d").putImageData(picture, 0, 0);
    sharpenEnlarged(this.response);
    this.response.dataset.halfRange = end;
    const size = shrink > 1 ? `averaged ${sizeText(shrink)}` : "at full size";
    setText(this.responseNote, `response${track.part && ` ${track.part}`} ${size}, ±${numberText(end)}`);
  }

  /** Draw the frequency response, unless it would take longer than so many milliseconds. */
  respondToFrequencies(key, request, view, feed, milliseconds) {
    const isLate = gainProducts(request) > milliseconds * this.speed;
    this.response.classList.toggle("stale", isLate);
    if (isLate) return;
    this.responseKey = key;
    const gain = gainOf(request, this.filter);
    const [end] = halfRanges(gain, [1, 1, 1, gain.length], view.scale === "filter" ? "filter" : feed.end);
    paintGain(this.response, gain, end, this.gainWidth, Math.round(this.gainWidth / SLENDERNESS_OF_GAIN));
    Object.assign(this.response.dataset, { halfRange: end, shrink: 1 });
    const { part } = this.track;
    setText(this.responseNote, `frequency response${part && ` ${part}`}, 0 to half the sampling rate, top: ${numberText(end)}`);
    this.response.setAttribute("aria-label", `Frequency response of filter ${this.filter}, 0 to half the sampling rate`);
  }

  showReason(text) {
    this.why.hidden = text === null;
    this.response.hidden = text !== null;
    setText(this.why, text ?? "");
    if (text !== null) setText(this.responseNote, "");
  }

  point(cell) {
    this.cell = cell;
    this.mark.hidden = cell === null;
    if (cell) Object.assign(this.mark.style, this.cells.boxOf(cell));
    this.read();
  }

  /** Show the weight under the pointer at the step of the slider. */
  read(values = this.values, channel = this.channel) {
    Object.assign(this, { values, channel });
    const { cell } = this;
    if (!cell || !values || !this.track.series) {
      setText(this.readout, "");
      return;
    }
    const { shape } = this.track, { slices, height, width } = kernelOf(shape);
    const place = placeOf(cell, shape, channel);
    const weight = (c) => numberText(values[(((this.filter * shape[1] + c) * slices + place.slice) * height + place.row) * width + cell.x]);
    const text = isColour(shape, channel) ? `R ${weight(0)}  G ${weight(1)}  B ${weight(2)}` : weight(place.channel);
    setText(this.readout, `${placeText(place, cell, shape, channel)}: ${text}`);
  }
}

/** The channel, the slice and the row of the weight in a cell. */
function placeOf({ plane, y }, shape, channel) {
  const { slices } = kernelOf(shape), isMatrix = picturedAs(shape, channel) !== shape;
  const own = isMatrix ? y : typeof channel === "number" ? channel : Math.floor(plane / slices);
  return { channel: own, slice: plane % slices, row: isMatrix ? 0 : y };
}

function placeText({ channel: own, slice, row }, { x }, shape, channel) {
  return [
    shape[1] > 1 && !isColour(shape, channel) && `channel ${own}`, shape.length === 5 && `slice ${slice}`,
    shape.length === 3 ? `tap ${x}` : `row ${row}, column ${x}`,
  ].filter(Boolean).join(", ");
}

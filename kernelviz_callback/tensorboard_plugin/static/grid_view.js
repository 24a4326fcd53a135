import { el, numberText, setText } from "./dom.js";
import { paintRamp } from "./pictures.js";
import { cellBox, positionAt } from "./tile_layout.js";

const RING = 2; // CSS pixels between a tile and the ring around it

/**
 * One grid. A canvas has one tile for each filter; the elements on top of it are for mouse, touch,
 * keyboard and screen reader. Data attributes of the canvas give the positions of the tiles, in
 * pixels of the canvas. `actions` holds `hover` and `select`.
 */
export class GridView {
  constructor(kind, actions) {
    Object.assign(this, { kind, actions, fit: null, order: [], track: null, names: "" });
    this.canvas = el("canvas", { "data-kind": kind, "aria-hidden": "true" });
    this.context = this.canvas.getContext("2d");
    this.hover = el("div", { class: "ring hover", hidden: true });
    this.picked = el("div", { class: "ring picked", hidden: true });
    this.tiles = el("div", kind === "kernels"
      ? { class: "tiles", role: "listbox", tabindex: 0, "data-role": "tiles" }
      : { class: "tiles", role: "img" });
    this.stage = el("div", { class: "stage" }, this.canvas, this.hover, this.picked, this.tiles);
    this.title = el("h2", {});
    this.note = el("span", { class: "pane-note", "data-role": "pane-note" });
    this.ramp = el("canvas", { class: "ramp", "aria-hidden": "true" });
    this.low = el("span", { "data-role": "scale-low" });
    this.high = el("span", { "data-role": "scale-high" });
    this.scale = el("span", { class: "scale" }, this.low, this.ramp, this.high);
    this.message = el("div", { class: "pane-message", hidden: true, "data-role": "pane-message" });
    this.spinner = el("span", { class: "spinner", hidden: true });
    this.root = el("section", { class: `pane ${kind}`, "data-kind": kind },
      el("div", { class: "pane-head" }, this.title, this.note, this.spinner, this.scale),
      this.message, this.stage);
    this.listen();
  }

  listen() {
    const { tiles, actions } = this;
    const filterAt = (event) => this.order[this.positionOf(event)] ?? -1;
    tiles.addEventListener("pointermove", (event) => {
      if (event.pointerType !== "touch") actions.hover(this.track, filterAt(event), event);
    });
    tiles.addEventListener("pointerleave", () => actions.hover(null, -1));
    tiles.addEventListener("click", (event) => {
      const filter = filterAt(event);
      if (filter >= 0) actions.select(this.track, filter);
    });
    tiles.addEventListener("keydown", (event) => this.onKey(event));
  }

  /**
   * Arrow keys move the selection in this grid. With shift, or if the focus is elsewhere on the page,
   * they move the slider instead.
   */
  onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || !this.fit || this.kind !== "kernels") return;
    const at = this.order.indexOf(this.active), last = this.order.length - 1, { columns } = this.fit;
    const goal = {
      ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + columns, ArrowUp: at - columns, Home: 0, End: last,
      Enter: at,
    }[event.key];
    if (goal === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    if (goal >= 0 && goal <= last) this.actions.select(this.track, this.order[goal]);
  }

  positionOf(event) {
    if (!this.fit) return -1;
    const box = this.canvas.getBoundingClientRect();
    const ratio = this.canvas.width / box.width;
    return positionAt(this.fit, (event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio);
  }

  /** Set the size of the canvas and the order of its tiles. A new size clears the canvas. */
  lay(track, fit, order, dpr) {
    Object.assign(this, { track, fit, order, dpr });
    const { canvas } = this, { width, height, columns, zoom, cell, gap } = fit;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    Object.assign(canvas.style, { width: `${width / dpr}px`, height: `${height / dpr}px` });
    Object.assign(canvas.dataset, {
      run: track.run, layer: track.layer, columns, zoom, gap, cellWidth: cell.width, cellHeight: cell.height,
      order: order.join(","),
    });
    this.stage.style.width = canvas.style.width;
    this.stage.style.height = canvas.style.height;
    if (this.kind === "kernels") this.layOptions();
  }

  layOptions() {
    const { tiles, order, fit, dpr } = this;
    while (tiles.childElementCount > order.length) tiles.lastElementChild.remove();
    while (tiles.childElementCount < order.length) tiles.append(el("div", { role: "option" }));
    order.forEach((filter, position) => {
      const option = tiles.children[position], box = cellBox(fit, position);
      option.dataset.filter = filter;
      option.id = `${this.idStem}-${filter}`;
      option.style.cssText = `left:${box.x / dpr}px;top:${box.y / dpr}px;width:${box.width / dpr}px;height:${box.height / dpr}px`;
    });
    this.names = "";
  }

  /** Set the names of the tiles for screen readers, once the slider no longer moves. */
  nameTiles(key, nameOf) {
    if (key === this.names || this.kind !== "kernels") return;
    this.names = key;
    for (const option of this.tiles.children) option.setAttribute("aria-label", nameOf(Number(option.dataset.filter)));
  }

  /** Put a ring around the tile of a filter, or hide the ring if there is no such tile. */
  ring(element, filter) {
    const position = filter < 0 || !this.fit ? -1 : this.order.indexOf(filter);
    element.hidden = position < 0;
    if (position < 0) return;
    const box = cellBox(this.fit, position), { dpr } = this;
    element.style.width = `${box.width / dpr + 2 * RING}px`;
    element.style.height = `${box.height / dpr + 2 * RING}px`;
    element.style.transform = `translate(${box.x / dpr - RING}px, ${box.y / dpr - RING}px)`;
  }

  pick(filter) {
    this.active = filter;
    this.ring(this.picked, filter);
    if (this.kind !== "kernels") return;
    this.tiles.querySelector("[aria-selected=true]")?.setAttribute("aria-selected", "false");
    const option = filter < 0 ? null : this.tiles.querySelector(`[data-filter="${filter}"]`);
    option?.setAttribute("aria-selected", "true");
    if (option) this.tiles.setAttribute("aria-activedescendant", option.id);
    else this.tiles.removeAttribute("aria-activedescendant");
  }

  /**
   * Show the values at the two ends of the colour scale. `ends` holds the largest value of each tile;
   * null hides the scale. `why`, if given, is shown instead of the values: why there are none.
   */
  showScale(ends, scale, isGrey, why = null, isSigned = true) {
    this.scale.hidden = !ends;
    if (!ends) return;
    this.ramp.hidden = why !== null || !isSigned;
    if (this.ramp.dataset.grey !== String(isGrey)) {
      this.ramp.dataset.grey = isGrey;
      paintRamp(this.ramp, isGrey);
    }
    let low = Infinity, high = 0;
    for (const end of ends) [low, high] = [Math.min(low, end), Math.max(high, end)];
    const own = scale === "filter" && ends.length > 1;
    const top = own ? `${numberText(low)} to ${numberText(high)}` : numberText(high);
    setText(this.low, own || why || !isSigned ? "" : `−${numberText(high)}`);
    setText(this.high, why ?? (isSigned ? `${own ? "±" : "+"}${top}` : `top: ${top}`));
    this.scale.title = why ? "" : own ? `Each tile is scaled by its own largest value, from ${numberText(low)} to ${numberText(high)}` : "One scale for all tiles";
    this.scale.dataset.low = low;
    this.scale.dataset.high = high;
  }

  /** Describe the picture in the title bar. The tooltip has the whole text if the bar is too short. */
  showNote(...parts) {
    const text = parts.filter(Boolean).join(", ");
    setText(this.note, text);
    if (this.note.title !== text) this.note.title = text;
  }

  showMessage(text) {
    this.message.hidden = text === null;
    this.stage.hidden = text !== null;
    if (text !== null) setText(this.message, text);
  }
}

import { el, numberText } from "../tensorboard_plugin/static/dom.js";
import { captionOf, checkpoints, data, differs, find, last, nameOf, partnerIn, plates, rankOf, verdictNamesAt, verdictsOf } from "./page_data.js";
import { drawChart } from "./page_overview.js";
import { fillTable, verdictItem } from "./page_parts.js";
import { dropRemovedTiles, makeTile } from "./page_scale.js";

/** The dialog that shows one filter: its tiles enlarged, its numbers, its chart. */
export class FilterDialog {
  constructor({ table }) {
    Object.assign(this, { table, enlarged: [], element: find("detail") });
    find("before").addEventListener("click", () => this.openNeighbour(-1));
    find("after").addEventListener("click", () => this.openNeighbour(1));
    find("close").addEventListener("click", () => this.element.close());
    this.element.addEventListener("close", () => this.table.focusCurrent());
  }

  open(filter) {
    const { shown } = this.table;
    this.table.setCurrent(filter);
    dropRemovedTiles();
    find("detail-title").textContent = `Filter ${filter}${partnerNote(filter)}`;
    find("detail-verdicts").replaceChildren(...verdictsOf(filter).map((verdict) => verdictItem(verdict, true)));
    this.enlarged = rankOf.get(filter) < data.tiled ? plates.map((plate) => this.enlarge(plate, filter)) : [];
    find("detail-tiles").replaceChildren(...this.enlarged.map(({ figure }) => figure));
    find("weight").textContent = this.enlarged.length
      ? "Point at a weight, or focus a tile and use the arrow keys, to read it."
      : "This filter is not pictured.";
    const numbered = checkpoints.filter(({ filters }) => filters.cosine_to_first);
    fillTable(find("detail-numbers"), numberColumns(filter, numbered), numbered);
    if (!this.element.open) this.element.showModal();
    if (checkpoints.length > 2) drawChart(find("detail-chart"), [filter], null);
    find("before").disabled = shown.indexOf(filter) < 1;
    find("after").disabled = shown.indexOf(filter) === shown.length - 1;
    if (document.activeElement.disabled) find("close").focus();
  }

  openNeighbour(by) {
    const { shown, current } = this.table;
    this.open(shown[shown.indexOf(current) + by]);
  }

  /** A tile whose weights the pointer and the arrow keys read. */
  enlarge(plate, filter) {
    const figure = makeTile(plate, filter), canvas = figure.querySelector("canvas");
    figure.querySelector(".caption").remove();
    const partner = partnerIn(plate, filter);
    const name = nameOf(plate) + (!plate.isDifference && partner >= 0 && partner !== filter ? `, filter ${partner}` : "");
    const value = el("output", { "aria-hidden": "true" });
    figure.append(el("figcaption", {}, el("span", {}, name), value));
    const large = { plate, figure, value, mark: el("span", { class: "mark", hidden: true }), tile: rankOf.get(filter) };
    if (!canvas) return large;
    const label = `Weights of ${name}; arrow keys read them`;
    const frame = el("div", { class: "frame", tabindex: 0, role: "group", "aria-label": label }, canvas, large.mark);
    figure.prepend(frame);
    frame.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      this.readCell(large, plate.cells.at((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height));
    });
    let cell = { plane: 0, y: 0, x: 0 };
    frame.addEventListener("keydown", (event) => {
      const direction = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
      if (!direction) return;
      event.preventDefault();
      const next = neighbourOf(plate.cells, cell, direction);
      if (plate.cells.has(next)) this.readCell(large, (cell = next), true);
    });
    return large;
  }

  /** Show the weights of a cell in every tile of the same shape; `isSpoken` adds them to the live text. */
  readCell(pointed, cell, isSpoken = false) {
    for (const one of this.enlarged) {
      const isAlike = ["height", "width"].every((side) => one.plate[side] === pointed.plate[side]);
      const isShown = cell && isAlike && one.plate.cells.has(cell);
      one.mark.hidden = !isShown;
      one.value.textContent = isShown ? one.plate.weightsAt(one.tile, cell).map(weightText).join("  ") : "";
      if (isShown) Object.assign(one.mark.style, one.plate.cells.boxOf(cell));
    }
    if (!cell) return;
    const place = placeText(pointed.plate, cell);
    const weights = isSpoken ? `: ${pointed.plate.weightsAt(pointed.tile, cell).map(weightText).join(", ")}` : "";
    find("weight").textContent = place + weights;
  }
}

function partnerNote(filter) {
  const partner = last.partner[filter];
  return partner === filter ? "" : partner < 0 ? ", without a partner in the last" : `, ${partner} in the last`;
}

/** The columns of the filter's table, without those that are empty for all checkpoints. */
function numberColumns(filter, numbered) {
  const numbers = [
    ["Change", "change_from_first"],
    ["Cosine", "cosine_to_first"],
    ["Correlation", "correlation"],
    ["Change from previous", "change_from_previous"],
    ["Cosine to previous", "cosine_to_previous"],
    ["Norm", "norm"],
  ];
  const isPermuted = differs(({ partner }) => partner[filter]);
  const partnerText = ({ partner }) => (partner[filter] < 0 ? "none" : String(partner[filter]));
  const all = [
    ["Checkpoint", captionOf],
    ["Filter", (checkpoint) => (isPermuted ? partnerText(checkpoint) : null)],
    ...numbers.map(([title, key]) => [title, ({ filters }) => filters[key][filter]]),
    ["Verdicts", (checkpoint) => verdictNamesAt(checkpoint, filter).join(", ") || null],
  ];
  return all.filter(([, read]) => numbered.some((checkpoint) => read(checkpoint) !== null));
}

/** The cell beside a cell; beyond the edge of a picture it is in the next picture. */
function neighbourOf({ across, weights }, { plane, y, x }, [right, down]) {
  const over = [Math.floor((x + right) / weights.width), Math.floor((y + down) / weights.height)];
  const column = (plane % across) + over[0];
  if (column < 0 || column >= across) return { plane: -1, y, x };
  return {
    plane: plane + over[0] + over[1] * across,
    y: y + down - over[1] * weights.height, x: x + right - over[0] * weights.width,
  };
}

function placeText(plate, { plane, y, x }) {
  const { across } = plate.cells;
  const row = plate.isVolume ? `Slice ${plane % across}, row` : "Row";
  const place = plate.isCurve ? `Tap ${x}` : `${row} ${y}, column ${x}`;
  const channel = plate.isVolume ? Math.floor(plane / across) : plane;
  const source = plate.mixed ? `mixture of ${plate.mixed} channels` : `channel ${channel}`;
  return `${place}, ${plate.rgb ? "red green blue" : source}`;
}

function weightText(weight) {
  return Number.isNaN(weight) ? "not finite" : (weight > 0 ? "+" : "") + numberText(weight);
}

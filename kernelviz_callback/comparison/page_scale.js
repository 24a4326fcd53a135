import { el, numberText } from "../tensorboard_plugin/static/dom.js";
import { paintRamp } from "../tensorboard_plugin/static/pictures.js";
import { find, nameOf, partnerIn, pictured, plates, rankOf } from "./page_data.js";

/** The tiles on the page, and the colour scale that a person chose for them. */

let scale = "all";
const placed = new Map(); // canvas to [plate, index of its tile]

/** The plates that share a scale. A curve shows a weight as a height too, so its difference shares it. */
const sharing = plates.filter((plate) => plate.isCurve || !plate.isDifference);
const alone = plates.find((plate) => !sharing.includes(plate));
const rowEndOf = (tile) => Math.max(...sharing.map((plate) => plate.own[tile]));

/** A figure with the tile of a filter of the first checkpoint, or with a note where it has no partner. */
export function makeTile(plate, filter) {
  const tile = rankOf.get(filter), partner = partnerIn(plate, filter), name = nameOf(plate);
  const figure = el("figure", { class: plate.isDifference ? "tile difference" : "tile" });
  if (partner < 0) {
    figure.append(el("span", { class: "missing" }, "no partner"));
  } else {
    const canvas = el("canvas", { role: "img", "aria-label": `Filter ${partner}, ${name}, largest weight ${numberText(plate.own[tile])}` });
    placed.set(canvas, [plate, tile]);
    paintOn(canvas);
    if (plate.isHigh) figure.style.setProperty("--share", `${(100 * plate.cells.width) / plate.cells.height}%`);
    figure.append(canvas);
  }
  figure.append(el("span", { class: "caption", "aria-hidden": "true" }, name));
  return figure;
}

function paintOn(canvas) {
  const [plate, tile] = placed.get(canvas);
  plate.paint(canvas, tile, scale, sharing.includes(plate) ? rowEndOf(tile) : null);
}

/** Drop the tiles that are no longer in the document. */
export function dropRemovedTiles() {
  for (const canvas of placed.keys()) if (!canvas.isConnected) placed.delete(canvas);
}

export function setScale(name) {
  scale = name;
  for (const canvas of placed.keys()) paintOn(canvas);
  showScale();
}

/** Show the colours of the scale with the values at their ends. */
export function showScale() {
  const ramps = [[pictured[0], "weights"], [alone, "difference"]].filter(([plate]) => plate).map(([plate, what]) => {
    const ramp = el("canvas", { class: "ramp", "aria-hidden": "true" });
    paintRamp(ramp, plate.rgb);
    const end = scale === "all" ? numberText(plate.common) : "max";
    return el("span", { class: "range" }, `${what} −${end}`, ramp, `+${end}`);
  });
  const note = {
    all: "zero in the middle",
    filter: "max: the largest weight of the filter in any checkpoint",
    tile: "max: the largest weight of the tile",
  }[scale];
  find("scale").replaceChildren(...ramps, el("span", { class: "faint" }, [note, ...layoutNotes()].join("; ")));
}

/** How the weights of a tile are arranged, where the picture alone does not show it. */
function layoutNotes() {
  const [plate] = pictured;
  if (!plate) return [];
  const hasRows = plate.cells.count > plate.cells.across;
  return [
    ...(plate.isCurve ? ["taps left to right"] : []),
    ...(plate.isVolume ? [`slices left to right${hasRows ? ", input channels top to bottom" : ""}`] : []),
    ...(plate.rgb ? ["input channels 0, 1, 2 as red, green, blue"] : []),
  ];
}

import { el, numberText } from "../tensorboard_plugin/static/dom.js";
import { data } from "./page_data.js";

/** Parts that several sections of the page use. */

/** Fill a table: `columns` are `[title, read]`, where `read` returns a text, a number or null for a row. */
export function fillTable(table, columns, rows) {
  const head = el("tr", {}, ...columns.map(([title]) => el("th", { scope: "col" }, title)));
  const lines = rows.map((row) => el("tr", {}, ...columns.map(([, read], k) => {
    const value = read(row) ?? null;
    return el(k ? "td" : "th", k ? {} : { scope: "row" }, typeof value === "string" ? value : numberText(value));
  })));
  table.replaceChildren(el("thead", {}, head), el("tbody", {}, ...lines));
}

/** A list item for a verdict of `verdictsOf`. */
export function verdictItem([state, name, reason], withReason) {
  const swatch = el("span", { class: "swatch", "aria-hidden": "true" });
  swatch.style.background = `rgb(${data.verdict_colours[name].join(",")})`;
  const item = el("li", { class: state }, swatch, el("span", {}, el("b", {}, `${state}: ${name}`)));
  if (withReason && reason) item.lastChild.append(el("small", {}, `${state === "gone" ? "was: " : ""}${reason}`));
  return item;
}

import { clamp, countText, el, numberText } from "../tensorboard_plugin/static/dom.js";
import { comparesWeights, data, find, isKnown, last, nameOf, plates, rankOf, verdictsOf } from "./page_data.js";
import { verdictItem } from "./page_parts.js";
import { makeTile } from "./page_scale.js";

const AHEAD = "600px"; // tiles are painted when their row is so near to the window

/** The order of the other outputs: filters without a partner come first. */
const changeRank = (filter) => (comparesWeights ? -1 : 1) * rankOf.get(filter);

/** The severity of a filter's worst verdict, smallest first; null without a verdict. */
function severityOf(filter) {
  const stateRank = { new: 0, gone: 2, still: 1 };
  const found = verdictsOf(filter).map(([state, name]) => stateRank[state] * 10 + data.verdict_names.indexOf(name));
  return found.length ? Math.min(...found) : null;
}

/** `value` is what a column is sorted by, `key` the number that it shows, `falls` its first order. */
const COLUMNS = [
  { id: "filter", name: "Filter", value: (filter) => filter },
  { id: "tiles" },
  { id: "change", name: "Change", key: "change_from_first", falls: true, value: changeRank },
  { id: "cosine", name: "Cosine", key: "cosine_to_first" },
  { id: "correlation", name: "Correlation", key: "correlation", value: comparesWeights ? undefined : changeRank },
  { id: "verdicts", name: "Verdicts", value: severityOf },
].filter(({ id, key }) => (key ? isKnown(key) : id !== "tiles" || plates.length));

/** The table of filters: sorted by a column, limited to some filters, walked through with arrow keys. */
export class FilterTable {
  constructor({ open }) {
    Object.assign(this, { open, rows: new Map(), shown: data.order, current: null });
    this.sorting = { by: comparesWeights ? "change" : "correlation", falls: comparesWeights };
    this.body = document.querySelector("#filters tbody");
    this.observer = new IntersectionObserver((entries) => this.paintRows(entries), { rootMargin: AHEAD });
    this.fillHead();
    for (const filter of data.order) this.addRow(filter);
    this.body.addEventListener("keydown", (event) => this.onKey(event));
  }

  fillHead() {
    const cells = COLUMNS.map((column) => {
      if (column.id === "tiles") {
        const names = plates.map((plate) =>
          el("span", { title: nameOf(plate), class: plate.isDifference ? "difference" : "" }, nameOf(plate)));
        return el("th", { role: "columnheader", class: "tiles" }, ...names);
      }
      const button = el("button", { type: "button", click: () => this.sortBy(column) }, column.name);
      return el("th", { role: "columnheader", class: column.id, "data-column": column.id }, button);
    });
    document.querySelector("#filters thead").append(el("tr", { role: "row" }, ...cells));
  }

  addRow(filter) {
    const partner = last.partner[filter];
    const other = partner === filter ? "" : partner < 0 ? "no partner" : `with ${partner}`;
    const button = el("button", {
      type: "button", class: "number", tabindex: -1, "aria-haspopup": "dialog", "aria-label": `Filter ${filter} ${other}`,
    }, String(filter));
    const cells = COLUMNS.map((column) => {
      const isHead = column.id === "filter";
      const cell = el(isHead ? "th" : "td", {
        role: isHead ? "rowheader" : "cell", class: column.id, "data-name": column.name ?? "",
      });
      if (isHead) cell.append(button, ...(other ? [el("small", {}, other)] : []));
      if (column.key) cell.append(numberText(last.filters[column.key][filter]));
      if (column.id === "verdicts") {
        const items = verdictsOf(filter).map((verdict) => verdictItem(verdict, verdict[0] === "new"));
        cell.append(el("ul", { class: "verdicts" }, ...items));
      }
      return cell;
    });
    const row = el("tr", { role: "row", click: () => this.open(filter) }, ...cells);
    row.filter = filter;
    this.rows.set(filter, { row, button, tiles: row.querySelector(".tiles") });
    if (plates.length) this.observer.observe(row);
  }

  paintRows(entries) {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      this.observer.unobserve(target);
      const isTiled = rankOf.get(target.filter) < data.tiled;
      const tiles = isTiled
        ? plates.map((plate) => makeTile(plate, target.filter))
        : [el("span", { class: "faint" }, "not pictured")];
      this.rows.get(target.filter).tiles.append(...tiles);
    }
  }

  sortBy(column) {
    const { sorting } = this;
    sorting.falls = sorting.by === column.id ? !sorting.falls : Boolean(column.falls);
    sorting.by = column.id;
    this.arrange();
  }

  /** Show the filters that the fields ask for, in the chosen order. */
  arrange() {
    const { by, falls } = this.sorting, column = COLUMNS.find(({ id }) => id === by);
    const valueOf = column.value ?? ((filter) => last.filters[column.key][filter]);
    const ranges = rangesIn(find("which").value), verdict = find("verdict").value;
    const isInRange = (filter) => !ranges || ranges.some(([low, high]) => low <= filter && filter <= high);
    const hasVerdict = (filter) => !verdict || verdictsOf(filter).some(([state, name]) => verdict === state || verdict === name);
    const compare = (a, b) => {
      const [one, other] = [valueOf(a), valueOf(b)];
      if (one === null || other === null) return (one === null) - (other === null) || a - b;
      return (falls ? other - one : one - other) || a - b;
    };
    const sorted = data.order.slice().sort(compare);
    this.shown = sorted.filter((filter) => isInRange(filter) && hasVerdict(filter));
    this.body.replaceChildren(...this.shown.map((filter) => this.rows.get(filter).row));
    for (const head of document.querySelectorAll("#filters [data-column]")) {
      const isSorted = head.dataset.column === by;
      head.setAttribute("aria-sort", isSorted ? (falls ? "descending" : "ascending") : "none");
    }
    const order = `by ${column.name.toLowerCase()}, ${falls ? "falling" : "rising"}`;
    find("count").textContent = `${this.shown.length} of ${countText(data.order.length, "filter")}, ${order}`;
    find("none").hidden = this.shown.length > 0;
    this.setCurrent(this.shown[0] ?? null);
  }

  /** The Tab key reaches one row, the current one; arrow keys reach the others. */
  setCurrent(filter) {
    if (this.current !== null) this.rows.get(this.current).button.tabIndex = -1;
    this.current = filter;
    if (filter !== null) this.rows.get(filter).button.tabIndex = 0;
  }

  focusCurrent() {
    if (this.current !== null) this.rows.get(this.current).button.focus();
  }

  onKey(event) {
    if (!event.target.classList.contains("number")) return;
    const at = this.shown.indexOf(this.current), end = this.shown.length - 1;
    const goal = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: end }[event.key];
    if (goal === undefined) return;
    event.preventDefault();
    this.setCurrent(this.shown[clamp(goal, 0, end)]);
    this.focusCurrent();
  }
}

/** The ranges in a text such as "3, 12-20"; null where it has none. */
function rangesIn(text) {
  const found = [...text.matchAll(/(\d+)(?:\s*[-–]\s*(\d+))?/g)];
  return found.length ? found.map(([, low, high]) => [Number(low), Number(high ?? low)]) : null;
}

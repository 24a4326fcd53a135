/* Tiles. */

let scale = "all";
const painted = new Map();

/** The plates that share a scale: curves share it with their difference. */
const sharing = plates.filter((plate) => plate.isCurve || !plate.isDifference);
const rowRange = (tile) => Math.max(...sharing.map((plate) => plate.own[tile]));
const partnerIn = (plate, filter) => points[plate.checkpoint ?? pictured.at(-1).checkpoint].partner[filter];

function tile(plate, filter) {
  const at = rank.get(filter), partner = partnerIn(plate, filter);
  const figure = el("figure", { class: plate.isDifference ? "tile difference" : "tile" });
  if (partner < 0) {
    figure.append(el("span", { class: "missing" }, "no partner"));
  } else {
    const name = nameOf(plate);
    const canvas = el("canvas", { role: "img", "aria-label": `Filter ${partner}, ${name}, largest weight ${say(plate.own[at])}` });
    painted.set(canvas, [plate, at]);
    paint(canvas);
    figure.append(canvas);
  }
  figure.append(el("span", { class: "caption", "aria-hidden": "true" }, nameOf(plate)));
  return figure;
}

function paint(canvas) {
  const [plate, at] = painted.get(canvas);
  plate.paint(canvas, at, scale, sharing.includes(plate) ? rowRange(at) : null);
}

function setScale(name) {
  scale = name;
  painted.forEach((_, canvas) => paint(canvas));
  sayScale();
}

function sayScale() {
  const parts = [];
  const alone = plates.find((plate) => !sharing.includes(plate));
  const both = [[pictured[0], "weights"], [alone, "difference"]].filter(([plate]) => plate);
  for (const [plate, what] of both) {
    const bar = el("canvas", { class: "ramp", "aria-hidden": "true" });
    paintBar(bar, plate.rgb, colours);
    const end = scale === "all" ? say(plate.common) : "max";
    parts.push(el("span", { class: "range" }, `${what} −${end}`, bar, `+${end}`));
  }
  const note = {
    all: "zero in the middle",
    filter: "max: the largest weight of the filter in any checkpoint",
    tile: "max: the largest weight of the tile",
  }[scale];
  find("scale").replaceChildren(...parts, el("span", { class: "faint" }, [note, ...layout()].join("; ")));
}

/** How the weights of a tile are laid out, where that cannot be seen. */
function layout() {
  const [plate] = pictured;
  if (!plate) return [];
  return [
    ...(plate.isCurve ? ["taps left to right"] : []),
    ...(plate.isVolume ? [`slices left to right${plate.down > 1 ? ", input channels top to bottom" : ""}`] : []),
    ...(plate.rgb ? ["input channels 0, 1, 2 as red, green, blue"] : []),
  ];
}

/* The filters. */

const rows = new Map();
const gravity = (filter) => {
  const worst = { new: 0, gone: 2, still: 1 };
  const found = verdictsOf(filter).map(([how, name]) => worst[how] * 10 + data.verdict_names.indexOf(name));
  return found.length ? Math.min(...found) : null;
};
/** The order that the other outputs have too: filters without a partner are first, not last. */
const mostChanged = (filter) => (comparesWeights ? -1 : 1) * rank.get(filter);
const columns = [
  { id: "filter", name: "Filter", value: (filter) => filter },
  { id: "tiles" },
  { id: "change", name: "Change", key: "change_from_first", falls: true, value: mostChanged },
  { id: "cosine", name: "Cosine", key: "cosine_to_first" },
  { id: "correlation", name: "Correlation", key: "correlation", value: comparesWeights ? undefined : mostChanged },
  { id: "verdicts", name: "Verdicts", value: gravity },
].filter(({ id, key }) => key ? known(key) : id !== "tiles" || plates.length);
for (const column of columns) column.value ??= (filter) => last.filters[column.key][filter];
const sorting = { by: comparesWeights ? "change" : "correlation", falls: comparesWeights };

function fillHead() {
  const cells = columns.map((column) => {
    if (column.id === "tiles") {
      const names = plates.map((plate) =>
        el("span", { title: nameOf(plate), class: plate.isDifference ? "difference" : "" }, nameOf(plate)));
      return el("th", { role: "columnheader", class: "tiles" }, ...names);
    }
    const button = el("button", { type: "button" }, column.name);
    button.addEventListener("click", () => sortBy(column));
    return el("th", { role: "columnheader", class: column.id, "data-column": column.id }, button);
  });
  document.querySelector("#filters thead").append(el("tr", { role: "row" }, ...cells));
}

function sortBy(column) {
  sorting.falls = sorting.by === column.id ? !sorting.falls : Boolean(column.falls);
  sorting.by = column.id;
  arrange();
}

function fillRow(filter) {
  const partner = last.partner[filter];
  const other = partner === filter ? "" : partner < 0 ? "no partner" : `with ${partner}`;
  const button = el("button", {
    type: "button", class: "number", tabindex: -1, "aria-haspopup": "dialog", "aria-label": `Filter ${filter} ${other}`,
  }, String(filter));
  const cells = columns.map((column) => {
    const isHead = column.id === "filter";
    const cell = el(isHead ? "th" : "td", {
      role: isHead ? "rowheader" : "cell", class: column.id, "data-name": column.name ?? "",
    });
    if (isHead) cell.append(button, ...(other ? [el("small", {}, other)] : []));
    if (column.key) cell.append(say(last.filters[column.key][filter]));
    if (column.id === "verdicts") {
      const said = verdictsOf(filter).map((verdict) => sayVerdict(verdict, verdict[0] === "new"));
      cell.append(el("ul", { class: "verdicts" }, ...said));
    }
    return cell;
  });
  const row = el("tr", { role: "row" }, ...cells);
  row.addEventListener("click", () => openDetail(filter));
  rows.set(filter, { row, button, tiles: row.querySelector(".tiles") });
  if (plates.length) nearby.observe(row);
  row.filter = filter;
}

const nearby = new IntersectionObserver((seen) => {
  for (const { isIntersecting, target } of seen) {
    if (!isIntersecting) continue;
    nearby.unobserve(target);
    const isTiled = rank.get(target.filter) < data.tiled;
    const tiles = isTiled
      ? plates.map((plate) => tile(plate, target.filter))
      : [el("span", { class: "faint" }, "not pictured")];
    rows.get(target.filter).tiles.append(...tiles);
  }
}, { rootMargin: "600px" });

let shown = data.order;

function arrange() {
  const column = columns.find(({ id }) => id === sorting.by);
  const asked = numbersIn(find("which").value), verdict = find("verdict").value;
  const isAsked = (filter) => !asked || asked.some(([low, high]) => low <= filter && filter <= high);
  const has = (filter) => !verdict || verdictsOf(filter).some(([how, name]) => verdict === how || verdict === name);
  const compare = (a, b) => {
    const [one, other] = [column.value(a), column.value(b)];
    if (one === null || other === null) return (one === null) - (other === null) || a - b;
    return (sorting.falls ? other - one : one - other) || a - b;
  };
  const sorted = data.order.slice().sort(compare);
  shown = sorted.filter((filter) => isAsked(filter) && has(filter));
  document.querySelector("#filters tbody").replaceChildren(...shown.map((filter) => rows.get(filter).row));
  for (const head of document.querySelectorAll("#filters [data-column]")) {
    const isIt = head.dataset.column === sorting.by;
    head.setAttribute("aria-sort", isIt ? (sorting.falls ? "descending" : "ascending") : "none");
  }
  const order = `by ${column.name.toLowerCase()}, ${sorting.falls ? "falling" : "rising"}`;
  find("count").textContent = `${shown.length} of ${data.order.length} filters, ${order}`;
  find("none").hidden = shown.length > 0;
  moveTo(shown[0], false);
}

/** Ranges of "3, 12-20"; null for all. */
function numbersIn(text) {
  const found = [...text.matchAll(/(\d+)(?:\s*[-–]\s*(\d+))?/g)];
  return found.length ? found.map(([, low, high]) => [Number(low), Number(high ?? low)]) : null;
}

let current = null;

/** One row at a time is in the order of the Tab key; arrow keys go to the others. */
function moveTo(filter, focus = true) {
  if (current !== null) rows.get(current).button.tabIndex = -1;
  current = filter ?? null;
  if (current === null) return;
  const { button } = rows.get(current);
  button.tabIndex = 0;
  if (focus) button.focus();
}

function walk(event) {
  if (!event.target.classList.contains("number")) return;
  const at = shown.indexOf(current), end = shown.length - 1;
  const goal = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: end }[event.key];
  if (goal === undefined) return;
  event.preventDefault();
  moveTo(shown[Math.max(0, Math.min(end, goal))]);
}

/* One filter, closely. */

const detail = find("detail");
let enlarged = [];

function openDetail(filter) {
  moveTo(filter, false);
  for (const canvas of painted.keys()) if (!canvas.isConnected) painted.delete(canvas);
  const partner = last.partner[filter];
  const other = partner === filter ? "" : partner < 0 ? ", without a partner in the last" : `, ${partner} in the last`;
  find("detail-title").textContent = `Filter ${filter}${other}`;
  find("detail-verdicts").replaceChildren(...verdictsOf(filter).map((verdict) => sayVerdict(verdict, true)));
  enlarged = rank.get(filter) < data.tiled ? plates.map((plate) => enlarge(plate, filter)) : [];
  find("detail-tiles").replaceChildren(...enlarged.map(({ figure }) => figure));
  find("weight").textContent = enlarged.length
    ? "Point at a weight, or focus a tile and use the arrow keys, to read it."
    : "This filter is not pictured.";
  const numbered = points.filter((point) => point.filters.cosine_to_first);
  fillTable(find("detail-numbers"), numberColumns(filter, numbered), numbered);
  if (!detail.open) detail.showModal();
  if (points.length > 2) drawChart(find("detail-chart"), [filter], null);
  find("before").disabled = shown.indexOf(filter) < 1;
  find("after").disabled = shown.indexOf(filter) === shown.length - 1;
  if (document.activeElement.disabled) find("close").focus();
}

function numberColumns(filter, numbered) {
  const named = [
    ["Change", "change_from_first"],
    ["Cosine", "cosine_to_first"],
    ["Correlation", "correlation"],
    ["Change from previous", "change_from_previous"],
    ["Cosine to previous", "cosine_to_previous"],
    ["Norm", "norm"],
  ];
  const isPermuted = differs((point) => point.partner[filter]);
  const partner = (point) => point.partner[filter] < 0 ? "none" : String(point.partner[filter]);
  const all = [
    ["Checkpoint", caption],
    ["Filter", (point) => isPermuted ? partner(point) : null],
    ...named.map(([name, key]) => [name, (point) => point.filters[key][filter]]),
    ["Verdicts", (point) => [...(byFilter[points.indexOf(point)].get(filter)?.keys() ?? [])].join(", ") || null],
  ];
  return all.filter(([, read]) => numbered.some((point) => read(point) !== null));
}

function enlarge(plate, filter) {
  const figure = tile(plate, filter), canvas = figure.querySelector("canvas");
  figure.querySelector(".caption").remove();
  const partner = partnerIn(plate, filter);
  const named = nameOf(plate) + (!plate.isDifference && partner >= 0 && partner !== filter ? `, filter ${partner}` : "");
  const value = el("output", { "aria-hidden": "true" });
  figure.append(el("figcaption", {}, el("span", {}, named), value));
  const large = { plate, figure, value, mark: el("span", { class: "mark", hidden: "" }), at: rank.get(filter) };
  if (!canvas) return large;
  const label = `Weights of ${named}; arrow keys read them`;
  const frame = el("div", { class: "frame", tabindex: 0, role: "group", "aria-label": label }, canvas, large.mark);
  figure.prepend(frame);
  frame.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    readCell(large, plate.cellAt((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height));
  });
  let cell = { panel: 0, y: 0, x: 0 };
  frame.addEventListener("keydown", (event) => {
    const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = stepped(plate, cell, step);
    if (plate.has(next)) readCell(large, (cell = next), true);
  });
  return large;
}

/** The neighbour of a weight, in the next panel where one ends. */
function stepped(plate, { panel, y, x }, [right, down]) {
  const over = [x + right, y + down].map((place, k) => Math.floor(place / [plate.width, plate.height][k]));
  const side = panel % plate.across + over[0];
  if (side < 0 || side >= plate.across) return { panel: -1, y, x };
  return {
    panel: panel + over[0] + over[1] * plate.across,
    y: y + down - over[1] * plate.height, x: x + right - over[0] * plate.width,
  };
}

/** Tell the weight in every tile of the same shape. */
function readCell(pointed, cell, aloud = false) {
  for (const one of enlarged) {
    const isAlike = ["height", "width"].every((side) => one.plate[side] === pointed.plate[side]);
    const fits = cell && isAlike && one.plate.has(cell);
    one.mark.hidden = !fits;
    one.value.textContent = fits ? weightsAt(one, cell).map(sayWeight).join("  ") : "";
    if (fits) Object.assign(one.mark.style, one.plate.boxOf(cell));
  }
  if (!cell) return;
  const where = placeOf(pointed.plate, cell);
  find("weight").textContent = aloud ? `${where}: ${weightsAt(pointed, cell).map(sayWeight).join(", ")}` : where;
}

function placeOf(plate, { panel, y, x }) {
  const slice = plate.isVolume ? `Slice ${panel % plate.across}, row` : "Row";
  const place = plate.isCurve ? `Tap ${x}` : `${slice} ${y}, column ${x}`;
  const channel = plate.isVolume ? Math.floor(panel / plate.across) : panel;
  const what = plate.mixed ? `mixture of ${plate.mixed} channels` : `channel ${channel}`;
  return `${place}, ${plate.rgb ? "red green blue" : what}`;
}

function weightsAt({ plate, at }, { panel, y, x }) {
  return plate.planesOf(panel).map((plane) => plate.weight(at, plane, y * plate.width + x));
}

function sayWeight(weight) {
  return Number.isNaN(weight) ? "not finite" : (weight > 0 ? "+" : "") + say(weight);
}

function leaf(step) {
  openDetail(shown[shown.indexOf(current) + step]);
}

/* Light and dark. */

const THEME = "kernelviz-theme";
const prefersDark = matchMedia("(prefers-color-scheme: dark)");

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  find("theme").setAttribute("aria-pressed", String(theme === "dark"));
}

function remembered() {
  try { return localStorage.getItem(THEME); } catch { return null; }
}

function switchTheme() {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  setTheme(theme);
  try { localStorage.setItem(THEME, theme); } catch { /* A page from a disk may not be allowed to. */ }
}

function start() {
  setTheme(remembered() ?? (prefersDark.matches ? "dark" : "light"));
  prefersDark.addEventListener("change", () => remembered() ?? setTheme(prefersDark.matches ? "dark" : "light"));
  find("theme").addEventListener("click", switchTheme);
  document.documentElement.style.setProperty("--tiles", plates.length);
  // Slices of one tile stand nearer to each other than tiles do.
  if (plates.some((plate) => plate.isVolume)) document.documentElement.style.setProperty("--gap", "16px");
  document.documentElement.style.setProperty("--abreast", plates.length > 4 ? Math.ceil(plates.length / 2) : Math.max(plates.length, 3));
  fillHeader();
  fillNumbers();
  find("chart-title").textContent = quantity.title;
  drawChart(find("chart"), data.order, openDetail);
  fillHead();
  data.order.forEach(fillRow);
  const present = data.verdict_names.filter((name) => points.some((point) => point.verdict_counts[name]));
  const options = [["", "any or none"], ["new", "new ones"], ["gone", "gone ones"], ...present.map((name) => [name, name])];
  find("verdict").append(...options.map(([value, name]) => el("option", { value }, name)));
  find("verdict").addEventListener("change", arrange);
  find("which").addEventListener("input", arrange);
  find("tools").addEventListener("submit", (event) => event.preventDefault());
  find("scales").addEventListener("change", (event) => setScale(event.target.value));
  document.querySelector("#filters tbody").addEventListener("keydown", walk);
  find("before").addEventListener("click", () => leaf(-1));
  find("after").addEventListener("click", () => leaf(1));
  find("close").addEventListener("click", () => detail.close());
  detail.addEventListener("close", () => current !== null && moveTo(current));
  find("scales").hidden = find("scale").hidden = !plates.length;
  sayScale();
  arrange();
}

start();

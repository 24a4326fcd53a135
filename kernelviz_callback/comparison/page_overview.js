const data = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);
const colours = decode(data.diverging);
const plates = data.plates.map((given) => new Plate(given, colours));
const points = data.checkpoints, first = points[0], last = points.at(-1);
for (const point of points) point.partner ??= Array.from({ length: first.shape[0] }, (_, k) => k);
const rank = new Map(data.order.map((filter, k) => [filter, k]));
const known = (name) => last.filters[name].some((value) => value !== null);
const comparesWeights = known("change_from_first");
const pictured = plates.filter((plate) => !plate.isDifference);

const hasSteps = points.every((point) => point.step !== null);
const risesInSteps = hasSteps && points.every((point, k) => !k || point.step > points[k - 1].step);
const distinctSteps = hasSteps && new Set(points.map((point) => point.step)).size === points.length;
const caption = (point) => distinctSteps ? `step ${point.step}` : point.label;
const nameOf = (plate) => plate.isDifference ? "last − first" : caption(points[plate.checkpoint]);
const byShape = (shape) => shape.slice(1).join(" × ");
const whole = (value) => value === null ? null : String(value);
const differs = (pick) => new Set(points.map(pick)).size > 1;

/* Header, statements, headline numbers. */

function fillHeader() {
  find("layer").textContent = first.layer;
  find("shape").textContent = `${first.shape[0]} filters, ${byShape(first.shape)}, in ${points.length} checkpoints`;
  const ends = points.length > 4 ? [first, last] : points;
  find("checkpoints").append(...ends.map((point, k) => el("div", {},
    el("dt", {}, point === first ? "First" : point === last ? "Last" : `Number ${k + 1}`),
    el("dd", { title: point.name }, point.label),
    el("dd", { class: "faint" }, [
      ...(point.step === null ? [] : [`step ${point.step}`]),
      ...(point.epoch === null ? [] : [`epoch ${point.epoch}`]),
      `${point.shape[0]} × ${byShape(point.shape)}`,
      ...(differs((p) => p.layer) ? [`layer ${point.layer}`] : []),
    ].join(", ")))));
  find("statements").append(...data.statements.map((text) => el("li", {}, text)));
  find("notes").append(...data.notes.map((text) => el("li", {}, text)));
}

function fillNumbers() {
  const counts = data.verdict_names.filter((name) => points.some((point) => point.verdict_counts[name]));
  const all = [
    ["Checkpoint", (point) => point.label],
    ["Step", (point) => whole(point.step)],
    ["Epoch", (point) => whole(point.epoch)],
    ["Shape", (point) => differs((p) => String(p.shape)) ? point.shape.join(" × ") : null],
    ["Drift", (point) => point.numbers.drift],
    ["Mean cosine", (point) => point.numbers.mean_cosine],
    ["Mean correlation", (point) => point.numbers.mean_correlation],
    likeness("Weights alike", "weights_alike"),
    likeness("Responses alike", "responses_alike"),
    ["New verdicts", (point) => whole(point.numbers.new_verdicts)],
    ["Gone verdicts", (point) => whole(point.numbers.gone_verdicts)],
    ...counts.map((name) => [name, (point) => whole(point.verdict_counts[name])]),
  ];
  const kept = all.filter(([, read]) => points.some((point) => (read(point) ?? null) !== null));
  fillTable(find("numbers"), kept, points);
  const absent = data.verdict_names.filter((name) => !counts.includes(name));
  find("numbers-note").textContent = absent.length ? `In no checkpoint: ${absent.join(", ")}.` : "";
}

/** Beside each its chance; above all of them where it is the same. */
function likeness(title, key) {
  const chances = new Set(points.filter((point) => point[key]).map((point) => say(point[key][1])));
  if (chances.size === 1) return [`${title} (chance ${[...chances]})`, (point) => point[key] && point[key][0]];
  return [title, (point) => point[key] && `${say(point[key][0])} (chance ${say(point[key][1])})`];
}

function fillTable(table, columns, rows) {
  const head = el("tr", {}, ...columns.map(([name]) => el("th", { scope: "col" }, name)));
  const lines = rows.map((row) => el("tr", {}, ...columns.map(([, read], k) => {
    const value = read(row) ?? null;
    return el(k ? "td" : "th", k ? {} : { scope: "row" }, typeof value === "string" ? value : say(value));
  })));
  table.replaceChildren(el("thead", {}, head), el("tbody", {}, ...lines));
}

/* Curves. */

const quantity = comparesWeights
  ? { key: "change_from_first", what: "change", title: "Change from the first" }
  : { key: "correlation", what: "correlation", title: "Correlation of responses with the first" };

function drawChart(host, filters, open) {
  const ofLayer = comparesWeights ? points.map((p, k) => k ? p.numbers.drift : 0) : null;
  const values = (filter) => points.map((point, k) => k || !comparesWeights ? point.filters[quantity.key][filter] : 0);
  if (points.length === 2) {
    const lines = filters.map((filter) => ({ filter, values: [last.filters[quantity.key][filter]] }));
    return new Chart(host, { what: quantity.what, lines: lines.filter((line) => line.values[0] !== null), open });
  }
  const even = { shares: points.map((_, k) => k / (points.length - 1)), note: "checkpoints, in their order" };
  const axis = risesInSteps ? alongSteps(points.map((p) => p.step)) : even;
  axis.names = points.map((point, k) => risesInSteps ? String(point.step) : String(k + 1));
  axis.unit = risesInSteps ? "step " : "checkpoint ";
  return new Chart(host, {
    what: quantity.what, bold: ofLayer, axis, open,
    lines: filters.map((filter) => ({ filter, values: values(filter) })),
  });
}

/* Verdicts. */

const byFilter = points.map((point) => {
  const found = new Map();
  for (const [filter, name, reason] of point.verdicts) {
    if (!found.has(filter)) found.set(filter, new Map());
    found.get(filter).set(data.verdict_names[name], reason ?? "");
  }
  return found;
});

/** [how, name, reason] of each verdict: new, still or gone in the last. */
function verdictsOf(filter) {
  const then = byFilter[0].get(filter) ?? new Map(), now = byFilter.at(-1).get(filter) ?? new Map();
  return data.verdict_names.flatMap((name) => {
    if (now.has(name)) return [[then.has(name) ? "still" : "new", name, now.get(name)]];
    return then.has(name) ? [["gone", name, then.get(name)]] : [];
  });
}

function sayVerdict([how, name, reason], withReason) {
  const swatch = el("span", { class: "swatch", "aria-hidden": "true" });
  swatch.style.background = `rgb(${data.verdict_colours[name].join(",")})`;
  const said = el("li", { class: how }, swatch, el("span", {}, el("b", {}, `${how}: ${name}`)));
  if (withReason && reason) said.lastChild.append(el("small", {}, `${how === "gone" ? "was: " : ""}${reason}`));
  return said;
}

const MARGIN = { left: 46, right: 14, top: 12, bottom: 42 };
const CHART_HEIGHT = 280;
const BAR_GAP = 0.2;

function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function svg(tag, attributes = {}, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

function say(number) {
  if (number === null || Number.isNaN(number)) return "–";
  const size = Math.abs(number);
  const text = (size && size < 1e-3) || size >= 1e5 ? number.toExponential(1) : size >= 100 ? number.toFixed(0) : number.toFixed(3);
  return text.replaceAll("-", "−");
}

/** Round numbers from zero to beyond the largest, four or so. */
function ticksTo(largest) {
  const rough = (largest || 1) / 4, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  return Array.from({ length: Math.ceil((largest || 1) / step - 1e-9) + 1 }, (_, k) => k * step);
}

/** Shares of the axis. Steps that bunch at its beginning are drawn on a logarithmic scale. */
function alongSteps(steps) {
  const span = steps.at(-1) - steps[0];
  const bunched = steps[Math.floor(steps.length / 2)] - steps[0] < 0.2 * span;
  const place = bunched ? (s) => Math.log1p(s - steps[0]) / Math.log1p(span) : (s) => (s - steps[0]) / span;
  return { shares: steps.map(place), note: bunched ? "step, logarithmic" : "step" };
}

/**
 * A faint line or a bar for each filter. The pointer, or the arrow keys, pick one out; a click or
 * Enter opens it.
 *
 * what: what is drawn, a word. lines: [{filter, values}], most changed first. bold: values of the
 * layer or null. axis: {shares, names, note}, of the values; null for bars, of one value each.
 */
class Chart {
  constructor(host, { what, lines, bold = null, axis = null, open = null }) {
    Object.assign(this, { host, what, lines, bold, axis, open, picked: null });
    this.said = el("p", { class: "readout" });
    this.stage = el("div", { class: "stage" });
    host.replaceChildren(this.stage, this.said);
    if (open) this.listen();
    this.width = 0;
    new ResizeObserver(() => this.resize()).observe(this.stage);
    this.resize();
  }

  resize() {
    const width = Math.round(this.stage.clientWidth);
    if (!width || width === this.width) return;
    this.width = width;
    this.draw();
  }

  listen() {
    const { stage } = this;
    for (const [name, value] of Object.entries({
      role: "slider", tabindex: 0, "aria-label": `${this.what} of each filter, most changed first`,
      "aria-valuemin": 1, "aria-valuemax": this.lines.length, "aria-valuenow": 1,
      "aria-valuetext": this.sentence(0),
    })) stage.setAttribute(name, value);
    stage.addEventListener("pointermove", (event) => this.pick(this.nearest(event)));
    stage.addEventListener("pointerleave", () => document.activeElement === stage || this.pick(null));
    stage.addEventListener("click", () => this.picked !== null && this.open(this.lines[this.picked].filter));
    stage.addEventListener("focus", () => this.picked === null && stage.matches(":focus-visible") && this.pick(0));
    stage.addEventListener("blur", () => this.pick(null));
    stage.addEventListener("keydown", (event) => {
      const last = this.lines.length - 1, at = this.picked ?? 0;
      const goal = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: last }[event.key];
      if (goal !== undefined) this.pick(Math.max(0, Math.min(last, goal)));
      else if (event.key === "Enter") this.open(this.lines[at].filter);
      else return;
      event.preventDefault();
    });
  }

  draw() {
    const known = this.lines.flatMap((line) => line.values).concat(this.bold ?? []).filter((v) => v !== null);
    const lowest = Math.min(0, ...known);
    const ticks = [...ticksTo(-lowest).slice(1).map((t) => -t).reverse(), ...ticksTo(Math.max(...known, 0))];
    const shown = lowest < 0 ? ticks : ticks.filter((t) => t >= 0);
    const [low, high] = [shown[0], shown.at(-1)];
    const inner = this.width - MARGIN.left - MARGIN.right, down = CHART_HEIGHT - MARGIN.top - MARGIN.bottom;
    this.y = (value) => MARGIN.top + down * (high - value) / (high - low);
    this.x = (share) => MARGIN.left + inner * share;
    this.drawing = svg("svg", { width: this.width, height: CHART_HEIGHT, role: "img", "aria-label": this.summary() });
    const right = this.width - MARGIN.right;
    for (const tick of shown) {
      this.drawing.append(
        svg("line", { class: tick ? "grid" : "axis", x1: MARGIN.left, x2: right, y1: this.y(tick), y2: this.y(tick) }),
        svg("text", { class: "tick end", x: MARGIN.left - 8, y: this.y(tick) + 4 }, String(+tick.toPrecision(3)).replace("-", "−")));
    }
    this.nameAxis();
    if (this.bold) this.drawing.append(svg("path", { class: "bold-line", d: this.path(this.bold) }));
    const kind = this.open ? "faint-line" : "picked-line";
    if (this.axis) this.lines.forEach((line) => this.drawing.append(svg("path", { class: kind, d: this.path(line.values) })));
    else this.lines.forEach((_, k) => this.drawing.append(this.bar(k, "bar")));
    this.top = svg("g");
    this.drawing.append(this.top);
    this.stage.replaceChildren(this.drawing);
    this.pick(this.picked);
  }

  nameAxis() {
    const line = CHART_HEIGHT - MARGIN.bottom + 16;
    const { shares, names, note } = this.axis ?? { shares: [], names: [], note: "filters, most changed first" };
    this.drawing.append(svg("text", { class: "tick middle", x: this.x(0.5), y: CHART_HEIGHT - 6 }, note));
    let free = Infinity;
    for (let k = shares.length - 1; k >= 0; k--) {
      const half = 3.4 * names[k].length + 3, at = Math.min(this.x(shares[k]), this.width - half);
      if (at + half > free) continue;
      free = at - half;
      this.drawing.append(svg("text", { class: "tick middle", x: at, y: line }, names[k]));
    }
  }

  path(values) {
    let pen = "M";
    return values.map((value, k) => {
      if (value === null) { pen = "M"; return ""; }
      const part = `${pen}${this.x(this.axis.shares[k]).toFixed(1)} ${this.y(value).toFixed(1)}`;
      pen = "L";
      return part;
    }).join("");
  }

  bar(k, kind) {
    const wide = 1 / this.lines.length, value = this.lines[k].values[0] ?? 0;
    const top = this.y(Math.max(value, 0)), bottom = this.y(Math.min(value, 0));
    return svg("rect", {
      class: kind, x: this.x((k + BAR_GAP / 2) * wide), width: Math.max(0.5, this.x(wide * (1 - BAR_GAP)) - this.x(0)),
      y: top, height: Math.max(1, bottom - top),
    });
  }

  nearest(event) {
    const box = this.stage.getBoundingClientRect();
    const across = (event.clientX - box.left - MARGIN.left) / (this.width - MARGIN.left - MARGIN.right);
    if (!this.axis) return Math.max(0, Math.min(this.lines.length - 1, Math.floor(across * this.lines.length)));
    const { shares } = this.axis;
    const at = shares.reduce((best, share, k) => Math.abs(share - across) < Math.abs(shares[best] - across) ? k : best, 0);
    this.at = at;
    const far = (line) => line.values[at] === null ? Infinity : Math.abs(this.y(line.values[at]) - (event.clientY - box.top));
    return this.lines.reduce((best, line, k) => far(line) < far(this.lines[best]) ? k : best, 0);
  }

  pick(index) {
    this.picked = index;
    if (!this.top) return;
    this.top.replaceChildren();
    this.said.textContent = index === null ? this.hint() : this.sentence(index);
    if (index === null) return;
    this.stage.setAttribute("aria-valuenow", index + 1);
    this.stage.setAttribute("aria-valuetext", this.sentence(index));
    if (!this.axis) { this.top.append(this.bar(index, "bar picked")); return; }
    const { values } = this.lines[index];
    this.top.append(svg("path", { class: "picked-line", d: this.path(values) }));
    values.forEach((value, k) => value !== null && this.top.append(
      svg("circle", { class: "picked-dot", cx: this.x(this.axis.shares[k]), cy: this.y(value), r: 3 })));
  }

  sentence(index) {
    const { filter, values } = this.lines[index];
    const at = this.axis && this.at !== undefined ? this.at : values.length - 1;
    const when = this.axis ? ` at ${this.axis.unit}${this.axis.names[at]}` : "";
    return `Filter ${filter}: ${this.what} ${say(values[at])}${when}`;
  }

  hint() {
    if (!this.open) return this.bold ? "Coloured: this filter. Bold: the layer." : "";
    const what = this.bold ? "Bold: the layer. Thin: a filter each" : `A ${this.axis ? "line" : "bar"} for each filter`;
    return `${what}; point at one, or use the arrow keys.`;
  }

  summary() {
    const ends = this.bold && this.bold.at(-1) !== null ? ` The layer ends at ${say(this.bold.at(-1))}.` : "";
    return `${this.what} of ${this.lines.length} filters.${ends}`;
  }
}

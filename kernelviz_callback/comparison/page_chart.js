import { clamp, countText, el, numberText, svg } from "../tensorboard_plugin/static/dom.js";

const MARGIN = { left: 46, right: 14, top: 12, bottom: 42 }; // pixels
const CHART_HEIGHT = 280; // pixels
const BAR_GAP = 0.2; // as a share of the room of a bar

/** About four round numbers, from zero to the largest value or a little more. */
function ticksTo(largest) {
  const rough = (largest || 1) / 4, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  return Array.from({ length: Math.ceil((largest || 1) / step - 1e-9) + 1 }, (_, k) => k * step);
}

/**
 * A chart with one thin line or one bar for each filter.
 *
 * The pointer or the arrow keys select a line; a click or Enter calls `open` with its filter.
 * `what` names the quantity. `lines` are `[{filter, values}]`, most changed first. `bold` are the
 * values of the layer, or null. `axis` is `{shares, names, note, unit}`, one entry for each value;
 * null draws bars, of one value each.
 */
export class Chart {
  constructor(host, { what, lines, bold = null, axis = null, open = null }) {
    Object.assign(this, { host, what, lines, bold, axis, open, selected: null });
    this.readout = el("p", { class: "readout" });
    this.stage = el("div", { class: "stage" });
    host.replaceChildren(this.stage, this.readout);
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
    stage.addEventListener("pointermove", (event) => this.select(this.nearest(event)));
    stage.addEventListener("pointerleave", () => document.activeElement === stage || this.select(null));
    stage.addEventListener("click", () => this.selected !== null && this.open(this.lines[this.selected].filter));
    stage.addEventListener("focus", () => this.selected === null && stage.matches(":focus-visible") && this.select(0));
    stage.addEventListener("blur", () => this.select(null));
    stage.addEventListener("keydown", (event) => {
      const last = this.lines.length - 1, at = this.selected ?? 0;
      const goal = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: last }[event.key];
      if (goal !== undefined) this.select(clamp(goal, 0, last));
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
    this.overlay = svg("g");
    this.drawing.append(this.overlay);
    this.stage.replaceChildren(this.drawing);
    this.select(this.selected);
  }

  nameAxis() {
    const line = CHART_HEIGHT - MARGIN.bottom + 16;
    const { shares, names, note } = this.axis ?? { shares: [], names: [], note: "filters, most changed first" };
    this.drawing.append(svg("text", { class: "tick middle", x: this.x(0.5), y: CHART_HEIGHT - 6 }, note));
    let free = Infinity; // names are left out where they would overlap the next one
    for (let k = shares.length - 1; k >= 0; k--) {
      const half = 3.4 * names[k].length + 3, at = Math.min(this.x(shares[k]), this.width - half);
      if (at + half > free) continue;
      free = at - half;
      this.drawing.append(svg("text", { class: "tick middle", x: at, y: line }, names[k]));
    }
  }

  path(values) {
    let command = "M"; // a line that is interrupted by an unknown value begins again
    return values.map((value, k) => {
      if (value === null) { command = "M"; return ""; }
      const part = `${command}${this.x(this.axis.shares[k]).toFixed(1)} ${this.y(value).toFixed(1)}`;
      command = "L";
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
    if (!this.axis) return clamp(Math.floor(across * this.lines.length), 0, this.lines.length - 1);
    const { shares } = this.axis;
    const at = shares.reduce((best, share, k) => Math.abs(share - across) < Math.abs(shares[best] - across) ? k : best, 0);
    this.place = at;
    const far = (line) => line.values[at] === null ? Infinity : Math.abs(this.y(line.values[at]) - (event.clientY - box.top));
    return this.lines.reduce((best, line, k) => far(line) < far(this.lines[best]) ? k : best, 0);
  }

  select(index) {
    this.selected = index;
    if (!this.overlay) return;
    this.overlay.replaceChildren();
    this.readout.textContent = index === null ? this.hint() : this.sentence(index);
    if (index === null) return;
    this.stage.setAttribute("aria-valuenow", index + 1);
    this.stage.setAttribute("aria-valuetext", this.sentence(index));
    if (!this.axis) { this.overlay.append(this.bar(index, "bar picked")); return; }
    const { values } = this.lines[index];
    this.overlay.append(svg("path", { class: "picked-line", d: this.path(values) }));
    values.forEach((value, k) => value !== null && this.overlay.append(
      svg("circle", { class: "picked-dot", cx: this.x(this.axis.shares[k]), cy: this.y(value), r: 3 })));
  }

  sentence(index) {
    const { filter, values } = this.lines[index];
    const at = this.axis && this.place !== undefined ? this.place : values.length - 1;
    const when = this.axis ? ` at ${this.axis.unit}${this.axis.names[at]}` : "";
    return `Filter ${filter}: ${this.what} ${numberText(values[at])}${when}`;
  }

  hint() {
    if (!this.open) return this.bold ? "Coloured: this filter. Bold: the layer." : "";
    const what = this.bold ? "Bold: the layer. Thin: a filter each" : `A ${this.axis ? "line" : "bar"} for each filter`;
    return `${what}; point at one, or use the arrow keys.`;
  }

  summary() {
    const ends = this.bold && this.bold.at(-1) !== null ? ` The layer ends at ${numberText(this.bold.at(-1))}.` : "";
    return `${this.what} of ${countText(this.lines.length, "filter")}.${ends}`;
  }
}

import { countText, el, numberText, setOptions, setText } from "./dom.js";
import { isColour } from "./paint.js";
import { paintProbe } from "./pictures.js";
import { MOST_PLANES_SHOWN } from "./probes.js";

const ZOOMS = [1, 2, 4, 8, 16];
const MANY_RUNS = 8; // with more runs there is a field to find one

/**
 * The controls: runs, layer, colours, order, probe.
 *
 * `actions` holds `setView`, `reorder` and `useImage`.
 */
export class Sidebar {
  constructor(model, ordering, probes, actions) {
    Object.assign(this, { model, ordering, probes, actions, runsKey: "", probeKey: "" });
    const set = (key, read = (value) => value) => (event) => actions.setView({ [key]: read(event.target.value) });
    this.runs = el("ul", { class: "runs", "data-role": "runs" });
    this.findRun = el("input", { type: "search", placeholder: "Find a run", "aria-label": "Find a run", hidden: true, input: () => this.filterRuns() });
    this.layer = el("select", { "data-role": "layer", change: set("layer") });
    this.about = el("p", { class: "hint", "data-role": "about-layer" });
    this.scale = segments("scale", "Colour scale", [["filter", "Filter"], ["layer", "Layer"], ["run", "Run"]], set("scale"));
    this.scaleHint = el("p", { class: "hint" });
    this.channels = segments("channel", "Channels", [["rgb", "RGB"], ["0", "R"], ["1", "G"], ["2", "B"], ["all", "All"]], set("channel"));
    this.channel = el("select", { "data-role": "channel", change: set("channel") });
    this.channelField = field("Channels", this.channel);
    this.response = segments("response", "Responses", [["channels", "Channels"], ["sum", "Sum"]], set("response"));
    this.difference = el("select", {
      "data-role": "difference",
      change: (event) => actions.setView({
        difference: event.target.value, pinned: event.target.value === "pinned" ? this.model.step : this.model.view.pinned,
      }),
    });
    this.pin = el("button", { type: "button", class: "quiet", "data-role": "pin", click: () => actions.setView({ pinned: model.step }) }, "Pin this step");
    this.order = el("select", { "data-role": "order", change: (event) => actions.setView({ order: event.target.value, ordered: null }) });
    this.orderNote = el("p", { class: "hint" });
    this.reorder = el("button", { type: "button", class: "quiet", "data-role": "reorder", click: () => actions.reorder() }, "Order by this step");
    this.zoom = el("select", { "data-role": "zoom", change: (event) => actions.setView({ zoom: Number(event.target.value) || null }) });
    this.match = el("input", { type: "checkbox", "data-role": "match", change: () => actions.setView({ match: this.match.checked }) });
    this.matchNote = el("p", { class: "hint" });
    this.matchField = el("div", { class: "field" }, el("label", { class: "check" }, this.match, "Match filters across runs"), this.matchNote);
    this.picture = el("canvas", { class: "probe-picture", role: "img" });
    this.probeName = el("span", { "data-role": "probe-name" });
    this.file = el("input", { type: "file", accept: "image/*", class: "unseen", tabindex: -1, "data-role": "probe-file", "aria-hidden": "true",
      change: (event) => { actions.useImage(event.target.files[0]); event.target.value = ""; } });
    this.chooseImage = el("button", { type: "button", class: "quiet", "data-role": "choose-probe", click: () => this.file.click() }, "Choose an image…");
    this.backToRun = el("button", { type: "button", class: "quiet", hidden: true, "data-role": "run-probe", click: () => actions.useImage(null) }, "Use the probe of the run");
    this.probeGroup = group("Probe", el("div", { class: "probe" }, this.picture, el("div", {}, this.probeName, el("p", { class: "hint" }, "Or drop an image on the page; it stays in your browser."))), this.chooseImage, this.backToRun, this.file);
    this.root = el("div", { class: "controls" },
      group("Runs", this.findRun, this.runs),
      group("Layer", this.layer, this.about),
      this.scale.root, this.scaleHint, this.channels.root, this.channelField, this.response.root,
      field("Difference to", this.difference, this.pin),
      field("Order", this.order, this.orderNote, this.reorder),
      this.matchField,
      field("Tile size", this.zoom),
      this.probeGroup,
      el("div", { class: "group foot" }, keysHelp()));
  }

  update() {
    const { model } = this, { view, lead } = model;
    this.layer.setAttribute("aria-label", "Layer");
    this.listRuns();
    setOptions(this.layer, model.layers.map((name) => [name, name]), model.layer);
    this.layer.disabled = model.layers.length < 2;
    this.scale.choose(view.scale);
    setText(this.scaleHint, {
      filter: "Each filter by its own largest weight.",
      layer: "One scale for all filters of a step.",
      run: "One scale for all steps and runs shown; for responses, for all runs at this step.",
    }[view.scale]);
    if (lead) this.showLayer(lead);
    const pinned = view.pinned === null ? "this step" : `step ${view.pinned}`;
    setOptions(this.difference, [["none", "nothing: the weights"], ["first", "the first snapshot"], ["previous", "the snapshot before"], ["pinned", view.difference === "pinned" ? `pinned: ${pinned}` : "this step, pinned"]], view.difference);
    this.pin.hidden = view.difference !== "pinned" || view.pinned === model.step;
    setOptions(this.order, [["index", "filter number"], ["norm", "norm"], ["drift", "change from the first"], ["health", "verdicts, worst first"]], view.order);
    setOptions(this.zoom, [["", "fit the window"], ...ZOOMS.map((zoom) => [String(zoom), `${zoom} pixels a weight`])], String(view.zoom ?? ""));
    this.orderNote.hidden = view.order === "index" && !view.match;
    setText(this.orderNote, `As of step ${this.ordering.step}.`);
    this.showReorder();
    this.matchField.hidden = model.tracks.length < 2;
    this.match.disabled = this.ordering.why !== null;
    this.match.checked = view.match && !this.match.disabled;
    setText(this.matchNote, this.ordering.why ?? (view.match ? this.describeMatch() : ""));
  }

  /** Show the buttons that depend on the step of the slider. */
  showReorder() {
    const { view, step } = this.model;
    const isFixed = view.order === "index" && !view.match;
    this.reorder.hidden = isFixed || this.ordering.step === step;
    this.pin.hidden = view.difference !== "pinned" || view.pinned === step;
  }

  /**
   * The mean cosine of the pairs, beside that of random filters: even their best pairs are somewhat
   * similar.
   */
  describeMatch() {
    const { tracks } = this.model, { alike } = this.ordering;
    const sentences = [...alike].map(([track, { mean, chance }]) =>
      `Mean cosine of the pairs${tracks.length > 2 ? ` with ${track.run}` : ""} ${numberText(mean)}; random filters reach ${numberText(chance)}.`);
    return [...sentences, "Filters without a partner are faint, at the end."].join(" ");
  }

  showLayer(lead) {
    const { view } = this.model;
    const { shape: [filters, channels, ...kernel], total } = lead.series;
    const stored = filters < total.filters ? ` The first ${filters} are stored.` : "";
    const partly = channels < total.channels ? ` The first ${channels} channels are stored.` : "";
    const coarsely = lead.entries.some((entry) => entry.dtype === "uint8") ? " Stored with 8 bits." : "";
    const asStored = lead.entries.some((entry) => entry.stored_only) ? " Weights as stored: the layer may multiply with other weights." : "";
    setText(this.about, `${countText(total.filters, "filter")}, ${[total.channels, ...kernel].join(" × ")}; ${countText(lead.entries.length, "snapshot")}.${stored}${partly}${coarsely}${asStored}`);
    const channel = String(this.model.channelOf(lead));
    const hasColours = isColour(lead.shape, "rgb");
    this.channels.root.hidden = !hasColours;
    this.channelField.hidden = hasColours || channels === 1;
    this.channels.choose(channel);
    setOptions(this.channel, [["all", "all"], ...Array.from({ length: channels }, (_, k) => [String(k), `input channel ${k}`])], channel === "rgb" ? "all" : channel);
    const isOne = channel !== "rgb" && channel !== "all";
    const isOfImages = lead.shape.length === 4;
    this.probeGroup.hidden = !isOfImages;
    this.response.root.hidden = !isOfImages || isOne || channels < 2 || channels > MOST_PLANES_SHOWN;
    this.response.choose(view.response === "auto" ? (channels === 3 ? "channels" : "sum") : view.response);
  }

  listRuns() {
    const { model } = this;
    const key = JSON.stringify([model.runs.map((run) => run.name), model.tracks.map((track) => track.run)]);
    if (key === this.runsKey) return;
    this.runsKey = key;
    const focused = document.activeElement?.dataset?.run;
    const chosen = new Set(model.tracks.map((track) => track.run));
    this.runs.replaceChildren(...model.runs.map((run, k) => el("li", {}, el("label", { class: "check", title: run.name },
      el("input", { type: "checkbox", "data-run": run.name, ...(chosen.has(run.name) ? { checked: true } : {}), change: (event) => this.chooseRun(run.name, event.target) }),
      el("i", { class: "swatch", style: `--run: var(--run-${k % 8})` }), el("span", {}, run.name)))));
    this.findRun.hidden = model.runs.length <= MANY_RUNS;
    this.filterRuns();
    if (focused !== undefined) this.runs.querySelector(`[data-run="${CSS.escape(focused)}"]`)?.focus();
  }

  /** Show or hide a run. At least one stays on the page. */
  chooseRun(name, box) {
    const names = this.model.tracks.map((track) => track.run).filter((run) => run !== name);
    if (box.checked) names.push(name);
    if (!names.length) box.checked = true;
    else this.actions.setView({ runs: this.model.runs.map((run) => run.name).filter((run) => names.includes(run)) });
  }

  filterRuns() {
    const text = this.findRun.value.toLowerCase();
    for (const item of this.runs.children) item.hidden = !item.textContent.toLowerCase().includes(text);
  }

  /** Show the probe of the first run. */
  showProbe() {
    const { model, probes } = this;
    if (!model.lead) return;
    const found = probes.original(model, model.lead, model.indexOf(model.lead));
    this.backToRun.hidden = !probes.own;
    const { probe } = found;
    setText(this.probeName, probe ? `${probe.name}, ${probe.shape[2]} × ${probe.shape[1]}` : found.isLoading ? "…" : found.why);
    this.picture.hidden = !probe;
    if (!probe || probe === this.painted) return;
    this.painted = probe;
    paintProbe(this.picture, probe);
    this.picture.setAttribute("aria-label", `Probe ${probe.name}`);
  }
}

function group(title, ...children) {
  return el("section", { class: "group" }, el("h2", {}, title), ...children);
}

function field(title, control, ...others) {
  const label = el("label", { class: "field" }, el("span", { class: "label" }, title), control);
  return el("div", { class: "field-group" }, label, ...others);
}

function segments(name, title, options, change) {
  const boxes = options.map(([value]) => el("input", { type: "radio", name, value, change }));
  const root = el("fieldset", { class: "segments", "data-role": name }, el("legend", { class: "label" }, title),
    ...options.map(([, text], k) => el("label", {}, boxes[k], el("span", {}, text))));
  return { root, choose: (value) => boxes.forEach((box) => (box.checked = box.value === value)) };
}

function keysHelp() {
  const keys = [["← →", "a snapshot back or on"], ["shift ← →", "ten"], ["home end", "first, last"], ["space", "play, pause"],
    ["[ ]", "previous, next filter"], ["esc", "close the filter"]];
  return el("details", { class: "keys" }, el("summary", {}, "Keys"),
    el("dl", {}, ...keys.flatMap(([key, what]) => [el("dt", {}, key), el("dd", {}, what)])));
}

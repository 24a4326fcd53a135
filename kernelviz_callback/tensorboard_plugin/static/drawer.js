import { CurveView } from "./curves.js";
import { el, icon, numberText, setText } from "./dom.js";
import { Film, HealthBars, verdictText } from "./film.js";
import { Plate } from "./plate.js";

const CROSS = "M3.5 4.6 4.6 3.5 8 6.9l3.4-3.4 1.1 1.1L9.1 8l3.4 3.4-1.1 1.1L8 9.1l-3.4 3.4-1.1-1.1L6.9 8z";
const BACK = "M10.5 3 5.5 8l5 5z";
const FORWARD = "M5.5 3l5 5-5 5z";
const PLATE_SHARE = 3 / 7; // of the drawer's width is for the kernel, the rest for the response
const PLATE_GAP = 12; // CSS pixels between kernel and response
const LIVE_MILLISECONDS = 8; // of each frame for all responses, while the slider moves

/**
 * The selected filter, enlarged; hidden while no filter is selected.
 *
 * `actions` holds `refresh`, `moveTo`, `moveToStep`, `selectNeighbour` and `closeFilter`.
 */
export class Drawer {
  constructor(model, ordering, board, probes, actions) {
    Object.assign(this, { model, ordering, board, probes, actions, parts: new Map(), room: 0 });
    this.title = el("h2", { tabindex: -1, "data-role": "filter-title" });
    const button = (name, label, path, click) =>
      el("button", { type: "button", class: "icon-button", "data-role": name, "aria-label": label, title: label, click }, icon(path));
    this.head = el("div", { class: "drawer-head" }, this.title,
      button("previous-filter", "Previous filter ( [ )", BACK, () => actions.selectNeighbour(-1)),
      button("next-filter", "Next filter ( ] )", FORWARD, () => actions.selectNeighbour(1)),
      button("close", "Close (Esc)", CROSS, () => actions.closeFilter()));
    this.verdicts = el("ul", { class: "verdicts", "data-role": "verdicts" });
    this.plates = el("div", { class: "plates" });
    this.films = el("div", { class: "films" });
    this.norm = new CurveView("Norm", "norm", actions);
    this.change = new CurveView("Change from the first", "change", actions);
    this.health = el("div", { class: "healths" });
    this.body = el("div", { class: "drawer-body" }, this.verdicts, this.plates, el("div", {},
      section("Film strip", this.films), section("Over the steps", this.norm.root, this.change.root, this.health)));
    this.root = el("aside", { class: "drawer", "aria-label": "Selected filter", hidden: true, "data-role": "drawer" }, this.head, this.body);
    new ResizeObserver(([entry]) => {
      const room = Math.floor(entry.contentRect.width);
      if (room === this.room) return;
      this.room = room;
      actions.refresh();
    }).observe(this.plates);
  }

  get isOpen() {
    return !this.root.hidden;
  }

  /** The selected filter and its partners in the other runs: `[track, filter]` each. */
  chosen() {
    const { track, filter } = this.model.selection;
    if (!track) return [];
    const ordered = [track, ...this.model.shown.filter((other) => other !== track)];
    return ordered.map((other) => [other, this.ordering.counterpart(track, filter, other)]).filter(([, own]) => own >= 0);
  }

  /** Build the drawer for the selection. `paint` draws what depends on the slider. */
  update() {
    const { track, filter } = this.model.selection;
    this.root.hidden = !track;
    if (!track) return;
    setText(this.title, `Filter ${filter}`);
    this.root.setAttribute("aria-label", `Filter ${filter} of ${track.run}`);
    const chosen = this.chosen();
    const hasMany = this.model.tracks.length > 1;
    for (const known of this.parts.keys()) if (!chosen.some(([other]) => other === known)) this.parts.delete(known);
    for (const [other] of chosen) {
      if (!this.parts.has(other)) this.parts.set(other, { plate: new Plate(other), film: new Film(other, this.actions), bars: new HealthBars() });
    }
    const parts = chosen.map(([other, own]) => ({ other, own, ...this.parts.get(other) }));
    for (const { other, own, plate } of parts) {
      plate.title.hidden = !hasMany;
      plate.title.replaceChildren(el("i", { class: "swatch", style: `--run: ${this.model.colourOf(other)}` }), other.run,
        own === filter ? "" : `, filter ${own}`);
      plate.responseKey = "";
      plate.frame.setAttribute("aria-label", `Kernel of filter ${own}, arrows read its weights`);
    }
    fill(this.plates, parts.map(({ plate }) => plate.root));
    fill(this.films, parts.map(({ film }) => film.root));
    fill(this.health, parts.map(({ bars }) => bars.root));
    this.drawCurves();
  }

  drawCurves() {
    if (!this.isOpen) return;
    const { model } = this;
    const lines = (read) => this.chosen().map(([track, filter]) => ({
      colour: model.colourOf(track), count: track.entries.length,
      shares: track.entries.map((entry) => model.axis.place(entry.step)),
      value: (k) => read(track.series, k)?.[filter] ?? NaN,
    }));
    this.norm.draw(model.axis, lines((series, k) => series.norms(k)));
    this.change.draw(model.axis, lines((series, k) => series.changes(k)));
    for (const [track, filter] of this.chosen()) this.parts.get(track)?.bars.draw(model, track, filter, model.tracks.length > 1 ? track.run : null);
  }

  /** Draw what depends on the slider. */
  paint(isResting) {
    if (!this.isOpen) return;
    const { model, room } = this, { view } = model, dpr = window.devicePixelRatio;
    if (room <= 0) return;
    const chosen = this.chosen();
    for (const [track, filter] of chosen) {
      const set = this.board.sets.get(track), parts = this.parts.get(track), index = model.indexOf(track);
      if (!parts || !set) continue;
      parts.film.show(model, filter, room, dpr);
      parts.film.place(track.entries[index].step);
      if (!track.isReady(index, view) || !set.painted) continue;
      const values = track.values(index, view), channel = model.channelOf(track);
      const own = track.shape.length !== 4 ? room : Math.floor((room - PLATE_GAP) * PLATE_SHARE);
      parts.plate.show(filter, set.atlas, own, dpr);
      parts.plate.read(values, channel);
      setText(parts.plate.kernelNote, `kernel${track.part && ` ${track.part}`}, ${set.why ?? `±${numberText(set.ends[filter])}`}`);
      const probe = this.probes.adapted(model, track, index);
      const key = [this.board.responseKey(track, index, probe), filter, view.scale, view.scale === "filter" ? "" : set.feed.end,
        track.isOfSignals ? room * dpr : ""].join("\n");
      parts.plate.respond(key, values, channel, view, probe, set.feed, isResting ? Infinity : LIVE_MILLISECONDS / chosen.length);
    }
    this.placeNeedles(chosen);
    this.showVerdicts(chosen);
  }

  placeNeedles(chosen) {
    const { model } = this, share = model.axis.shares[model.position];
    const now = (read) => chosen.map(([track, filter]) => numberText(read(track.series, model.indexOf(track))?.[filter])).join(" · ");
    this.norm.place(share, now((series, k) => series.norms(k)));
    this.change.place(share, now((series, k) => series.changes(k)));
  }

  showVerdicts(chosen) {
    const { model } = this;
    const found = chosen.flatMap(([track, filter]) => (track.verdicts(model.indexOf(track), filter, model.verdictNames) ?? [])
      .map((name) => ({ name, run: chosen.length > 1 ? track.run : "" })));
    const isExamined = chosen.some(([track]) => model.entryOf(track).verdicts);
    const key = JSON.stringify([found, isExamined]);
    if (key === this.verdicts.dataset.key) return;
    this.verdicts.dataset.key = key;
    if (!found.length) this.verdicts.replaceChildren(el("li", { class: "none" }, isExamined ? "No verdict at this step." : "Health was not examined at this step."));
    else this.verdicts.replaceChildren(...found.map(({ name, run }) => el("li", { "data-verdict": name },
      el("i", { class: "verdict-swatch", style: `--verdict:${model.colourOfVerdict(name)}` }),
      el("span", {}, el("b", {}, name), ` ${verdictText(name)}${run ? ` (${run})` : ""}`))));
  }
}

function section(title, ...children) {
  return el("section", { class: "drawer-section" }, el("h3", {}, title), ...children);
}

function fill(host, children) {
  if (children.length !== host.childElementCount || children.some((child, k) => host.children[k] !== child)) host.replaceChildren(...children);
}

import { countText, el, grouped, setText } from "./dom.js";

const MOST_LEFT_OUT = 20; // runs that are named
const LONGEST_TAG = 200; // characters

/**
 * The messages of the page (what is wrong, missing, or being loaded) and the legend of the verdicts.
 * `actions` holds `setView`.
 */
export class Notices {
  constructor(model, actions) {
    Object.assign(this, { model, actions, sentences: new Map() });
    this.banner = el("p", { class: "banner", role: "status", hidden: true, "data-role": "banner" });
    this.progress = el("progress", { "aria-label": "Snapshots loaded", max: 1, value: 0 });
    this.loaded = el("span", { "data-role": "loaded" });
    this.loading = el("span", { class: "loading-note", hidden: true }, this.loaded, this.progress);
    this.legend = el("div", { class: "legend", role: "group", "aria-label": "Verdicts at this step", "data-role": "legend" });
    this.list = el("ul", {});
    this.count = el("summary", {});
    this.notes = el("details", { class: "notes", hidden: true, "data-role": "notes" }, this.count, this.list);
    this.page = el("div", { class: "state", hidden: true, "data-role": "state" });
  }

  /** Set the sentence about a matter; null removes it. Only the first of all sentences is shown. */
  setNotice(matter, text) {
    this.sentences.set(matter, text);
    const first = [...this.sentences.values()].find((one) => one !== null) ?? null;
    this.banner.hidden = first === null;
    setText(this.banner, first ?? "");
  }

  showLoaded() {
    const { now, all } = this.model.loaded;
    this.loading.hidden = now >= all;
    this.progress.max = Math.max(1, all);
    this.progress.value = now;
    setText(this.loaded, `${grouped(now)} of ${grouped(all)} snapshots loaded`);
  }

  /** Show a page instead of the viewer. `steps` are paragraphs; one that begins with "$ " is code. */
  showState(title, ...steps) {
    const key = JSON.stringify([title, steps]);
    if (this.page.dataset.key !== key) {
      this.page.dataset.key = key;
      this.page.replaceChildren(el("h1", {}, title), ...steps.map((step) =>
        step.startsWith("$ ") ? el("pre", {}, el("code", {}, step.slice(2))) : el("p", {}, step)));
    }
    this.page.hidden = false;
  }

  showNoData() {
    const reasons = this.notesOfLeftOutRuns();
    if (reasons.length) {
      this.showState("No run has kernels that can be shown", ...reasons, "This page checks again every few seconds.");
      return;
    }
    this.showState("No run has kernels yet",
      "Give the Trainer a callback, and keep its TensorBoard logger:",
      "$ from kernelviz_callback import KernelVizCallback\n\ntrainer = Trainer(callbacks=[KernelVizCallback()])",
      "Then start TensorBoard with the folder that the logger writes to, or one above it:",
      "$ tensorboard --logdir lightning_logs",
      "This page checks again every few seconds. The first snapshot is written before the first step.");
  }

  /** List what is missing or wrong in the data. The list is folded until the user opens it. */
  listNotes(extra) {
    const { model } = this;
    const notes = extra.concat(model.tracks.flatMap((track) => this.notesOfRun(track)), this.notesOfLeftOutRuns());
    this.notes.hidden = notes.length === 0;
    setText(this.count, countText(notes.length, "note"));
    const key = JSON.stringify(notes);
    if (key === this.list.dataset.key) return;
    this.list.dataset.key = key;
    this.list.replaceChildren(...notes.map((note) => el("li", {}, note)));
  }

  /** Why runs with kernels are not in the list of runs: none of their snapshots can be shown. */
  notesOfLeftOutRuns() {
    const runs = this.model.timeline.runs.filter((run) => !run.layers.length && run.damaged.length);
    const more = runs.length - MOST_LEFT_OUT;
    const notes = runs.slice(0, MOST_LEFT_OUT).map(({ name, damaged: [{ tag, reason }] }) =>
      `Run ${name} is left out: none of its snapshots can be shown. ${shortened(tag)}: ${reason}`);
    return more > 0 ? [...notes, `… and ${countText(more, "other run")} left out.`] : notes;
  }

  notesOfRun(track) {
    const { model } = this;
    const run = model.runs.find((one) => one.name === track.run);
    const notes = [];
    if (run.superseded) {
      notes.push(`${countText(run.superseded, "snapshot")} of an earlier attempt are left out: the training was resumed from an earlier step.`);
    }
    for (const { tag, reason } of run.damaged.slice(0, 20)) notes.push(`Skipped ${shortened(tag)}: ${reason}`);
    if (run.damaged.length > 20) notes.push(`… and ${run.damaged.length - 20} more were skipped.`);
    if (track.series) notes.push(...notesOfLayer(track));
    return model.tracks.length > 1 ? notes.map((note) => `${track.run}: ${note}`) : notes;
  }

  /**
   * Show the verdicts of the layer with their counts. A click on a verdict makes the filters without
   * it faint.
   */
  showLegend() {
    const { model, actions } = this;
    const ever = new Set(model.shown.flatMap((track) => track.series.verdictMarks().map((mark) => mark.name)));
    const names = model.verdictNames.filter((name) => ever.has(name));
    const key = JSON.stringify([names, model.view.verdict]);
    if (this.legend.dataset.key !== key) {
      this.legend.dataset.key = key;
      this.chips = new Map(names.map((name) => [name, el("b", {})]));
      const chosen = model.view.verdict;
      this.legend.replaceChildren(...names.map((name) => el("button", {
        type: "button", class: "chip", "aria-pressed": String(name === chosen), "data-verdict": name,
        title: `Make all filters faint that are not ${name}`,
        click: () => actions.setView({ verdict: name === model.view.verdict ? null : name }),
      }, el("i", { class: "verdict-swatch", style: `--verdict:${model.colourOfVerdict(name)}` }), name, this.chips.get(name))));
    }
    for (const name of names) {
      const counts = model.shown.map((track) => model.entryOf(track).verdicts?.[name] ?? 0);
      setText(this.chips.get(name), counts.join(" · "));
      this.chips.get(name).parentElement.classList.toggle("none", !counts.some(Boolean));
    }
  }
}

const shortened = (tag) => (tag.length > LONGEST_TAG ? `${tag.slice(0, LONGEST_TAG)}…` : tag);

function notesOfLayer({ series, entries, layer, whyNoResponse, isOfSignals }) {
  const notes = [];
  const { shape: [filters, channels], total } = series;
  if (filters < total.filters) notes.push(`${layer} has ${total.filters} filters, of which the first ${filters} are stored.`);
  const responses = whyNoResponse ? "" : `; ${isOfSignals ? "frequency responses" : "responses"} are computed from these`;
  if (channels < total.channels) notes.push(`${layer} reads ${total.channels} channels, of which the first ${channels} are stored${responses}.`);
  if (entries.every((entry) => !entry.verdicts)) notes.push("Health was not examined, so filters have no verdicts.");
  if (series.failed.size) notes.push(`${countText(series.failed.size, "snapshot")} could not be read; the page will try again.`);
  return notes;
}

import { StepAxis } from "./step_axis.js";
import { Track } from "./tracks.js";

const USUAL_SECONDS = 15; // that playing a run takes at most, without a chosen speed
const SPEEDS = [1, 2, 5, 10, 20, 30, 60];

/** What the page shows: the view that the user chose, and the data for it. */
export class Model {
  constructor(source, view, onChange) {
    Object.assign(this, { source, view, onChange, tracks: [], runs: [], axis: new StepAxis([]), position: 0 });
    this.timeline = null;
    this.hasBunched = false;
  }

  get verdictNames() {
    return this.timeline?.verdict_names ?? [];
  }

  colourOfVerdict(name) {
    return `rgb(${this.timeline.verdict_colours[name].join(" ")})`;
  }

  setTimeline(timeline) {
    this.timeline = timeline;
    this.runs = timeline.runs.filter((run) => run.layers.length);
    this.choose();
  }

  /** Choose runs, layer and step again, from the view and the timeline. */
  choose() {
    const chosen = this.chosenRuns();
    for (const track of this.tracks) if (!chosen.some((run) => run.name === track.run)) track.close();
    const known = new Map(this.tracks.map((track) => [track.run, track]));
    this.tracks = chosen.map(({ name }) => known.get(name) ?? new Track(this.source, name, this.onChange));
    this.layers = [...new Set(chosen.flatMap((run) => run.layers.map((layer) => layer.name)))];
    this.layer = this.layers.includes(this.view.layer) ? this.view.layer : this.layers[0] ?? null;
    chosen.forEach((run, k) => this.tracks[k].setLayer(run.layers.find((layer) => layer.name === this.layer) ?? null));
    this.axis = this.axisOf(this.shown.flatMap((track) => track.entries.map((entry) => entry.step)));
    this.position = this.view.step === null ? Math.max(0, this.axis.last) : this.axis.at(this.view.step);
    this.load();
  }

  /** The axis that the user chose. Without a choice it becomes logarithmic once steps bunch, and stays so. */
  axisOf(steps) {
    const axis = new StepAxis(steps);
    this.hasBunched ||= axis.isBunched;
    const isLogarithmic = this.view.axis === "auto" ? this.hasBunched : this.view.axis === "log";
    return isLogarithmic ? new StepAxis(axis.steps, true) : axis;
  }

  /** The runs of the view, or, where it names none, the run that was written last. */
  chosenRuns() {
    const asked = this.runs.filter((run) => this.view.runs?.includes(run.name));
    if (asked.length || !this.runs.length) return asked;
    const latest = (run) => Math.max(...run.layers.map((layer) => layer.snapshots.at(-1)?.time ?? 0));
    return [this.runs.reduce((best, run) => (latest(run) > latest(best) ? run : best))];
  }

  /** Which runs and which layer of the view do not exist, a sentence each. */
  missing() {
    const { view } = this, names = new Set(this.runs.map((run) => run.name));
    const runs = (view.runs ?? []).filter((name) => !names.has(name)).map((name) => `There is no run ${name}.`);
    const isAbsent = view.layer !== null && this.layer !== view.layer;
    const layers = isAbsent ? [`There is no layer ${view.layer} in the runs shown; this is ${this.layer}.`] : [];
    return [...runs, ...layers];
  }

  load() {
    for (const track of this.shown) track.series.load(this.indexOf(track));
  }

  /** The tracks of runs that have the layer. The first one leads: the others are compared with it. */
  get shown() {
    return this.tracks.filter((track) => track.series);
  }

  get lead() {
    return this.shown[0] ?? null;
  }

  get step() {
    return this.axis.steps[this.position] ?? 0;
  }

  indexOf(track) {
    return track.series.indexAt(this.step);
  }

  entryOf(track) {
    return track.entries[this.indexOf(track)];
  }

  /** Show a position. At the last one the view has no step, so that it follows new snapshots. */
  moveTo(position) {
    this.position = Math.max(0, Math.min(this.axis.last, position));
    this.view.step = this.position === this.axis.last ? null : this.step;
  }

  /** Load what a position shows before other snapshots. Returns whether it can be drawn now. */
  prepare(position) {
    const step = this.axis.steps[position];
    return this.shown.every((track) => {
      const index = track.series.indexAt(step);
      if (track.isReady(index, this.view)) return true;
      track.require(index, this.view).catch(() => {});
      return track.series.failed.has(track.entries[index].id);
    });
  }

  /** The selected filter and its track; the track is null where no filter is selected. */
  get selection() {
    const { view, shown, lead } = this;
    const track = view.filter === null ? null : shown.find((one) => one.run === view.of) ?? lead;
    return track && view.filter < track.shape[0] ? { track, filter: view.filter } : { track: null, filter: -1 };
  }

  colourOf(track) {
    return `var(--run-${this.runs.findIndex((run) => run.name === track.run) % 8})`;
  }

  /** The magnitude at the ends of the colours, for all steps and runs on the page. */
  get commonHalfRange() {
    return Math.max(0, ...this.shown.map((track) => track.widest.value));
  }

  get speeds() {
    return SPEEDS;
  }

  /** Snapshots a second: the chosen speed, or the slowest one that plays everything in `USUAL_SECONDS`. */
  get speed() {
    const fitting = SPEEDS.find((speed) => speed * USUAL_SECONDS >= this.axis.last);
    return this.view.speed ?? fitting ?? SPEEDS.at(-1);
  }

  /** What is painted of a filter: "all" channels, the index of one, or "rgb", three as one colour picture. */
  channelOf(track) {
    const index = Number(this.view.channel);
    if (this.view.channel === "rgb" || this.view.channel === "all") return this.view.channel;
    return Number.isInteger(index) && index >= 0 && index < track.shape[1] ? index : "rgb";
  }

  get loaded() {
    const sum = (read) => this.shown.reduce((total, track) => total + read(track), 0);
    return { now: sum((track) => track.series.loadedCount), all: sum((track) => track.entries.length) };
  }
}

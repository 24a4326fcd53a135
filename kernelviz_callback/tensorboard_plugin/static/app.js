import { Board } from "./board.js";
import { probeOfBitmap } from "./decode.js";
import { clamp, eachFrame, say, settled, throttled } from "./dom.js";
import { Drawer } from "./drawer.js";
import { copied, followTheme, onReload } from "./host.js";
import { listenToClicks, listenToDrops, listenToKeys } from "./keys.js";
import { Model } from "./model.js";
import { Notices } from "./notices.js";
import { cosineOf, Ordering } from "./ordering.js";
import { OWN_SIDE, Probes } from "./probes.js";
import { buildShell, placeTip } from "./shell.js";
import { Sidebar } from "./sidebar.js";
import { Timeline } from "./timeline.js";
import { Transport } from "./transport.js";
import { ViewLink } from "./view_state.js";

const POLL_MILLISECONDS = 750; // TensorBoard itself looks every 5 s: a snapshot is seen within 6
const POLL_SHARE = 10; // a long timeline is asked for less often: it takes the server that much
const UNREACHABLE = "Cannot reach TensorBoard; trying again.";
const REST_MILLISECONDS = 120;
const TELL_MILLISECONDS = 500;
const READ_MILLISECONDS = 8000; // a sentence, at leisure
const PROGRESS_MILLISECONDS = 250;

/** The viewer, for TensorBoard's tab and for a report; `source` is where the data comes from. */
export function start(root, source) {
  const viewer = new Viewer(root, source);
  viewer.begin();
  return viewer;
}

class Viewer {
  constructor(root, source) {
    Object.assign(this, { root, source, dirty: true, isResting: false, hasPainted: false, extraNotes: [] });
    this.link = new ViewLink(source.live);
    const progressed = throttled(PROGRESS_MILLISECONDS, () => this.showProgress());
    this.model = new Model(source, this.link.read(), () => {
      progressed();
      this.refresh();
    });
    const { model } = this;
    this.probes = new Probes(source, () => this.rested());
    this.ordering = new Ordering(model, () => this.restructure());
    this.board = new Board(model, this.ordering, this.probes, this);
    this.drawer = new Drawer(model, this.ordering, this.board, this.probes, this);
    this.sidebar = new Sidebar(model, this.ordering, this.probes, this);
    this.timeline = new Timeline(model, this);
    this.transport = new Transport(model, this);
    this.notices = new Notices(model);
    this.refresh = eachFrame(() => this.render());
    this.rested = settled(REST_MILLISECONDS, () => this.rest());
    this.tell = settled(TELL_MILLISECONDS, () => this.transport.tell());
  }

  begin() {
    const { viewer, tip } = buildShell(this.root, this);
    Object.assign(this, { viewer, tipElement: tip });
    this.setState("loading");
    followTheme();
    listenToKeys(this);
    listenToClicks(this);
    listenToDrops(this.root, (file) => this.useImage(file));
    onReload(() => this.poll());
    this.link.listen((view) => this.replaceView(view));
    document.addEventListener("visibilitychange", () => document.hidden || this.poll());
    this.poll();
  }

  setState(state) {
    this.root.dataset.state = state;
    this.viewer.classList.toggle("blank", state === "empty" || state === "error");
    this.notices.page.hidden = state !== "empty" && state !== "error";
  }

  /** Ask for the timeline, and again, as long as somebody looks. */
  async poll() {
    clearTimeout(this.timer);
    const turn = (this.turn = (this.turn ?? 0) + 1), began = performance.now();
    try {
      const timeline = await this.source.timeline(this.revision);
      if (turn !== this.turn) return;
      this.notices.say("timeline", null);
      if (!timeline.unchanged) this.take(timeline);
    } catch (error) {
      if (turn !== this.turn) return;
      this.fail(error);
    }
    const pause = Math.max(POLL_MILLISECONDS, POLL_SHARE * (performance.now() - began));
    if (this.source.live && !document.hidden) this.timer = setTimeout(() => this.poll(), pause);
  }

  take(timeline) {
    this.revision = timeline.revision;
    this.model.setTimeline(timeline);
    if (!this.model.runs.length) {
      this.notices.showNoData();
      this.setState("empty");
      return;
    }
    if (this.root.dataset.state !== "ready") this.setState("loading");
    this.sayMissing();
    this.restructure();
  }

  fail(error) {
    if (this.revision !== undefined) {
      this.notices.say("timeline", UNREACHABLE);
      return;
    }
    this.notices.showState("The kernels cannot be shown", error.message, "This page tries again every few seconds.");
    this.setState("error");
  }

  /** What a link asks for and there is not. */
  missing() {
    const { model } = this, { view } = model;
    const names = new Set(model.runs.map((run) => run.name));
    const runs = (view.runs ?? []).filter((name) => !names.has(name)).map((name) => `There is no run ${name}.`);
    const isAbsent = view.layer !== null && model.layer !== view.layer;
    return [...runs, ...(isAbsent ? [`There is no layer ${view.layer} in the runs shown; this is ${model.layer}.`] : [])];
  }

  /** What is shown instead must not be taken for what was asked for. */
  sayMissing() {
    if (!this.model.runs.length) return;
    const missing = this.missing(), text = missing.join(" ");
    this.extraNotes = [...missing, ...(this.source.notes ?? [])];
    if (text === this.missed) return;
    this.missed = text;
    this.notices.say("missing", text || null);
    if (!text) return;
    this.notices.notes.open = true;
    setTimeout(() => this.notices.say("missing", null), READ_MILLISECONDS);
  }

  // What a person does.

  setView(changes) {
    Object.assign(this.model.view, changes);
    if (["runs", "layer", "axis"].some((key) => key in changes)) {
      this.model.choose();
      this.sayMissing();
    }
    this.restructure();
    this.link.write(this.model.view);
  }

  replaceView(view) {
    Object.assign(this.model.view, view);
    this.model.choose();
    this.sayMissing();
    this.restructure();
  }

  moveTo(position) {
    const before = this.model.position;
    this.model.moveTo(position);
    if (this.model.position === before) return;
    this.isResting = false;
    this.unhover();
    this.refresh();
    if (!this.transport.isPlaying) this.rested();
    this.tell();
    this.link.write(this.model.view);
  }

  moveToStep(step) {
    this.pause();
    this.moveTo(this.model.axis.at(step));
  }

  moveBy(by) {
    this.pause();
    this.moveTo(clamp(this.model.position + by, 0, this.model.axis.last));
  }

  isReady(position) {
    const step = this.model.axis.steps[position];
    return this.model.shown.every((track) => {
      const index = track.series.indexAt(step);
      if (track.isReady(index, this.model.view)) return true;
      track.require(index, this.model.view).catch(() => {});
      return track.series.failed.has(track.entries[index].id);
    });
  }

  toggle() {
    this.transport.toggle();
  }

  pause() {
    this.transport.pause();
  }

  reorder() {
    const { view, step } = this.model;
    view.ordered = step;
    this.ordering.renew();
    this.setView({});
  }

  selection() {
    const { view, shown, lead } = this.model;
    const track = view.filter === null ? null : shown.find((one) => one.run === view.of) ?? lead;
    return track && view.filter < track.shape[0] ? { track, filter: view.filter } : { track: null, filter: -1 };
  }

  select(track, filter) {
    this.setView({ filter: track ? filter : null, of: track && track !== this.model.lead ? track.run : null });
    this.rested();
  }

  /** To the next filter, in the order of the tiles. */
  step(by) {
    const { track, filter } = this.selection();
    const of = track ?? this.model.lead;
    if (!of) return;
    const order = this.ordering.of(of);
    const at = track ? order.indexOf(filter) + by : by > 0 ? 0 : order.length - 1;
    if (at >= 0 && at < order.length) this.select(of, order[at]);
  }

  escape() {
    if (this.selection().track) this.select(null, null);
    this.focusSlider();
  }

  focusSlider() {
    this.timeline.lane.focus({ preventScroll: true });
  }

  hover(track, filter, event) {
    const isOn = Boolean(track?.series) && filter >= 0;
    this.isHovering = isOn;
    this.board.light(isOn ? track : null, filter);
    this.tip(isOn ? this.describe(track, filter) : null, event);
  }

  /** What was under the pointer is elsewhere now, or something else. */
  unhover() {
    if (this.isHovering) this.hover(null, -1);
  }

  tip(lines, anchor) {
    placeTip(this.tipElement, lines, anchor);
  }

  /** What there is to say of a filter at this step, in a few words each. */
  describe(track, filter) {
    const { model } = this, index = model.indexOf(track);
    const norm = track.series.norms(index)?.[filter], change = track.series.changes(index)?.[filter];
    const lines = [`filter ${filter}`];
    if (norm !== undefined) lines.push(`norm ${say(norm)}`);
    if (change !== undefined && index) lines.push(`change ${say(change)}`);
    lines.push(...(track.verdicts(index, filter, model.verdictNames) ?? []));
    for (const other of this.ordering.partners.size ? model.shown : []) {
      if (other !== track) lines.push(this.describePartner(track, filter, other));
    }
    return lines;
  }

  describePartner(track, filter, other) {
    const partner = this.ordering.counterpart(track, filter, other);
    if (partner < 0) return `no partner in ${other.run}`;
    const one = track.series.weights(this.model.indexOf(track)), two = other.series.weights(this.model.indexOf(other));
    const cosine = one && two ? `, cosine ${say(cosineOf(one, two, filter, partner, one.length / track.shape[0]))}` : "";
    return `${other.run}: filter ${partner}${cosine}`;
  }

  async useImage(file) {
    this.notices.say("image", null);
    try {
      const probe = file && probeOfBitmap(await createImageBitmap(file), OWN_SIDE, file.name);
      this.probes.setOwn(probe);
    } catch {
      this.notices.say("image", `${file.name} is no image that this browser can read.`);
      setTimeout(() => this.notices.say("image", null), READ_MILLISECONDS);
    }
    this.restructure();
  }

  async copyLink() {
    const worked = await copied(this.link.href(this.model.view));
    const told = worked ? "Link copied" : "The browser does not let us copy: take the address of the page";
    this.tip([told], this.transport.link);
    this.transport.tell(told);
    setTimeout(() => this.tip(null), 1500);
  }

  // Drawing.

  restructure() {
    this.dirty = true;
    this.refresh();
    this.rested();
  }

  render() {
    const { model } = this;
    if (!model.lead) return;
    if (this.dirty) this.rebuild();
    if (model.view.scale === "run") this.widen();
    this.board.paint();
    this.timeline.place();
    this.transport.show();
    this.sidebar.showReorder();
    this.notices.showLegend(this);
    this.drawer.paint(this.isResting);
    this.mark();
  }

  rebuild() {
    this.dirty = false;
    this.ordering.update();
    this.board.update();
    this.drawer.update();
    this.sidebar.update();
    this.transport.update();
    this.timeline.draw();
    this.showProgress();
  }

  widen() {
    if (!this.model.shown.map((track) => track.widen(this.model.view)).every(Boolean)) setTimeout(this.refresh);
  }

  showProgress() {
    if (!this.model.lead) return;
    if (this.ordering.key === "") this.ordering.update();
    this.timeline.drawCurves();
    this.timeline.place();
    this.drawer.drawCurves();
    this.notices.showLoaded();
    this.notices.listNotes(this.extraNotes);
    const failing = this.model.shown.find((track) => track.series.error);
    this.notices.say("snapshots", failing ? UNREACHABLE : null);
  }

  rest() {
    if (!this.model.lead || this.transport.isPlaying) return;
    this.isResting = true;
    this.sidebar.showProbe();
    this.board.rest();
    this.refresh();
    const waiting = this.model.shown.some((track) => !track.isReady(this.model.indexOf(track), this.model.view));
    if (waiting) this.rested();
  }

  /** What tests and benchmarks wait for. */
  mark() {
    const { model } = this, { dataset } = this.root;
    const isPainted = model.shown.every((track) => this.board.sets.get(track)?.painted);
    if (isPainted && dataset.state !== "ready") this.setState("ready");
    dataset.loaded = model.loaded.now;
    dataset.snapshots = model.loaded.all;
    dataset.step = model.step;
    dataset.responses = this.board.isDone ? "ready" : "stale";
  }
}

import { Actions } from "./actions.js";
import { Board } from "./board.js";
import { debounce, oncePerFrame, throttle } from "./dom.js";
import { Drawer } from "./drawer.js";
import { followTheme, onReload } from "./host.js";
import { listenToClicks, listenToDrops, listenToKeys } from "./keys.js";
import { Model } from "./model.js";
import { Notices } from "./notices.js";
import { Ordering } from "./ordering.js";
import { TimelinePoll } from "./poll.js";
import { Probes } from "./probes.js";
import { buildShell, placeTip } from "./shell.js";
import { Sidebar } from "./sidebar.js";
import { Timeline } from "./timeline.js";
import { Transport } from "./transport.js";
import { ViewLink } from "./view_state.js";

const UNREACHABLE = "Cannot reach TensorBoard; trying again.";
const REST_MILLISECONDS = 120; // the slider rests when it has not moved for this long
const ANNOUNCE_MILLISECONDS = 500; // screen readers announce the step when it has not changed for this long
const MISSING_MILLISECONDS = 8000; // long enough to read a sentence
const PROGRESS_MILLISECONDS = 250; // between two updates of the parts that show how much is loaded

/** Start the viewer, in TensorBoard's tab or in a report; `source` provides the data. */
export function start(root, source) {
  const viewer = new Viewer(root, source);
  viewer.begin();
  return viewer;
}

/** Builds the parts of the page, connects them, and determines when each part is drawn. */
class Viewer {
  constructor(root, source) {
    Object.assign(this, { root, source, isOutdated: true, isResting: false, extraNotes: [] });
    this.refresh = oncePerFrame(() => this.render());
    this.rested = debounce(REST_MILLISECONDS, () => this.rest());
    const progressed = throttle(PROGRESS_MILLISECONDS, () => this.showProgress());
    this.link = new ViewLink(source.live);
    this.model = new Model(source, this.link.read(), () => {
      progressed();
      this.refresh();
    });
    this.probes = new Probes(source, this.rested);
    this.ordering = new Ordering(this.model, () => this.restructure());
    const { model, ordering, probes, link } = this;
    this.actions = new Actions({ model, ordering, probes, link, page: this.pageFunctions() });
    this.poll = new TimelinePoll(source, {
      onAnswer: (timeline) => this.take(timeline),
      onError: (error) => this.fail(error),
    });
    this.buildParts();
  }

  /** The functions through which `Actions` changes the page. */
  pageFunctions() {
    return {
      restructure: () => this.restructure(),
      showStep: () => {
        this.isResting = false;
        this.refresh();
      },
      rested: this.rested,
      showMissing: () => this.showMissing(),
      setNotice: (matter, sentence) => this.notices.setNotice(matter, sentence),
      announce: (text) => this.transport.announce(text),
      announceStep: debounce(ANNOUNCE_MILLISECONDS, () => this.transport.announceStep()),
      markHovered: (track, filter) => this.board.markHovered(track, filter),
      showTip: (lines, anchor) => placeTip(this.tip, lines, anchor),
      showPlaying: () => this.transport.showPlaying(this.actions.playback.isPlaying),
      focusSlider: () => this.timeline.focus(),
    };
  }

  /** Build the parts of the page. Each part receives the functions that it calls. */
  buildParts() {
    const { model, ordering, probes, refresh, rested } = this;
    const { setView, moveTo, moveToStep, moveBy, togglePlay, pause, hover, unhover, select } = this.actions;
    const { selectNeighbour, closeFilter, reorder, useImage, copyLink, page: { showTip, focusSlider } } = this.actions;
    this.board = new Board(model, ordering, probes, { refresh, rested, hover, unhover, select });
    this.drawer = new Drawer(model, ordering, this.board, probes, { refresh, moveTo, moveToStep, selectNeighbour, closeFilter });
    this.sidebar = new Sidebar(model, ordering, probes, { setView, reorder, useImage });
    this.timeline = new Timeline(model, { setView, moveTo, moveBy, pause, showTip });
    this.transport = new Transport(model, { setView, moveTo, togglePlay, copyLink, focusSlider });
    this.notices = new Notices(model, { setView });
  }

  begin() {
    const { actions, sidebar, transport, timeline, board, drawer, notices } = this;
    Object.assign(this, buildShell(this.root, { sidebar, transport, timeline, board, drawer, notices }));
    this.setState("loading");
    followTheme();
    listenToKeys(actions);
    listenToClicks(actions.page.focusSlider);
    listenToDrops(this.root, actions.useImage);
    onReload(() => this.poll.ask());
    this.link.listen(actions.replaceView);
    document.addEventListener("visibilitychange", () => document.hidden || this.poll.ask());
    this.poll.ask();
  }

  setState(state) {
    this.root.dataset.state = state;
    this.viewer.classList.toggle("blank", state === "empty" || state === "error");
    this.notices.page.hidden = state !== "empty" && state !== "error";
  }

  /** Show a new timeline. `timeline` is null if nothing has changed. */
  take(timeline) {
    this.notices.setNotice("timeline", null);
    if (timeline === null) return;
    this.model.setTimeline(timeline);
    if (!this.model.runs.length) {
      this.notices.showNoData();
      this.setState("empty");
      return;
    }
    if (this.root.dataset.state !== "ready") this.setState("loading");
    this.showMissing();
    this.restructure();
  }

  fail(error) {
    if (this.poll.hasAnswer) {
      this.notices.setNotice("timeline", UNREACHABLE);
      return;
    }
    this.notices.showState("The kernels cannot be shown", error.message, "This page tries again every few seconds.");
    this.setState("error");
  }

  /** Show a notice with the runs and the layer of the link that do not exist: the page shows others instead. */
  showMissing() {
    if (!this.model.runs.length) return;
    const missing = this.model.missing(), text = missing.join(" ");
    this.extraNotes = [...missing, ...(this.source.notes ?? [])];
    if (text === this.missingText) return;
    this.missingText = text;
    this.notices.setNotice("missing", text || null);
    if (!text) return;
    this.notices.notes.open = true;
    setTimeout(() => this.notices.setNotice("missing", null), MISSING_MILLISECONDS);
  }

  /** Update all parts when the page is next drawn, because the view or the timeline has changed. */
  restructure() {
    this.isOutdated = true;
    this.refresh();
    this.rested();
  }

  render() {
    const { model } = this;
    if (!model.lead) return;
    if (this.isOutdated) this.rebuild();
    if (model.view.scale === "run") this.widen();
    this.board.paint();
    this.timeline.place();
    this.transport.show();
    this.sidebar.showReorder();
    this.notices.showLegend();
    this.drawer.paint(this.isResting);
    this.setData();
  }

  rebuild() {
    this.isOutdated = false;
    this.ordering.update();
    this.board.update();
    this.drawer.update();
    this.sidebar.update();
    this.transport.update();
    this.timeline.draw();
    this.showProgress();
  }

  /** Extend the scale of whole runs to loaded snapshots, for a few milliseconds; continue in the next frame. */
  widen() {
    const { shown, view } = this.model;
    if (!shown.map((track) => track.widen(view)).every(Boolean)) setTimeout(this.refresh);
  }

  showProgress() {
    if (!this.model.lead) return;
    if (this.ordering.key === "") this.ordering.update();
    this.timeline.drawCurves();
    this.timeline.place();
    this.drawer.drawCurves();
    this.notices.showLoaded();
    this.notices.listNotes(this.extraNotes);
    const isFailing = this.model.shown.some((track) => track.series.error);
    this.notices.setNotice("snapshots", isFailing ? UNREACHABLE : null);
  }

  /** Start the slow computations, because the slider rests. */
  rest() {
    const { model } = this;
    if (!model.lead || this.actions.playback.isPlaying) return;
    this.isResting = true;
    this.sidebar.showProbe();
    this.board.rest();
    this.refresh();
    const isWaiting = model.shown.some((track) => !track.isReady(model.indexOf(track), model.view));
    if (isWaiting) this.rested();
  }

  /** Data attributes for tests and benchmarks: what is loaded, drawn and computed. */
  setData() {
    const { model, board } = this, { dataset } = this.root;
    const isPainted = model.shown.every((track) => board.sets.get(track)?.painted);
    if (isPainted && dataset.state !== "ready") this.setState("ready");
    dataset.loaded = model.loaded.now;
    dataset.snapshots = model.loaded.all;
    dataset.step = model.step;
    dataset.responses = board.isDone ? "ready" : "stale";
  }
}

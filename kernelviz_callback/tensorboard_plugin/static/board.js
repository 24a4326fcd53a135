import { describeFilter } from "./derived.js";
import { el } from "./dom.js";
import { GainFeed, gainRequest } from "./gains.js";
import { GridView } from "./grid_view.js";
import { isColour, picturedAs } from "./paint.js";
import { Atlas } from "./pictures.js";
import { responseRequest } from "./probes.js";
import { ResponseFeed } from "./response_feed.js";
import { arrangePanes, cellBox, fitTiles, tileShape } from "./tile_layout.js";

const GAP = 6; // CSS pixels between tiles: room for a frame and a ring
const GAIN = 48; // CSS pixels: a frequency response that is as wide can be read
const FRAME = 2; // CSS pixels
const LEAST_TILE = 26; // CSS pixels; smaller ones are enlarged, and one scrolls
const MOST_PIXELS = 3e6; // of a grid that is larger than it must be
const HEAD = 28; // CSS pixels: a pane's title
const BETWEEN = { width: 20, height: 8 }; // CSS pixels between panes
const MESSAGE = 90; // CSS pixels: why there are no responses
const NARROW = 640; // CSS pixels: below, panes stand above each other
const FAINT = 0.25; // of what is not meant: unmatched, stale, without the verdict looked for

/** Kernels of many channels want two pixels a weight, unless the picture would become enormous. */
function leastTile(track, channel) {
  const { planes, width, height } = tileShape(track.shape, channel);
  if (picturedAs(track.shape, channel) !== track.shape) return 2 * Math.min(width, height);
  const isLegible = planes > 1 && 4 * width * height * track.shape[0] <= MOST_PIXELS;
  return isLegible ? Math.max(LEAST_TILE, 2 * Math.min(width, height)) : LEAST_TILE;
}

/** The kernel grids and the response grids of all runs on the page. */
export class Board {
  constructor(model, ordering, probes, actions) {
    Object.assign(this, { model, ordering, probes, actions, sets: new Map(), hovered: null });
    this.panes = el("div", { class: "panes", "data-role": "panes" });
    this.root = el("div", { class: "board", "data-role": "board" }, this.panes);
    new ResizeObserver(() => this.arrange()).observe(this.root);
  }

  /** A kernel grid, a response grid, and what fills them, for each run. */
  update() {
    const { tracks } = this.model;
    for (const [track, set] of this.sets) {
      if (tracks.includes(track)) continue;
      for (const feed of set.feeds) feed.stop();
      set.kernels.root.remove();
      set.responses.root.remove();
      this.sets.delete(track);
    }
    tracks.forEach((track, k) => {
      if (!this.sets.has(track)) this.sets.set(track, this.makeSet(track));
      const { kernels, responses } = this.sets.get(track);
      kernels.idStem = `tile-${k}`;
      this.title(kernels, "Kernels", track);
      this.title(responses, track.isOfSignals ? "Frequency responses" : "Responses", track);
    });
    this.arrange();
  }

  makeSet(track) {
    const kernels = new GridView("kernels", this.actions), responses = new GridView("responses", this.actions);
    const changed = () => this.actions.refresh();
    const feeds = [new ResponseFeed(track.responder, changed), new GainFeed(changed)];
    kernels.stage.classList.add("loading");
    return {
      kernels, responses, feeds, atlas: new Atlas(), painted: "", answered: "",
      get feed() {
        return feeds[Number(track.isOfSignals)];
      },
    };
  }

  title(view, what, track) {
    const isOne = this.model.tracks.length === 1;
    const [first, ...more] = what.split(" "); // of two words a narrow pane has room for one
    const words = [first, ...more.map((word) => el("span", { class: "more" }, ` ${word}`))];
    const named = isOne ? words : [el("i", { class: "swatch", style: `--run: ${this.model.colourOf(track)}` }), track.run];
    view.title.replaceChildren(...named);
    view.title.title = track.run;
    const label = `${what} of ${track.run}, layer ${this.model.layer}`;
    view.root.setAttribute("aria-label", label);
    view.tiles.setAttribute("aria-label", view.kind === "kernels" ? label : `${label}, in the same order`);
    view.what = isOne ? "" : what.toLowerCase();
  }

  arrange() {
    const { model } = this, { lead } = model;
    const dpr = window.devicePixelRatio;
    this.hasResponses = this.mayRespond();
    const inner = this.innerRoom(), own = inner.width;
    if (!lead || own <= 0) return;
    const isNarrow = own < NARROW;
    const inDevice = (room) => ({ width: Math.floor(room.width * dpr), height: Math.floor(room.height * dpr) });
    const height = isNarrow || this.isOpenEnded() ? own : inner.height;
    const fitOf = (track, room) => fitTiles({
      count: track.shape[0], tile: tileShape(track.shape, model.channelOf(track)), gap: Math.round(GAP * dpr),
      room: inDevice(room),
      least: leastTile(track, model.channelOf(track)) * dpr, zoom: model.view.zoom && Math.round(model.view.zoom * dpr),
      responseRoom: track.isOfSignals ? Math.round(GAIN * dpr) : track.whyNoResponse ? 0 : Infinity,
    });
    const way = isNarrow
      ? { columns: 1, byRun: true, room: { width: own, height: own } }
      : arrangePanes({
        runs: model.tracks.length, hasResponses: this.hasResponses, head: HEAD, gapBetween: BETWEEN,
        room: { width: own, height: this.hasResponses ? height : height - MESSAGE },
        fits: (room) => model.shown.map((track) => fitOf(track, room)),
      });
    this.panes.style.setProperty("--columns", way.columns);
    const sets = model.tracks.map((track) => this.sets.get(track));
    const inOrder = way.byRun
      ? sets.flatMap((set) => [set.kernels.root, set.responses.root])
      : [...sets.map((set) => set.kernels.root), ...sets.map((set) => set.responses.root)];
    this.place(inOrder);
    for (const track of model.tracks) {
      const set = this.sets.get(track);
      if (track.series) {
        const fit = fitOf(track, way.room), order = this.ordering.of(track);
        set.kernels.lay(track, fit, order, dpr);
        set.responses.lay(track, fit, order, dpr);
      }
      set.painted = set.answered = "";
    }
    this.pick();
    this.actions.unhover();
    this.actions.refresh();
    this.actions.rested(); // tiles of another size want responses of another
  }

  /** In this order, also for the tab key; what has the focus keeps it. */
  place(roots) {
    const { children } = this.panes;
    if (roots.length === children.length && roots.every((root, k) => root === children[k])) return;
    const focused = document.activeElement;
    this.panes.replaceChildren(...roots);
    if (this.panes.contains(focused)) focused.focus({ preventScroll: true });
  }

  /** Whether any run has a probe that fits: without, kernels have the room to themselves. */
  mayRespond() {
    return this.model.shown.some((track) => !this.probes.adapted(this.model, track, this.model.indexOf(track)).why);
  }

  innerRoom() {
    const { paddingLeft, paddingRight, paddingTop, paddingBottom } = getComputedStyle(this.root);
    return {
      width: this.root.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight),
      height: this.root.clientHeight - parseFloat(paddingTop) - parseFloat(paddingBottom),
    };
  }

  /** Whether the page grows with its content, rather than the board scroll. */
  isOpenEnded() {
    return getComputedStyle(this.root).overflowY === "visible";
  }

  /** Draw what the slider shows; what is drawn already is left alone. */
  paint() {
    this.shareScale();
    for (const track of this.model.tracks) {
      const set = this.sets.get(track);
      if (!set) continue;
      if (track.series) this.paintRun(track, set);
      else this.sayAbsent(track, set);
    }
  }

  shareScale() {
    const { shown, view } = this.model;
    const answers = (track, index) => track.isReady(index, view) && this.probes.adapted(this.model, track, index).planes;
    const feeds = shown.filter((track) => answers(track, this.model.indexOf(track)))
      .map((track) => this.sets.get(track)?.feed).filter((feed) => feed?.shown);
    if (feeds.every((feed) => feed.isDone)) for (const feed of feeds) feed.share(Math.max(...feeds.map((one) => one.largest)));
  }

  sayAbsent(track, { kernels, responses }) {
    const run = this.model.runs.find((one) => one.name === track.run);
    const layers = run.layers.map((layer) => layer.name).join(", ");
    kernels.say(`This run has no layer ${this.model.layer}. It has ${layers}.`);
    responses.say("");
    kernels.sayScale(null);
    responses.sayScale(null);
  }

  paintRun(track, set) {
    const { model } = this, { view } = model;
    const index = model.indexOf(track), entry = track.entries[index];
    const isReady = track.isReady(index, view);
    const { kernels, responses } = set;
    const isElsewhere = model.tracks.length > 1 && entry.step !== model.step, reference = track.reference(index, view);
    kernels.sayNote(isElsewhere && `step ${entry.step}`, reference >= 0 && `− step ${track.entries[reference].step}`, kernels.what);
    kernels.spinner.hidden = isReady;
    kernels.stage.classList.toggle("stale", !isReady && set.painted !== "");
    if (!isReady) {
      track.require(index, view).then(() => this.actions.refresh(), () => this.sayUnreadable(track, set, index));
      this.paintResponses(track, set, index);
      return;
    }
    kernels.say(null);
    const key = [track.key(index, view), view.channel, view.scale, view.scale === "run" ? model.commonHalfRange : "",
      view.verdict, this.ordering.partners.size].join("\n");
    if (set.painted !== key && kernels.fit) {
      set.painted = key;
      this.paintKernels(track, set, index);
      kernels.stage.classList.remove("loading");
    }
    this.paintResponses(track, set, index);
    responses.stage.classList.toggle("loading", set.feed.shown === null);
  }

  sayUnreadable(track, { kernels }, index) {
    const entry = track.entries[index];
    if (entry && track.series.failed.has(entry.id)) kernels.say(`The snapshot of step ${entry.step} could not be read.`);
  }

  paintKernels(track, set, index) {
    const { model } = this, { view } = model, { kernels, atlas } = set;
    const values = track.values(index, view), channel = model.channelOf(track);
    const ends = track.halfRanges(values, index, view, model.commonHalfRange);
    atlas.paint(values, track.shape, ends, channel);
    set.ends = ends;
    set.why = track.whyNoScale(values, index, view);
    kernels.sayScale(ends, view.scale, isColour(track.shape, channel), set.why);
    const { context, fit, order } = kernels;
    context.imageSmoothingEnabled = false;
    context.clearRect(0, 0, fit.width, fit.height);
    const bits = track.series.bits(index), hasVerdicts = Boolean(track.entries[index].verdicts);
    const width = Math.max(1, Math.round(FRAME * kernels.dpr));
    order.forEach((filter, position) => {
      const cell = cellBox(fit, position);
      const wide = atlas.tile.width * fit.zoom, high = atlas.tile.height * fit.zoom;
      const x = cell.x + ((cell.width - wide) >> 1), y = cell.y + ((cell.height - high) >> 1);
      context.globalAlpha = this.isMeant(track, index, filter) ? 1 : FAINT;
      if (hasVerdicts && bits[filter]) {
        context.fillStyle = model.colourOfVerdict(model.verdictNames[31 - Math.clz32(bits[filter] & -bits[filter])]);
        context.fillRect(x - width, y - width, wide + 2 * width, high + 2 * width);
      }
      if (atlas.tile.planes > 1) context.clearRect(x, y, wide, high);
      atlas.draw(context, filter, x, y, fit.zoom);
    });
    context.globalAlpha = 1;
    kernels.canvas.dataset.step = track.entries[index].step;
  }

  isMeant(track, index, filter) {
    const { verdict } = this.model.view;
    if (verdict && track.verdicts(index, filter, this.model.verdictNames)?.includes(verdict) === false) return false;
    return this.ordering.isMatched(track, filter);
  }

  responseKey(track, index, probe) {
    const { view } = this.model;
    return [track.key(index, view), this.model.channelOf(track), view.response, probe.id].join("\n");
  }

  paintResponses(track, set, index) {
    const { responses, feed } = set, { view } = this.model;
    const probe = this.probes.adapted(this.model, track, index);
    responses.spinner.hidden = !probe.isLoading && (!feed.shown || feed.isDone);
    set.isMute = Boolean(probe.why || set.refusal);
    if (set.isMute) {
      responses.say(`${probe.why ?? set.refusal}${probe.isFinal ? "" : " Drop an image on the page to use that."}`);
      responses.sayScale(null);
      responses.sayNote(responses.what);
      if (probe.why) return;
    }
    if (!probe.planes) return;
    const key = this.responseKey(track, index, probe);
    feed.expect(key);
    feed.setScale(view.scale);
    responses.sayNote(track.part, [responses.what, probe.name && `to ${probe.name}`, probe.note].filter(Boolean).join(" "));
    const drawn = [feed.version, view.verdict, this.ordering.partners.size].join();
    if (set.answered === drawn || !feed.shown || !responses.fit) return;
    set.answered = drawn;
    responses.say(null);
    this.drawResponses(track, set, index);
  }

  drawResponses(track, { responses, feed, why }, index) {
    const { context, fit, order } = responses;
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.clearRect(0, 0, fit.width, fit.height);
    order.forEach((filter, position) => {
      const isFaint = feed.isStale(filter) || !this.isMeant(track, index, filter);
      context.globalAlpha = isFaint ? FAINT : 1;
      feed.draw(context, filter, cellBox(fit, position));
    });
    context.globalAlpha = 1;
    const { view } = this.model;
    responses.sayScale(feed.ends, view.scale, feed.channel === "rgb", feed.isDone ? why : null, !track.isOfSignals);
    responses.canvas.dataset.state = feed.isDone ? "ready" : "stale";
    if (feed.isDone) responses.canvas.dataset.step = track.entries[index].step;
  }

  /** The slider rests: compute the response grids. */
  rest() {
    if (this.hasResponses !== this.mayRespond()) this.arrange();
    for (const track of this.model.shown) {
      const set = this.sets.get(track), index = this.model.indexOf(track), { view } = this.model;
      const probe = this.probes.adapted(this.model, track, index);
      if (!probe.planes || !track.isReady(index, view) || !set.responses.fit) continue;
      const key = this.responseKey(track, index, probe), channel = this.model.channelOf(track);
      set.refusal = null;
      try {
        const values = track.values(index, view);
        const request = track.isOfSignals
          ? gainRequest(track, values, channel) : responseRequest(track, values, channel, view.response, probe);
        const { cell } = set.responses.fit;
        const room = Math.min(request.size.width / cell.width, request.size.height / cell.height);
        set.feed.show(key, request, Math.max(1, Math.floor(room)), view.scale);
      } catch (error) {
        set.refusal = error.message;
        set.feed.clear();
        this.actions.refresh();
      }
    }
    this.nameTiles();
  }

  nameTiles() {
    for (const track of this.model.shown) {
      const index = this.model.indexOf(track);
      if (!track.series.isLoaded(index)) continue;
      this.sets.get(track).kernels.nameTiles(`${track.entries[index].id}`, (filter) =>
        describeFilter(this.model, this.ordering, track, filter).join(", "));
    }
  }

  /** Light a tile, its response, and its partner in the other runs. */
  light(track, filter) {
    for (const [other, { kernels, responses }] of this.sets) {
      const twin = track && other.series && filter >= 0 ? this.ordering.counterpart(track, filter, other) : -1;
      kernels.ring(kernels.hover, twin);
      responses.ring(responses.hover, twin);
    }
  }

  pick() {
    const { track, filter } = this.model.selection;
    for (const [other, { kernels, responses }] of this.sets) {
      const twin = track && other.series ? this.ordering.counterpart(track, filter, other) : -1;
      kernels.pick(twin);
      responses.pick(twin);
    }
  }

  get isDone() {
    return this.hasResponses === this.mayRespond() && this.model.shown.every((track) => {
      const set = this.sets.get(track);
      return set && set.painted !== "" && (set.feed.isDone || set.isMute);
    });
  }
}

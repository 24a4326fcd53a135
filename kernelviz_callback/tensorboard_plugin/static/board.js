import { describeFilter } from "./derived.js";
import { el, sizeText } from "./dom.js";
import { GainFeed, gainRequest } from "./gains.js";
import { GridView } from "./grid_view.js";
import { isColour, picturedAs } from "./paint.js";
import { Atlas } from "./pictures.js";
import { responseRequest } from "./probes.js";
import { ResponseFeed } from "./response_feed.js";
import { arrangePanes, cellBox, fitTiles, tileShape } from "./tile_layout.js";

const GAP = 6; // CSS pixels between tiles: enough for a frame and a ring
const GAIN_WIDTH = 48; // CSS pixels: a frequency response of this width is legible
const FRAME = 2; // CSS pixels: the frame around a filter with a verdict
const LEAST_TILE = 26; // CSS pixels; smaller tiles are enlarged, and the board scrolls
const MOST_PIXELS = 3e6; // a grid is not enlarged beyond this size
const HEAD = 28; // CSS pixels: the height of a pane's title
const BETWEEN = { width: 20, height: 8 }; // CSS pixels between panes
const MESSAGE = 90; // CSS pixels: the height of a message that replaces the responses
const NARROW = 640; // CSS pixels: in a narrower window the panes stand below each other
const FAINT = 0.25; // opacity of tiles that are stale, have no partner, or lack the chosen verdict

/**
 * The least size of a tile, in pixels. Kernels of many channels need two pixels a weight, unless
 * the grid becomes too large.
 */
function leastTile(track, channel) {
  const { planes, width, height } = tileShape(track.shape, channel);
  if (picturedAs(track.shape, channel) !== track.shape) return 2 * Math.min(width, height);
  const isLegible = planes > 1 && 4 * width * height * track.shape[0] <= MOST_PIXELS;
  return isLegible ? Math.max(LEAST_TILE, 2 * Math.min(width, height)) : LEAST_TILE;
}

/**
 * The kernel grids and the response grids of all runs on the page.
 *
 * `actions` holds the functions `refresh`, `rested`, `hover`, `unhover` and `select`.
 */
export class Board {
  constructor(model, ordering, probes, actions) {
    Object.assign(this, { model, ordering, probes, actions, sets: new Map(), hovered: null });
    this.panes = el("div", { class: "panes", "data-role": "panes" });
    this.root = el("div", { class: "board", "data-role": "board" }, this.panes);
    new ResizeObserver(() => this.arrange()).observe(this.root);
  }

  /** Make the two grids of each new run, and remove those of runs that are no longer shown. */
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
      this.setTitle(kernels, "Kernels", track);
      this.setTitle(responses, track.isOfSignals ? "Frequency responses" : "Responses", track);
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

  setTitle(view, what, track) {
    const isOne = this.model.tracks.length === 1;
    const [first, ...more] = what.split(" "); // a narrow pane shows the first word only
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
    const inner = this.innerRoom(), width = inner.width;
    if (!lead || width <= 0) return;
    const isNarrow = width < NARROW;
    const inDevice = (room) => ({ width: Math.floor(room.width * dpr), height: Math.floor(room.height * dpr) });
    const height = isNarrow || this.isOpenEnded() ? width : inner.height;
    const fitOf = (track, room) => fitTiles({
      count: track.shape[0], tile: tileShape(track.shape, model.channelOf(track)), gap: Math.round(GAP * dpr),
      room: inDevice(room),
      least: leastTile(track, model.channelOf(track)) * dpr, zoom: model.view.zoom && Math.round(model.view.zoom * dpr),
      responseRoom: track.isOfSignals ? Math.round(GAIN_WIDTH * dpr) : track.whyNoResponse ? 0 : Infinity,
    });
    const layout = isNarrow
      ? { columns: 1, byRun: true, room: { width, height: width } }
      : arrangePanes({
        runs: model.tracks.length, hasResponses: this.hasResponses, head: HEAD, gapBetween: BETWEEN,
        room: { width, height: this.hasResponses ? height : height - MESSAGE },
        fits: (room) => model.shown.map((track) => fitOf(track, room)),
      });
    this.panes.style.setProperty("--columns", layout.columns);
    const sets = model.tracks.map((track) => this.sets.get(track));
    const inOrder = layout.byRun
      ? sets.flatMap((set) => [set.kernels.root, set.responses.root])
      : [...sets.map((set) => set.kernels.root), ...sets.map((set) => set.responses.root)];
    this.place(inOrder);
    for (const track of model.tracks) {
      const set = this.sets.get(track);
      if (track.series) {
        const fit = fitOf(track, layout.room), order = this.ordering.of(track);
        set.kernels.lay(track, fit, order, dpr);
        set.responses.lay(track, fit, order, dpr);
      }
      set.painted = set.answered = "";
    }
    this.pick();
    this.actions.unhover();
    this.actions.refresh();
    this.actions.rested(); // the size of the responses depends on the size of the tiles
  }

  /** Put the panes in this order, for the Tab key too. The focused element keeps the focus. */
  place(roots) {
    const { children } = this.panes;
    if (roots.length === children.length && roots.every((root, k) => root === children[k])) return;
    const focused = document.activeElement;
    this.panes.replaceChildren(...roots);
    if (this.panes.contains(focused)) focused.focus({ preventScroll: true });
  }

  /** Whether any run has a probe that fits its layer. Without one, the kernels use the whole board. */
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

  /** Whether the page grows with its content, instead of a scrolling board. */
  isOpenEnded() {
    return getComputedStyle(this.root).overflowY === "visible";
  }

  /** Draw the step of the slider, where it is not drawn already. */
  paint() {
    this.shareScale();
    for (const track of this.model.tracks) {
      const set = this.sets.get(track);
      if (!set) continue;
      if (track.series) this.paintRun(track, set);
      else this.showAbsent(track, set);
    }
  }

  shareScale() {
    const { shown, view } = this.model;
    const answers = (track, index) => track.isReady(index, view) && this.probes.adapted(this.model, track, index).planes;
    const feeds = shown.filter((track) => answers(track, this.model.indexOf(track)))
      .map((track) => this.sets.get(track)?.feed).filter((feed) => feed?.shown);
    if (feeds.every((feed) => feed.isDone)) for (const feed of feeds) feed.share(Math.max(...feeds.map((one) => one.largest)));
  }

  showAbsent(track, { kernels, responses }) {
    const run = this.model.runs.find((one) => one.name === track.run);
    const layers = run.layers.map((layer) => layer.name).join(", ");
    kernels.showMessage(`This run has no layer ${this.model.layer}. It has ${layers}.`);
    responses.showMessage("");
    kernels.showScale(null);
    responses.showScale(null);
  }

  paintRun(track, set) {
    const { model } = this, { view } = model;
    const index = model.indexOf(track), entry = track.entries[index];
    const isReady = track.isReady(index, view);
    const { kernels, responses } = set;
    const isElsewhere = model.tracks.length > 1 && entry.step !== model.step, reference = track.reference(index, view);
    kernels.showNote(isElsewhere && `step ${entry.step}`, reference >= 0 && `− step ${track.entries[reference].step}`, kernels.what);
    kernels.spinner.hidden = isReady;
    kernels.stage.classList.toggle("stale", !isReady && set.painted !== "");
    if (!isReady) {
      track.require(index, view).then(() => this.actions.refresh(), () => this.showUnreadable(track, set, index));
      this.paintResponses(track, set, index);
      return;
    }
    kernels.showMessage(null);
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

  showUnreadable(track, { kernels }, index) {
    const entry = track.entries[index];
    if (entry && track.series.failed.has(entry.id)) kernels.showMessage(`The snapshot of step ${entry.step} could not be read.`);
  }

  paintKernels(track, set, index) {
    const { model } = this, { view } = model, { kernels, atlas } = set;
    const values = track.values(index, view), channel = model.channelOf(track);
    const ends = track.halfRanges(values, index, view, model.commonHalfRange);
    atlas.paint(values, track.shape, ends, channel);
    set.ends = ends;
    set.why = track.whyNoScale(values, index, view);
    kernels.showScale(ends, view.scale, isColour(track.shape, channel), set.why);
    const { context, fit, order } = kernels;
    context.imageSmoothingEnabled = false;
    context.clearRect(0, 0, fit.width, fit.height);
    const bits = track.series.bits(index), hasVerdicts = Boolean(track.entries[index].verdicts);
    const width = Math.max(1, Math.round(FRAME * kernels.dpr));
    order.forEach((filter, position) => {
      const cell = cellBox(fit, position);
      const wide = atlas.tile.width * fit.zoom, high = atlas.tile.height * fit.zoom;
      const x = cell.x + ((cell.width - wide) >> 1), y = cell.y + ((cell.height - high) >> 1);
      context.globalAlpha = this.isBright(track, index, filter) ? 1 : FAINT;
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

  isBright(track, index, filter) {
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
    set.hasNoResponses = Boolean(probe.why || set.refusal);
    if (set.hasNoResponses) {
      responses.showMessage(`${probe.why ?? set.refusal}${probe.isFinal ? "" : " Drop an image on the page to use that."}`);
      responses.showScale(null);
      responses.showNote(responses.what);
      if (probe.why) return;
    }
    if (!probe.planes) return;
    const key = this.responseKey(track, index, probe);
    feed.expect(key);
    feed.setScale(view.scale);
    const averaged = feed.shrink > 1 && `averaged ${sizeText(feed.shrink)}`;
    responses.showNote(track.part, [responses.what, probe.note].filter(Boolean).join(" "), averaged);
    const drawn = [feed.version, view.verdict, this.ordering.partners.size].join();
    if (set.answered === drawn || !feed.shown || !responses.fit) return;
    set.answered = drawn;
    responses.showMessage(null);
    this.drawResponses(track, set, index);
  }

  drawResponses(track, { responses, feed, why }, index) {
    const { context, fit, order } = responses;
    context.imageSmoothingQuality = "high";
    context.clearRect(0, 0, fit.width, fit.height);
    order.forEach((filter, position) => {
      const isFaint = feed.isStale(filter) || !this.isBright(track, index, filter);
      context.globalAlpha = isFaint ? FAINT : 1;
      feed.draw(context, filter, cellBox(fit, position));
    });
    context.globalAlpha = 1;
    const { view } = this.model;
    responses.showScale(feed.ends, view.scale, feed.channel === "rgb", feed.isDone ? why : null, !track.isOfSignals);
    responses.canvas.dataset.state = feed.isDone ? "ready" : "stale";
    if (feed.isDone) responses.canvas.dataset.step = track.entries[index].step;
  }

  /** Compute the response grids, when the slider rests. */
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

  /** Mark the tile under the pointer, its response, and its partners in the other runs. */
  markHovered(track, filter) {
    for (const [other, { kernels, responses }] of this.sets) {
      const partner = track && other.series && filter >= 0 ? this.ordering.counterpart(track, filter, other) : -1;
      kernels.ring(kernels.hover, partner);
      responses.ring(responses.hover, partner);
    }
  }

  pick() {
    const { track, filter } = this.model.selection;
    for (const [other, { kernels, responses }] of this.sets) {
      const partner = track && other.series ? this.ordering.counterpart(track, filter, other) : -1;
      kernels.pick(partner);
      responses.pick(partner);
    }
  }

  get isDone() {
    return this.hasResponses === this.mayRespond() && this.model.shown.every((track) => {
      const set = this.sets.get(track);
      return set && set.painted !== "" && (set.feed.isDone || set.hasNoResponses);
    });
  }
}

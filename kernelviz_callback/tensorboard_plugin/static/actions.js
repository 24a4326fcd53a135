import { probeOfBitmap } from "./decode.js";
import { describeFilter } from "./derived.js";
import { clamp } from "./dom.js";
import { copyText } from "./host.js";
import { Playback } from "./playback.js";
import { OWN_SIDE } from "./probes.js";

const IMAGE_ERROR_MILLISECONDS = 8000; // enough to read a sentence
const COPIED_MILLISECONDS = 1500;

/**
 * What a person does: each action changes the model and then calls functions of the page.
 *
 * `page` holds these functions: `restructure()` after a change of the view, `showStep()` after a
 * change of the step, `rested()` to compute what waits for the slider to rest, `showMissing()`,
 * `setNotice(matter, sentence)`, `announce(text)`, `announceStep()`, `markHovered(track, filter)`,
 * `showTip(lines, anchor)`, `showPlaying()` and `focusSlider()`.
 *
 * The actions are bound to this object, so they can be passed on one by one.
 */
export class Actions {
  constructor({ model, ordering, probes, link, page }) {
    Object.assign(this, { model, ordering, probes, link, page, isHovering: false });
    this.playback = new Playback(model, {
      moveTo: this.moveTo,
      onChange: () => {
        page.showPlaying();
        if (!this.playback.isPlaying) page.rested();
      },
    });
  }

  setView = (changes) => {
    Object.assign(this.model.view, changes);
    if (["runs", "layer", "axis"].some((key) => key in changes)) {
      this.model.choose();
      this.page.showMissing();
    }
    this.page.restructure();
    this.link.write(this.model.view);
  };

  /** Take over the view of a link that was followed or edited. */
  replaceView = (view) => {
    Object.assign(this.model.view, view);
    this.model.choose();
    this.page.showMissing();
    this.page.restructure();
  };

  moveTo = (position) => {
    const before = this.model.position;
    this.model.moveTo(position);
    if (this.model.position === before) return;
    this.unhover();
    this.page.showStep();
    if (!this.playback.isPlaying) this.page.rested();
    this.page.announceStep();
    this.link.write(this.model.view);
  };

  moveToStep = (step) => {
    this.pause();
    this.moveTo(this.model.axis.at(step));
  };

  moveBy = (by) => {
    this.pause();
    this.moveTo(clamp(this.model.position + by, 0, this.model.axis.last));
  };

  togglePlay = () => this.playback.toggle();

  pause = () => this.playback.pause();

  /** Order the tiles by the step that is shown. */
  reorder = () => {
    this.model.view.ordered = this.model.step;
    this.ordering.renew();
    this.setView({});
  };

  select = (track, filter) => {
    this.setView({ filter: track ? filter : null, of: track && track !== this.model.lead ? track.run : null });
    this.page.rested();
  };

  /** Select the next filter in the order of the tiles, or the previous one. */
  selectNeighbour = (by) => {
    const { selection: { track, filter }, lead } = this.model;
    const owner = track ?? lead;
    if (!owner) return;
    const order = this.ordering.of(owner);
    const at = track ? order.indexOf(filter) + by : by > 0 ? 0 : order.length - 1;
    if (at >= 0 && at < order.length) this.select(owner, order[at]);
  };

  closeFilter = () => {
    if (this.model.selection.track) this.select(null, null);
    this.page.focusSlider();
  };

  hover = (track, filter, event) => {
    this.isHovering = Boolean(track?.series) && filter >= 0;
    this.page.markHovered(this.isHovering ? track : null, filter);
    this.page.showTip(this.isHovering ? describeFilter(this.model, this.ordering, track, filter) : null, event);
  };

  /** End hovering: the tiles have moved, or show something else. */
  unhover = () => {
    if (this.isHovering) this.hover(null, -1);
  };

  /** Use an image file as the probe; null returns to the probe of the run. */
  useImage = async (file) => {
    this.page.setNotice("image", null);
    try {
      const probe = file && probeOfBitmap(await createImageBitmap(file), OWN_SIDE, file.name);
      this.probes.setOwn(probe);
    } catch {
      this.page.setNotice("image", `${file.name} is not an image that this browser can read.`);
      setTimeout(() => this.page.setNotice("image", null), IMAGE_ERROR_MILLISECONDS);
    }
    this.page.restructure();
  };

  /** Copy a link to the view; `anchor` is the element beside which the result is shown. */
  copyLink = async (anchor) => {
    const isCopied = await copyText(this.link.href(this.model.view));
    const text = isCopied ? "Link copied" : "The browser does not allow copying: copy the address of the page";
    this.page.showTip([text], anchor);
    this.page.announce(text);
    setTimeout(() => this.page.showTip(null), COPIED_MILLISECONDS);
  };
}

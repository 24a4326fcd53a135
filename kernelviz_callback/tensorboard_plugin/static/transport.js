import { el, grouped, icon, setOptions, setText } from "./dom.js";

const PLAY = "M4 2.5v11l9-5.5z";
const LINK = "M6.9 9.1a2.6 2.6 0 0 0 3.7 0l2.5-2.5a2.6 2.6 0 0 0-3.7-3.7l-.9.9.9.9.9-.9a1.3 1.3 0 0 1 1.9 1.9L9.7 8.2a1.3 1.3 0 0 1-1.9 0zM9.1 6.9a2.6 2.6 0 0 0-3.7 0L2.9 9.4a2.6 2.6 0 0 0 3.7 3.7l.9-.9-.9-.9-.9.9a1.3 1.3 0 0 1-1.9-1.9l2.5-2.5a1.3 1.3 0 0 1 1.9 0z";
const PAUSE = "M4 2.5h3v11H4zM9 2.5h3v11H9z";

/**
 * Play and pause, the number of the step, the speed, and the link to the view.
 *
 * `actions` holds `setView`, `moveTo`, `togglePlay`, `copyLink` and `focusSlider`.
 */
export class Transport {
  constructor(model, actions) {
    Object.assign(this, { model, actions });
    this.button = el("button", { type: "button", class: "play", "data-role": "play", click: () => actions.togglePlay() });
    this.step = el("input", {
      type: "text", inputmode: "numeric", autocomplete: "off", "data-role": "step", "aria-label": "Step to jump to",
      change: () => this.jump(), focus: (event) => event.target.select(),
      keydown: ({ key }) => this.leave(key),
      blur: () => this.show(true),
    });
    this.of = el("span", { class: "of", "data-role": "of" });
    this.speed = el("select", {
      "aria-label": "Snapshots a second", "data-role": "speed", title: "How many snapshots a second play shows",
      change: () => actions.setView({ speed: Number(this.speed.value) }),
    });
    this.root = el("div", { class: "transport" }, this.button,
      el("div", { class: "where" }, el("label", { class: "step" }, el("span", {}, "Step"), this.step), this.of));
    this.link = el("button", {
      type: "button", class: "icon-button", "data-role": "copy-link", "aria-label": "Copy a link to this view",
      title: "Copy a link to this view", click: () => actions.copyLink(this.link),
    }, icon(LINK));
    this.aside = el("div", { class: "aside" }, this.speed, this.link);
    this.live = el("div", { class: "unseen", "aria-live": "polite", "data-role": "live" });
    this.showPlaying(false);
  }

  update() {
    setOptions(this.speed, this.model.speeds.map((speed) => [String(speed), `${speed} a second`]), String(this.model.speed));
  }

  showPlaying(isPlaying) {
    this.button.replaceChildren(icon(isPlaying ? PAUSE : PLAY));
    this.button.setAttribute("aria-label", isPlaying ? "Pause" : "Play");
    this.button.title = `${isPlaying ? "Pause" : "Play"} (space)`;
  }

  jump() {
    const wanted = Number(this.step.value.replaceAll(/[\s,]/g, ""));
    if (this.step.value.trim() !== "" && Number.isFinite(wanted)) this.actions.moveTo(this.model.axis.at(wanted));
    this.show(true);
  }

  /** Enter and Escape end typing: the focus returns to the slider. */
  leave(key) {
    if (key === "Enter") this.jump();
    if (key === "Escape") this.show(true);
    if (key === "Enter" || key === "Escape") this.actions.focusSlider();
  }

  show(evenInUse = false) {
    const { model } = this;
    if (evenInUse || document.activeElement !== this.step) {
      const text = String(model.step);
      if (this.step.value !== text) this.step.value = text;
    }
    const entry = model.lead && model.entryOf(model.lead);
    const epoch = entry?.epoch ?? null;
    setText(this.of, `of ${grouped(model.axis.steps.at(-1) ?? 0)}${epoch === null ? "" : ` · epoch ${epoch}`}`);
  }

  /** Announce a text to screen readers. */
  announce(text) {
    setText(this.live, text);
  }

  announceStep() {
    this.announce(`Step ${this.model.step} of ${this.model.axis.steps.at(-1) ?? 0}`);
  }
}

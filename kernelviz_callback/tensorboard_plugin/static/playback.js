/** Plays the snapshots one after the other, at the speed of the view. */
export class Playback {
  /** `moveTo(position)` shows a position; `onChange()` is called when playing begins or ends. */
  constructor(model, { moveTo, onChange }) {
    Object.assign(this, { model, moveTo, onChange, isPlaying: false, due: null });
  }

  toggle() {
    if (this.isPlaying) this.pause();
    else this.play();
  }

  play() {
    const { axis, position } = this.model;
    if (axis.last < 1) return;
    if (position === axis.last) this.moveTo(0);
    this.isPlaying = true;
    this.due = null;
    this.onChange();
    requestAnimationFrame((now) => this.tick(now));
  }

  pause() {
    if (!this.isPlaying) return;
    this.isPlaying = false;
    this.onChange();
  }

  /** Keep time: a late frame leaves snapshots out. A snapshot that is not loaded yet is waited for. */
  tick(now) {
    if (!this.isPlaying) return;
    requestAnimationFrame((next) => this.tick(next));
    this.due ??= now;
    const { model } = this, period = 1000 / model.speed;
    const by = Math.floor((now - this.due) / period);
    if (by < 1) return;
    const goal = Math.min(model.position + by, model.axis.last);
    if (!model.prepare(goal)) {
      this.due = now;
      return;
    }
    this.due += by * period;
    this.moveTo(goal);
    if (goal === model.axis.last) this.pause();
  }
}

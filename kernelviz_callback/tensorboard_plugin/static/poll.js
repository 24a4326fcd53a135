const POLL_MILLISECONDS = 750; // TensorBoard reads its files every 5 s: a snapshot is shown within 6 s
const POLL_SHARE = 10; // a pause is at least so many times as long as the server took to answer

/** Asks the source for the timeline again and again, while the page is visible. */
export class TimelinePoll {
  /**
   * `onAnswer(timeline)` receives a new timeline, or null while nothing has changed. `onError(error)`
   * is called where the source does not answer, or the answer cannot be shown.
   */
  constructor(source, { onAnswer, onError }) {
    Object.assign(this, { source, onAnswer, onError, revision: undefined, requests: 0, timer: 0 });
  }

  get hasAnswer() {
    return this.revision !== undefined;
  }

  /** Ask now. The answers to earlier requests are ignored from then on. */
  async ask() {
    clearTimeout(this.timer);
    const request = ++this.requests, began = performance.now();
    try {
      const timeline = await this.source.timeline(this.revision);
      if (request !== this.requests) return;
      if (!timeline.unchanged) this.revision = timeline.revision;
      this.onAnswer(timeline.unchanged ? null : timeline);
    } catch (error) {
      if (request !== this.requests) return;
      this.onError(error);
    }
    const pause = Math.max(POLL_MILLISECONDS, POLL_SHARE * (performance.now() - began));
    if (this.source.live && !document.hidden) this.timer = setTimeout(() => this.ask(), pause);
  }
}

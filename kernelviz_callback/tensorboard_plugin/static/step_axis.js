const BUNCHED = 0.2; // steps bunch if half of them lie in this share of the axis
const CROWDED = 0.75; // steps bunch if the first ones are closer than this share of an even spacing

/** The steps of all snapshots on the page, ascending, and their places along the timeline. */
export class StepAxis {
  constructor(steps, isLogarithmic = false) {
    this.steps = Float64Array.from(new Set(steps)).sort();
    const first = this.steps[0] ?? 0, span = (this.steps.at(-1) ?? 0) - first;
    this.isLogarithmic = isLogarithmic;
    this.place = isLogarithmic && span
      ? (step) => Math.log1p(step - first) / Math.log1p(span)
      : (step) => span ? (step - first) / span : 0.5;
    this.shares = this.steps.map(this.place);
  }

  /**
   * Whether steps bunch at the beginning, so closely that the pointer cannot tell them apart on a
   * linear axis.
   */
  get isBunched() {
    const { steps, last } = this;
    if (last < 4) return false;
    const first = steps[0], span = steps[last] - first;
    const isCrowded = (steps[3] - first) / 3 < (CROWDED * span) / last;
    return isCrowded || this.isMiddleEarly;
  }

  /** Whether half of the steps lie in the first fifth of the axis. */
  get isMiddleEarly() {
    const { steps } = this, first = steps[0];
    return steps[steps.length >> 1] - first < BUNCHED * (steps[this.last] - first);
  }

  get last() {
    return this.steps.length - 1;
  }

  /** The position of the last step at or before a step; 0 if there is none. */
  at(step) {
    return Math.max(0, upperBound(this.steps, step) - 1);
  }

  /** The position that is nearest to a share of the timeline. */
  nearest(share) {
    const after = Math.min(upperBound(this.shares, share), this.last), before = Math.max(0, after - 1);
    return share - this.shares[before] < this.shares[after] - share ? before : after;
  }

  /** At most `count` positions: the first, the last, and log-spaced ones between them. */
  spread(count) {
    const total = this.steps.length;
    if (total <= count) return Array.from(this.steps.keys());
    const first = this.steps[0], span = this.steps[this.last] - first + 1;
    const chosen = [];
    for (let k = 0; k < count; k++) {
      const wanted = this.at(first + span ** (k / (count - 1)) - 1 + 1e-6);
      const least = k ? chosen[k - 1] + 1 : 0, most = total - (count - k);
      chosen.push(Math.min(Math.max(wanted, least), most));
    }
    return chosen;
  }
}

/** The number of ascending values that are at most the limit. */
function upperBound(values, limit) {
  let low = 0, high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= limit) low = middle + 1;
    else high = middle;
  }
  return low;
}

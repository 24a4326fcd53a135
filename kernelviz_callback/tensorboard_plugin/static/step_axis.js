const BUNCHED = 0.2; // of the way: where the middle snapshot lies, at most, on a logarithmic axis
const CROWDED = 0.75; // of an even spacing: how far apart the first snapshots are, at most, on one

/** The steps of everything on the page, one after the other, and where they lie along the timeline. */
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

  /** Whether steps bunch at the beginning, so that on a linear scale nobody could point at them. */
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

  /** The last at or before the step; the first if none is. */
  at(step) {
    return Math.max(0, upperBound(this.steps, step) - 1);
  }

  /** The nearest to a point of the timeline. */
  nearest(share) {
    const after = Math.min(upperBound(this.shares, share), this.last), before = Math.max(0, after - 1);
    return share - this.shares[before] < this.shares[after] - share ? before : after;
  }

  /** At most so many: the first, the last, and between them what is nearest to log-spaced steps. */
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

/** How many of the ascending values are at most the limit. */
function upperBound(values, limit) {
  let low = 0, high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= limit) low = middle + 1;
    else high = middle;
  }
  return low;
}

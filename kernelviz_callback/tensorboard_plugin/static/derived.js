import { numberText } from "./dom.js";

/**
 * Numbers that are computed from each snapshot when it arrives: one row for each snapshot, in
 * arrays that grow.
 */
export class DerivedRows {
  constructor(filters) {
    this.filters = filters;
    this.count = 0;
    this.freed = [];
    this.allNorms = new Float32Array(0);
    this.allChanges = new Float32Array(0);
    this.drifts = new Float64Array(0);
  }

  norms(row) {
    return this.allNorms.subarray(row * this.filters, (row + 1) * this.filters);
  }

  changes(row) {
    return this.allChanges.subarray(row * this.filters, (row + 1) * this.filters);
  }

  free(row) {
    this.freed.push(row);
  }

  /**
   * Compute the norms, the changes and the drift from a reference, as `filters.measures.movement`.
   * Returns the row.
   */
  add(weights, reference) {
    const row = this.freed.pop() ?? this.count++;
    if (row >= this.drifts.length) this.grow();
    const size = weights.length / this.filters;
    let allMoved = 0, allBefore = 0;
    for (let filter = 0, at = 0; filter < this.filters; filter++) {
      let energy = 0, moved = 0, before = 0;
      for (const end = at + size; at < end; at++) {
        const now = weights[at], then = reference[at];
        energy += now * now;
        before += then * then;
        moved += (now - then) * (now - then);
      }
      this.allNorms[row * this.filters + filter] = Math.sqrt(energy);
      this.allChanges[row * this.filters + filter] = Math.sqrt(moved) / Math.sqrt(before);
      if (moved < Infinity) {
        allMoved += moved;
        allBefore += before;
      }
    }
    this.drifts[row] = Math.sqrt(allMoved) / Math.sqrt(allBefore);
    return row;
  }

  grow() {
    const rows = Math.max(64, 2 * this.drifts.length);
    const larger = (old, width) => {
      const grown = new old.constructor(rows * width);
      grown.set(old);
      return grown;
    };
    this.allNorms = larger(this.allNorms, this.filters);
    this.allChanges = larger(this.allChanges, this.filters);
    this.drifts = larger(this.drifts, 1);
  }
}

/** The snapshots where a verdict began, or had more filters than in all before: `[{index, name, count}]`. */
export function verdictMarksOf(entries) {
  const marks = [], most = {};
  let before = {};
  entries.forEach(({ verdicts }, index) => {
    if (!verdicts) return; // health was not examined
    for (const [name, count] of Object.entries(verdicts)) {
      if (count > (most[name] ?? 0) || (count > 0 && !before[name])) marks.push({ index, name, count });
      most[name] = Math.max(count, most[name] ?? 0);
    }
    before = verdicts;
  });
  return marks;
}

/**
 * Describe a filter at the step shown, a few words each: its numbers, its verdicts, its partners in
 * other runs.
 */
export function describeFilter(model, ordering, track, filter) {
  const index = model.indexOf(track);
  const norm = track.series.norms(index)?.[filter], change = track.series.changes(index)?.[filter];
  const lines = [`filter ${filter}`];
  if (norm !== undefined) lines.push(`norm ${numberText(norm)}`);
  if (change !== undefined && index) lines.push(`change ${numberText(change)}`);
  lines.push(...(track.verdicts(index, filter, model.verdictNames) ?? []));
  for (const other of ordering.partners.size ? model.shown : []) {
    if (other !== track) lines.push(describePartner(model, ordering, track, filter, other));
  }
  return lines;
}

function describePartner(model, ordering, track, filter, other) {
  const partner = ordering.counterpart(track, filter, other);
  if (partner < 0) return `no partner in ${other.run}`;
  const one = track.series.weights(model.indexOf(track)), two = other.series.weights(model.indexOf(other));
  const cosine = one && two ? `, cosine ${numberText(cosineOf(one, two, filter, partner, one.length / track.shape[0]))}` : "";
  return `${other.run}: filter ${partner}${cosine}`;
}

/** The cosine of the angle between two filters of `size` weights: 1 if they differ in magnitude alone. */
function cosineOf(one, other, first, second, size) {
  let product = 0, ones = 0, others = 0;
  for (let k = 0, a = first * size, b = second * size; k < size; k++, a++, b++) {
    product += one[a] * other[b];
    ones += one[a] ** 2;
    others += other[b] ** 2;
  }
  return product / Math.sqrt(ones * others);
}

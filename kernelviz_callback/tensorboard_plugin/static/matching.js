/** Pairs the filters of two layers, with the method of `comparison.matching`. */

/** The partner of each filter, -1 without one, and the mean cosine of the pairs. */
export function matched(ones, shapeOnes, others, shapeOthers) {
  const [rows] = shapeOnes, [columns] = shapeOthers;
  const similarity = cosines(ones, shapeOnes, others, shapeOthers);
  const partner = assign(similarity, rows, columns);
  let sum = 0;
  partner.forEach((column, row) => (sum += column < 0 ? 0 : similarity[row * columns + column]));
  return { partner, mean: sum / Math.min(rows, columns) };
}

/**
 * Filters of Gaussian noise, the same for the same seed: their pairs show the similarity that
 * chance alone reaches.
 */
export function noiseOf(shape, seed) {
  const values = new Float32Array(shape.reduce((product, side) => product * side, 1));
  let state = seed;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0; // Numerical Recipes, section 7.1
    return (state + 0.5) / 2 ** 32;
  };
  return values.map(() => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()));
}

/** The cosines of all pairs of filters, N x M; 0 for a filter of zeros or with a NaN. */
export function cosines(ones, shapeOnes, others, shapeOthers) {
  if (shapeOnes.slice(1).join() !== shapeOthers.slice(1).join()) {
    throw new Error(
      `Filters of ${shapeOnes.slice(1).join("x")} and ${shapeOthers.slice(1).join("x")} weights cannot be matched.`);
  }
  const size = ones.length / shapeOnes[0];
  const rows = unitRows(ones, shapeOnes[0], size), columns = unitRows(others, shapeOthers[0], size);
  const similarity = new Float64Array(shapeOnes[0] * shapeOthers[0]);
  for (let i = 0, at = 0; i < shapeOnes[0]; i++) {
    for (let j = 0; j < shapeOthers[0]; j++, at++) {
      let sum = 0;
      for (let k = 0, p = i * size, q = j * size; k < size; k++, p++, q++) sum += rows[p] * columns[q];
      similarity[at] = Math.max(-1, Math.min(1, sum));
    }
  }
  return similarity;
}

/**
 * Pair rows with columns so that the sum of their similarities (rows x columns) is largest.
 *
 * Returns the partner of each row, -1 where columns are too few. The method is shortest augmenting
 * paths: Jonker & Volgenant, Computing 1987; Crouse, IEEE Trans. Aerospace 2016.
 */
export function assign(similarity, rows, columns) {
  if (rows > columns) {
    const partner = new Int32Array(rows).fill(-1);
    assign(transposed(similarity, rows, columns), columns, rows).forEach((row, column) => (partner[row] = column));
    return partner;
  }
  const state = {
    cost: similarity.map((value) => -value || 0), // NaN counts as 0
    columns,
    rowPrice: new Float64Array(rows),
    columnPrice: new Float64Array(columns),
    partner: new Int32Array(rows).fill(-1),
    owner: new Int32Array(columns).fill(-1),
    before: new Int32Array(columns),
    distance: new Float64Array(columns),
    open: new Int32Array(columns),
  };
  for (let row = 0; row < rows; row++) augment(state, row);
  return state.partner;
}

/** Find a column for the row `start`, along the cheapest path on which other rows change their columns. */
function augment({ cost, columns, rowPrice, columnPrice, partner, owner, before, distance, open }, start) {
  const reached = [];
  distance.fill(Infinity);
  for (let k = 0; k < columns; k++) open[k] = columns - 1 - k;
  let left = columns, row = start, shortest = 0, sink = -1;
  while (sink < 0) {
    let nearest = -1, least = Infinity;
    const base = row * columns, spent = shortest - rowPrice[row];
    for (let k = 0; k < left; k++) {
      const column = open[k];
      const length = spent + cost[base + column] - columnPrice[column];
      if (length < distance[column]) {
        distance[column] = length;
        before[column] = row;
      }
      if (distance[column] < least || (distance[column] === least && owner[column] < 0)) {
        least = distance[column];
        nearest = k;
      }
    }
    shortest = least;
    const column = open[nearest];
    if (owner[column] < 0) sink = column;
    else row = owner[column];
    reached.push(column);
    open[nearest] = open[--left];
  }
  rowPrice[start] += shortest;
  for (const column of reached) {
    const saved = shortest - distance[column];
    if (owner[column] >= 0) rowPrice[owner[column]] += saved;
    columnPrice[column] -= saved;
  }
  for (let column = sink, owning = -1; owning !== start; ) {
    owning = before[column];
    owner[column] = owning;
    [partner[owning], column] = [column, partner[owning]];
  }
}

function transposed(matrix, rows, columns) {
  const turned = new Float64Array(matrix.length);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) turned[j * rows + i] = matrix[i * columns + j];
  }
  return turned;
}

function unitRows(values, rows, size) {
  const unit = new Float64Array(rows * size);
  for (let row = 0; row < rows; row++) {
    const own = values.subarray(row * size, (row + 1) * size);
    let energy = 0;
    for (let k = 0; k < size; k++) energy += own[k] * own[k];
    if (!(energy > 0 && energy < Infinity)) continue;
    const share = 1 / Math.sqrt(energy);
    for (let k = 0; k < size; k++) unit[row * size + k] = own[k] * share;
  }
  return unit;
}

import { kernelOf, picturedAs, picturesOf, weightSize } from "./paint.js";

const MOST_OBLONG = 2; // the long side of a cell over its short side, at most, so that a response fits too
const LEAST_PANE = 190; // pixels: a pane's title needs this width
const PLANES_IN_ROW = 2; // more kernels of one filter are arranged in several rows
const SLICES_IN_ROW = 8; // of a 3-D kernel
const WIDEST_CURVE = 80; // weights: in a longer curve neighbouring taps share a column
const SLENDERNESS = 1.5; // the width of a curve over its height, as in `curve_width`

/**
 * The size of one picture of a filter at zoom 1: see `weightSize`. A curve gets a height in proportion to
 * its width.
 */
export function planeOf(shape) {
  const { width, height } = kernelOf(shape), cell = weightSize({ width, height });
  if (shape.length > 3) return { width: width * cell.width, height: height * cell.height };
  const wide = Math.min(width, WIDEST_CURVE);
  return { width: wide, height: 2 * Math.max(1, Math.round(wide / SLENDERNESS / 2)) };
}

/** The arrangement of a filter's pictures in its tile at zoom 1, with gaps of one pixel. */
export function tileShape(weights, channel) {
  const shape = picturedAs(weights, channel);
  return arrangementOf(shape, channel, planeOf(shape));
}

/** The arrangement of pictures of a size in a tile, with gaps of one pixel. */
export function arrangementOf(shape, channel, { width, height }) {
  const planes = picturesOf(shape, channel);
  const across = acrossOf(planes, kernelOf(shape).slices, Math.sqrt((planes * (height + 1)) / (width + 1)));
  const down = Math.ceil(planes / across);
  return { planes, across, down, width: across * (width + 1) - 1, height: down * (height + 1) - 1 };
}

/**
 * The number of pictures in a row, where `square` would make the tile square. Slices of a kernel
 * share a row if several channels are shown.
 */
function acrossOf(planes, slices, square) {
  if (slices === 1) return planes <= PLANES_IN_ROW ? planes : Math.ceil(square);
  if (planes > slices) return slices * Math.max(1, Math.round(square / slices));
  return Math.ceil(slices / Math.ceil(slices / SLICES_IN_ROW));
}

/**
 * The cell of a tile at a zoom, and the gap around it, which is wider than the gaps inside the tile.
 * The short side of a long cell grows to half of the long side, at most to `responseRoom` pixels, so
 * that a response fits into a cell of the same size.
 */
function cellOf(tile, zoom, gap, responseRoom) {
  const width = tile.width * zoom, height = tile.height * zoom;
  return {
    width: Math.max(width, Math.min(responseRoom, Math.ceil(height / MOST_OBLONG))),
    height: Math.max(height, Math.min(responseRoom, Math.ceil(width / MOST_OBLONG))),
    gap: tile.planes > 1 ? gap + zoom : gap,
  };
}

/**
 * The layout at the largest whole zoom at which all tiles are visible. If they would be smaller than
 * `least`, they get that size, and the board scrolls. All lengths are in device pixels; `room` is the
 * size of the whole canvas.
 */
export function fitTiles({ count, tile, room, gap: usualGap, least, zoom = null, responseRoom = Infinity }) {
  const at = (chosen) => cellOf(tile, chosen, usualGap, responseRoom);
  const columnsAt = ({ width, gap }) => Math.min(count, Math.floor((room.width - gap) / (width + gap)));
  const rowsAt = ({ height, gap }) => Math.floor((room.height - gap) / (height + gap));
  const holds = (cell) => columnsAt(cell) * rowsAt(cell) >= count;
  const isSmall = ({ width, height }) => Math.min(width, height) < least;
  let chosen = zoom ?? 1;
  if (zoom === null) while (holds(at(chosen + 1))) chosen++;
  const seen = () => (responseRoom === Infinity ? at(chosen) : cellOf(tile, chosen, usualGap, 0));
  while (zoom === null && isSmall(seen())) chosen++;
  while (chosen > 1 && columnsAt(at(chosen)) < 1) chosen--;
  const { gap, ...cell } = at(chosen);
  const mostRows = rowsAt(at(chosen));
  const columns = evenColumns(count, Math.max(1, columnsAt(at(chosen))), mostRows);
  const rows = Math.ceil(count / columns);
  return {
    zoom: chosen, cell, columns, rows, gap, count,
    width: columns * (cell.width + gap) + gap,
    height: rows * (cell.height + gap) + gap,
    isAllInSight: rows <= mostRows,
  };
}

/**
 * The most columns that fit; fewer if they fill the rectangle, or fill the last row better without
 * another row.
 */
function evenColumns(count, most, mostRows) {
  let best = most, fewest = Infinity;
  for (let columns = most; columns >= 1; columns--) {
    const rows = Math.ceil(count / columns);
    if (rows > Math.max(mostRows, Math.ceil(count / most))) break;
    const empty = columns * rows - count;
    const isWorth = empty === 0 || rows === Math.ceil(count / most);
    if (empty < fewest && isWorth) [best, fewest] = [columns, empty];
  }
  return best;
}

/** The place of a cell on its canvas. There is a gap around all cells, for frames. */
export function cellBox({ columns, cell, gap }, position) {
  return {
    x: gap + (position % columns) * (cell.width + gap),
    y: gap + Math.floor(position / columns) * (cell.height + gap),
    width: cell.width, height: cell.height,
  };
}

/**
 * The tile that is nearest to a point of the canvas, so that nothing flickers in the gaps; -1
 * outside of the grid.
 */
export function positionAt({ columns, rows, cell, gap, count }, x, y) {
  const column = Math.floor((x - gap / 2) / (cell.width + gap));
  const row = Math.floor((y - gap / 2) / (cell.height + gap));
  const position = row * columns + column;
  return column >= 0 && column < columns && row >= 0 && row < rows && position < count ? position : -1;
}

/**
 * The arrangement of the panes: kernels and responses of a run side by side or below each other, in
 * the way that makes tiles larger. Several runs get a column each, unless tiles become much smaller.
 */
export function arrangePanes({ runs, hasResponses, room, head, gapBetween, fits }) {
  const candidates = !hasResponses
    ? [{ columns: runs, byRun: false }]
    : runs === 1
      ? [{ columns: 2, byRun: true }, { columns: 1, byRun: true }]
      : [{ columns: runs, byRun: false }, { columns: 2 * runs, byRun: true }, { columns: 2, byRun: true }];
  const scored = candidates.map((way) => {
    const rows = hasResponses ? (2 * runs) / way.columns : 1;
    const own = {
      width: Math.floor((room.width - (way.columns - 1) * gapBetween.width) / way.columns),
      height: Math.floor((room.height - (rows - 1) * gapBetween.height) / rows) - head,
    };
    const scores = fits(own).map(({ cell, isAllInSight }) => cell.width * cell.height * (isAllInSight ? 1 : 0.25));
    return { ...way, rows, room: own, score: Math.min(...scores) };
  });
  const roomy = scored.filter((way) => way.room.width >= LEAST_PANE);
  const best = (roomy.length ? roomy : scored.slice(-1)).reduce((a, b) => (b.score > a.score ? b : a));
  return roomy.includes(scored[0]) && scored[0].score >= 0.75 * best.score ? scored[0] : best;
}

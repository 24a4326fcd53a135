const MOST_OBLONG = 2; // a cell is at most so many times as long as wide, for the response beside it
const PLANES_IN_ROW = 3; // more kernels of one filter stand in several rows

/** How the kernels of one filter stand in its tile, in weights, with a line of one between them. */
export function tileShape(shape, channel) {
  const [, channels, height, width] = shape;
  const isOne = typeof channel === "number" || channels === 1 || (channels === 3 && channel === "rgb");
  const planes = isOne ? 1 : channels;
  const across = planes <= PLANES_IN_ROW ? planes : Math.ceil(Math.sqrt((planes * (height + 1)) / (width + 1)));
  const down = Math.ceil(planes / across);
  return { planes, across, down, width: across * (width + 1) - 1, height: down * (height + 1) - 1 };
}

function cellAt(tile, zoom) {
  const width = tile.width * zoom, height = tile.height * zoom;
  return {
    width: Math.max(width, Math.ceil(height / MOST_OBLONG)),
    height: Math.max(height, Math.ceil(width / MOST_OBLONG)),
  };
}

/**
 * The largest whole zoom at which all tiles are in sight; where they would be smaller than `least`
 * they are that large, and one scrolls. All in device pixels.
 */
export function fitTiles({ count, tile, room, gap, least, zoom = null }) {
  const columnsAt = (cell) => Math.min(count, Math.floor((room.width + gap) / (cell.width + gap)));
  const rowsAt = (cell) => Math.floor((room.height + gap) / (cell.height + gap));
  const holds = (cell) => columnsAt(cell) * rowsAt(cell) >= count;
  let chosen = zoom ?? 1;
  if (zoom === null) while (holds(cellAt(tile, chosen + 1))) chosen++;
  while (zoom === null && Math.min(cellAt(tile, chosen).width, cellAt(tile, chosen).height) < least) chosen++;
  while (chosen > 1 && columnsAt(cellAt(tile, chosen)) < 1) chosen--;
  const cell = cellAt(tile, chosen);
  const columns = evenColumns(count, Math.max(1, columnsAt(cell)), rowsAt(cell));
  const rows = Math.ceil(count / columns);
  return {
    zoom: chosen, cell, columns, rows, gap, count,
    width: columns * (cell.width + gap) - gap + 2 * gap,
    height: rows * (cell.height + gap) - gap + 2 * gap,
    isAllInSight: rows <= rowsAt(cell),
  };
}

/** Of the numbers of columns that fit, the one with the fullest last row. */
function evenColumns(count, most, mostRows) {
  let best = most, fewest = Infinity;
  for (let columns = most; columns >= 1; columns--) {
    const rows = Math.ceil(count / columns);
    if (rows > Math.max(mostRows, Math.ceil(count / most))) break;
    const empty = columns * rows - count;
    if (empty < fewest) [best, fewest] = [columns, empty];
  }
  return best;
}

/** Where a tile's cell is on its canvas; there is a gap around all of them, for frames. */
export function cellBox({ columns, cell, gap }, position) {
  return {
    x: gap + (position % columns) * (cell.width + gap),
    y: gap + Math.floor(position / columns) * (cell.height + gap),
    width: cell.width, height: cell.height,
  };
}

/** Which tile is at a point of the canvas; the nearest, so that gaps do not flicker. -1 beside them. */
export function positionAt({ columns, rows, cell, gap, count }, x, y) {
  const column = Math.floor((x - gap / 2) / (cell.width + gap));
  const row = Math.floor((y - gap / 2) / (cell.height + gap));
  const position = row * columns + column;
  return column >= 0 && column < columns && row >= 0 && row < rows && position < count ? position : -1;
}

/**
 * How the panes stand: kernels and responses of each run beside or above each other, whichever
 * shows larger tiles. With several runs a column for each, unless that costs much.
 */
export function arrangePanes({ runs, room, head, gapBetween, fit }) {
  const candidates = runs === 1
    ? [{ columns: 2, byRun: true }, { columns: 1, byRun: true }]
    : [{ columns: runs, byRun: false }, { columns: 2 * runs, byRun: true }, { columns: 2, byRun: true }];
  const scored = candidates.map((way) => {
    const rows = (2 * runs) / way.columns;
    const own = {
      width: Math.floor((room.width - (way.columns - 1) * gapBetween.width) / way.columns),
      height: Math.floor((room.height - (rows - 1) * gapBetween.height) / rows) - head,
    };
    const fitted = fit(own);
    return { ...way, rows, room: own, score: fitted.cell.width * fitted.cell.height * (fitted.isAllInSight ? 1 : 0.25) };
  });
  const best = scored.reduce((a, b) => (b.score > a.score ? b : a));
  return scored[0].score >= 0.75 * best.score ? scored[0] : best;
}

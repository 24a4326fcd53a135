/**
 * Where the weights of one filter lie in its tile.
 *
 * A tile holds `count` pictures, `across` of them in a row, with a gap of one unit between them.
 * Each picture is `plane.width` by `plane.height` units large and shows `weights.width` by
 * `weights.height` weights. A cell is `{plane, y, x}`: the index of the picture, then the row and
 * the column of a weight in it.
 */
export class CellGrid {
  constructor({ count, across, plane, weights }) {
    Object.assign(this, { count, across, plane, weights });
    this.cell = { width: plane.width / weights.width, height: plane.height / weights.height };
    this.width = across * (plane.width + 1) - 1;
    this.height = Math.ceil(count / across) * (plane.height + 1) - 1;
  }

  /** The cell at a point, given as shares of the tile's width and height; null between pictures. */
  at(x, y) {
    const { plane: { width, height } } = this;
    const left = x * this.width, top = y * this.height;
    const cell = {
      plane: Math.floor(top / (height + 1)) * this.across + Math.floor(left / (width + 1)),
      y: Math.floor((top % (height + 1)) / this.cell.height),
      x: Math.floor((left % (width + 1)) / this.cell.width),
    };
    return this.has(cell) ? cell : null;
  }

  has({ plane, y, x }) {
    const isInside = (value, end) => value >= 0 && value < end;
    return isInside(plane, this.count) && isInside(y, this.weights.height) && isInside(x, this.weights.width);
  }

  /** The corner of a picture, in units of the tile. */
  cornerOf(plane) {
    return {
      left: (plane % this.across) * (this.plane.width + 1),
      top: Math.floor(plane / this.across) * (this.plane.height + 1),
    };
  }

  /** The place and the size of a cell, as CSS properties in percent of the tile. */
  boxOf({ plane, y, x }) {
    const { left, top } = this.cornerOf(plane), share = (part, whole) => `${(100 * part) / whole}%`;
    return {
      left: share(left + x * this.cell.width, this.width), top: share(top + y * this.cell.height, this.height),
      width: share(this.cell.width, this.width), height: share(this.cell.height, this.height),
    };
  }
}

import { bytesOfBase64 } from "../tensorboard_plugin/static/base64.js";
import { CellGrid } from "../tensorboard_plugin/static/cells.js";
import { weightsOf } from "../tensorboard_plugin/static/decode.js";
import { paintPicture, scaled, stripedZoom } from "../tensorboard_plugin/static/paint.js";
import { paintCurve } from "../tensorboard_plugin/static/taps.js";

const ZERO = 128; // the level that stands for a weight of zero

/**
 * The tiles of one checkpoint, or of the difference between the last and the first checkpoint.
 *
 * `levels` holds the weights as 8-bit numbers, on the scale of their own tile. `mend` corrects them
 * on the scale "all" by -1, 0 or 1, as the digits 0, 1 and 2 of base three: five digits in a byte.
 */
export class CheckpointTiles {
  constructor(given) {
    Object.assign(this, given);
    const { height, width, planes, across, picture } = given;
    this.levels = bytesOfBase64(given.levels);
    this.mend = bytesOfBase64(given.mend);
    this.isDifference = given.checkpoint === null;
    this.isCurve = given.kind === "curve";
    this.isVolume = given.kind === "volume";
    this.area = height * width;
    this.cells = new CellGrid({
      count: given.rgb ? planes / 3 : planes, across, weights: { width, height },
      plane: { height: picture[0], width: picture[1] },
    });
  }

  /** Whether kernels are so high that the height of a tile is limited, and not its width. */
  get isHigh() {
    return !this.isCurve && this.cells.cell.width > 1;
  }

  /**
   * The magnitude at the two ends of a tile's colour scale.
   *
   * `scale` is "all", "filter" or "tile". `rowEnd` is the largest magnitude in all tiles of the
   * filter. It is null if the tiles of this plate do not share a scale with those of other plates.
   */
  halfRange(tile, scale, rowEnd) {
    return scale === "all" ? this.common : scale === "filter" && rowEnd ? rowEnd : this.own[tile];
  }

  /** Levels of a tile on a scale, plane by plane: 1 to 255, where 128 is zero; 0 for a weight that is not finite. */
  levelsOf(tile, scale, rowEnd) {
    const size = this.planes * this.area, start = tile * size;
    const ratio = this.own[tile] / this.halfRange(tile, scale, rowEnd) || 0;
    const correction = (k) => (scale === "all" ? (Math.floor(this.mend[Math.floor(k / 5)] / 3 ** (k % 5)) % 3) - 1 : 0);
    return this.levels.slice(start, start + size).map((level, k) =>
      level && ZERO + Math.floor((level - ZERO) * ratio + 0.5) + correction(start + k));
  }

  /** Weights of a tile, plane by plane, computed from its levels on a scale; NaN where they are not finite. */
  weightsOf(tile, scale = "tile", rowEnd = null) {
    const levels = this.levelsOf(tile, scale, rowEnd);
    return weightsOf({ scales: [this.halfRange(tile, scale, rowEnd)], data: levels }, "uint8", [1]);
  }

  /**
   * Paint a tile as pictures or as curves. The gaps between pictures stay transparent.
   *
   * A picture has one pixel for each weight, or more if it is stretched or some weights are not finite.
   */
  paint(canvas, tile, scale, rowEnd) {
    const { cells, isCurve } = this, half = this.halfRange(tile, scale, rowEnd);
    const values = this.weightsOf(tile, scale, rowEnd), zoom = isCurve ? 1 : stripedZoom(values, cells.cell);
    Object.assign(canvas, { width: zoom * cells.width, height: zoom * cells.height });
    canvas.classList.toggle("curve", isCurve);
    const picture = new ImageData(canvas.width, canvas.height), pixels = new Uint32Array(picture.data.buffer);
    for (let plane = 0; plane < cells.count; plane++) {
      const { left, top } = cells.cornerOf(plane), corner = zoom * (top * picture.width + left);
      const [start, between] = this.rgb ? [3 * plane * this.area, this.area] : [plane * this.area, 0];
      if (isCurve) {
        const taps = values.subarray(start, start + this.area);
        paintCurve(pixels, corner, picture.width, taps, cells.plane.height, cells.plane.width, half);
      } else {
        paintPicture(pixels, corner, picture.width, values, start, between, this.height, this.width, half, scaled(cells.cell, zoom));
      }
    }
    canvas.getContext("2d").putImageData(picture, 0, 0);
  }

  /** The weights at one place of a picture: three for a colour picture, one for any other. */
  weightsAt(tile, { plane, y, x }) {
    const values = this.weightsOf(tile), at = y * this.width + x;
    const planes = this.rgb ? [3 * plane, 3 * plane + 1, 3 * plane + 2] : [plane];
    return planes.map((k) => values[k * this.area + at]);
  }
}

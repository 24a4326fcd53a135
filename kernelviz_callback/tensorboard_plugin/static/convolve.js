/**
 * The responses of filters to a probe: the same numbers as `filters.responses.channel_responses`.
 *
 * A response averaged over r x r pixels equals the response to an averaged probe, taken at every r-th
 * pixel. This needs a fraction of the multiplications. The probe is averaged once for all filters.
 */

/**
 * The shape of the responses of all filters. Throws an error for the user if the probe does not fit
 * the layer.
 */
export function responseShape(probeShape, shape, { dilation = [1, 1], groups = 1, shrink = 1, summed = false } = {}) {
  if (probeShape[0] % groups || probeShape[0] / groups < shape[1]) {
    throw new Error(`The layer reads ${shape[1] * groups} input channels and the probe has ${probeShape[0]}.`);
  }
  const reach = [0, 1].map((axis) => dilation[axis] * (shape[axis + 2] - 1));
  const [height, width] = reach.map((side, axis) => Math.floor((probeShape[axis + 1] - side) / shrink));
  if (height < 1 || width < 1) {
    const covered = reach.map((side) => side + shrink).join("x");
    throw new Error(
      `A response covers ${covered} pixels of the probe, which has only ${probeShape[1]}x${probeShape[2]}. ` +
      "Use a larger one.");
  }
  return { filters: shape[0], planes: summed ? 1 : shape[1], height, width };
}

/**
 * Compute the responses of the filters from `filters[0]` up to, but not including, `filters[1]`.
 *
 * `planes` are the C * groups planes of the probe, `kernels` the weights of all filters. `total` is
 * the number of filters in the layer, of which only the first may be given: it determines the group
 * of a filter. `averages` may hold the result of `averagesOf` for the same probe and shrink factor.
 */
export function respond(planes, probeShape, kernels, shape, options = {}) {
  const { dilation = [1, 1], groups = 1, shrink = 1, summed = false, total = shape[0] } = options;
  const { filters: [first, last] = [0, shape[0]], averages = averagesOf(planes, probeShape, shrink) } = options;
  const { planes: perFilter, height, width } = responseShape(probeShape, shape, options);
  const [, channels, kernelHeight, kernelWidth] = shape;
  const taps = tapsOf(averages, kernelHeight, kernelWidth, dilation);
  const size = height * width;
  const data = new Float32Array((last - first) * perFilter * size);
  const sums = new Float64Array(size);
  for (let filter = first, at = 0; filter < last; filter++) {
    const group = Math.floor((filter * groups) / total);
    const start = (group * probeShape[0]) / groups;
    const own = averages.planes.slice(start, start + channels);
    const ownKernels = kernels.subarray(filter * channels * taps.length, (filter + 1) * channels * taps.length);
    const isOnePlane = summed && own.every((plane) => plane === own[0]);
    for (let c = 0; c < (isOnePlane ? 1 : channels); c++) {
      const kernel = isOnePlane ? summedKernel(ownKernels, taps.length) : ownKernels.subarray(c * taps.length);
      addConvolution(sums, height, width, own[c], averages.down, taps, kernel);
      if (summed && !isOnePlane && c < channels - 1) continue;
      data.set(sums, at);
      sums.fill(0);
      at += size;
    }
  }
  return { data, filters: last - first, planes: perFilter, height, width };
}

/**
 * Average each plane of a probe over shrink x shrink pixels, at every pixel.
 *
 * Each row holds the columns 0, shrink, 2 shrink ... first, then 1, shrink + 1 ...: the pixels that
 * one weight is multiplied with, along a row of responses, are neighbours in memory. Equal planes
 * share one array.
 */
export function averagesOf(planes, probeShape, shrink) {
  const [count, height, width] = probeShape;
  const run = Math.ceil(width / shrink);
  const all = Array.from({ length: count }, (_, c) => planes.subarray(c * height * width, (c + 1) * height * width));
  const averaged = [];
  for (const plane of all) {
    const isFirst = averaged.length > 0 && plane.every((value, at) => value === all[0][at]);
    averaged.push(isFirst ? averaged[0] : averagePlane(plane, height, width, shrink, run));
  }
  return { planes: averaged, shrink, run, stride: run * shrink, down: run * shrink * shrink };
}

function averagePlane(plane, height, width, shrink, run) {
  if (shrink === 1) return new Float64Array(plane);
  const across = new Float64Array(height * width);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x + shrink <= width; x++) {
      let sum = 0;
      for (let k = 0; k < shrink; k++) sum += plane[y * width + x + k];
      across[y * width + x] = sum;
    }
  }
  const averages = new Float64Array(height * run * shrink);
  const share = 1 / shrink ** 2;
  for (let y = 0; y + shrink <= height; y++) {
    for (let x = 0; x + shrink <= width; x++) {
      let sum = 0;
      for (let k = 0; k < shrink; k++) sum += across[(y + k) * width + x];
      averages[(y * shrink + (x % shrink)) * run + Math.floor(x / shrink)] = sum * share;
    }
  }
  return averages;
}

/** For each weight of a kernel, the index of its first pixel among the averages. */
function tapsOf({ run, shrink, stride }, kernelHeight, kernelWidth, dilation) {
  const taps = new Int32Array(kernelHeight * kernelWidth);
  for (let i = 0, at = 0; i < kernelHeight; i++) {
    for (let j = 0; j < kernelWidth; j++, at++) {
      const column = j * dilation[1];
      taps[at] = i * dilation[0] * stride + (column % shrink) * run + Math.floor(column / shrink);
    }
  }
  return taps;
}

function summedKernel(kernels, size) {
  const sum = new Float64Array(size);
  for (let at = 0; at < kernels.length; at++) sum[at % size] += kernels[at];
  return sum;
}

/**
 * Add a kernel's response to `sums`, eight weights at a time, so that each sum is read and written
 * once for eight.
 */
function addConvolution(sums, height, width, plane, down, taps, kernel) {
  for (let y = 0; y < height; y++) {
    const start = y * width, end = start + width, corner = y * down;
    let tap = 0;
    for (; tap + 8 <= taps.length; tap += 8) addEight(sums, start, end, plane, corner, taps, kernel, tap);
    for (; tap < taps.length; tap++) {
      const weight = kernel[tap];
      for (let at = start, from = corner + taps[tap]; at < end; at++, from++) sums[at] += weight * plane[from];
    }
  }
}

function addEight(sums, start, end, plane, corner, taps, kernel, tap) {
  const w0 = kernel[tap], w1 = kernel[tap + 1], w2 = kernel[tap + 2], w3 = kernel[tap + 3];
  const w4 = kernel[tap + 4], w5 = kernel[tap + 5], w6 = kernel[tap + 6], w7 = kernel[tap + 7];
  let p0 = corner + taps[tap], p1 = corner + taps[tap + 1], p2 = corner + taps[tap + 2];
  let p3 = corner + taps[tap + 3], p4 = corner + taps[tap + 4], p5 = corner + taps[tap + 5];
  let p6 = corner + taps[tap + 6], p7 = corner + taps[tap + 7];
  for (let at = start; at < end; at++) {
    sums[at] += w0 * plane[p0++] + w1 * plane[p1++] + w2 * plane[p2++] + w3 * plane[p3++] +
      w4 * plane[p4++] + w5 * plane[p5++] + w6 * plane[p6++] + w7 * plane[p7++];
  }
}

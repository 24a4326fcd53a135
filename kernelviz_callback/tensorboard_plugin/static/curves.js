import { el, numberText, setText, svg } from "./dom.js";

const ACROSS = 1000, UP = 100; // units of the drawing; CSS stretches it to the size of its element
const ENDS = 4; // units kept free above and below

/** An SVG path through the points (share, value), in units of the drawing. Unknown values are skipped. */
export function curvePath(shares, values, low, high) {
  const y = (value) => (UP - ENDS - ((value - low) / (high - low || 1)) * (UP - 2 * ENDS)).toFixed(2);
  let path = "", bucket = -1, bottom = null, top = null;
  const flush = () => {
    if (bottom === null) return;
    const both = bottom.at <= top.at ? [bottom, top] : [top, bottom];
    for (const { share, value } of bottom.at === top.at ? [bottom] : both) {
      path += `${path ? "L" : "M"}${(share * ACROSS).toFixed(1)} ${y(value)}`;
    }
  };
  for (let at = 0; at < shares.length; at++) {
    const value = values(at);
    if (!Number.isFinite(value)) continue;
    const point = { at, share: shares[at], value };
    const own = Math.floor(shares[at] * ACROSS);
    if (own !== bucket) {
      flush();
      [bucket, bottom, top] = [own, point, point];
    } else {
      if (value < bottom.value) bottom = point;
      if (value > top.value) top = point;
    }
  }
  flush();
  return path;
}

export function curveDrawing(className) {
  return svg("svg", { class: className, viewBox: `0 0 ${ACROSS} ${UP}`, preserveAspectRatio: "none", "aria-hidden": "true" });
}

/**
 * A chart of one quantity of a filter over the steps, one line for each run, with a mark at the
 * step of the slider.
 */
export class CurveView {
  constructor(title, kind, actions) {
    this.value = el("output", { "data-role": `${kind}-now` });
    this.top = el("span", { class: "curve-top" });
    this.drawing = curveDrawing("curve");
    this.needle = el("div", { class: "needle" });
    this.room = el("div", { class: "curve-room" }, this.drawing, this.needle);
    this.root = el("figure", { class: "curve-figure", "data-role": `${kind}-curve` },
      el("figcaption", {}, el("span", {}, title), this.top, this.value), this.room);
    this.room.addEventListener("click", (event) => {
      const box = this.room.getBoundingClientRect();
      actions.moveTo(this.axis.nearest((event.clientX - box.left) / box.width));
    });
  }

  /** `lines` are `[{colour, count, shares, value(k)}]`: `count` points at `shares` of the axis. */
  draw(axis, lines) {
    this.axis = axis;
    let high = 0;
    for (const { count, value } of lines) {
      for (let k = 0; k < count; k++) {
        const own = value(k);
        if (own > high && own < Infinity) high = own;
      }
    }
    setText(this.top, high ? `up to ${numberText(high)}` : "");
    this.drawing.replaceChildren(...lines.map(({ colour, shares, value }) =>
      svg("path", { class: "line", style: `--run: ${colour}`, d: curvePath(shares, value, 0, high) })));
  }

  place(share, text) {
    this.needle.style.left = `${share * 100}%`;
    setText(this.value, text);
  }
}

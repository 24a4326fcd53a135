/**
 * Make an HTML element.
 *
 * An attribute of null or false is left out, true becomes an empty attribute, and a function becomes
 * an event listener. Children that are null are left out; strings become text, never HTML.
 */
export function el(tag, attributes = {}, ...children) {
  return applyAttributes(document.createElement(tag), attributes, children);
}

/** Make an SVG element, with the rules of `el`. */
export function svg(tag, attributes = {}, ...children) {
  return applyAttributes(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function applyAttributes(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** An icon of one path, 16 x 16, in the colour of the text. The label of its button names the meaning. */
export function icon(path) {
  return svg("svg", { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true", class: "icon" },
    svg("path", { d: path, fill: "currentColor" }));
}

/** Set a text, unless the element has it already: setting it again costs a layout. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Set the options of a select element, `[value, text]` each, and choose one. */
export function setOptions(select, options, chosen) {
  const known = JSON.stringify(options);
  if (select.dataset.options !== known) {
    select.dataset.options = known;
    select.replaceChildren(...options.map(([value, text]) => el("option", { value }, text)));
  }
  select.value = chosen;
}

/** A number with three digits after the point, or in scientific notation; "–" where it is unknown. */
export function numberText(number) {
  if (number === null || number === undefined || Number.isNaN(number)) return "–";
  if (!Number.isFinite(number)) return number > 0 ? "∞" : "−∞";
  const size = Math.abs(number);
  const small = size && size < 1e-3, large = size >= 1e5;
  const text = small || large ? number.toExponential(1) : size >= 100 ? number.toFixed(0) : number.toFixed(3);
  return text.replaceAll("-", "−");
}

const GROUPING = new Intl.NumberFormat("en-US");

/** A whole number with its digits in groups of three. */
export const grouped = (number) => GROUPING.format(number);

/** The size of a square of pixels: "2x2". */
export const sizeText = (side) => `${side}x${side}`;

/** A count with its noun: "1 filter", "2 filters". */
export const countText = (number, noun) => `${grouped(number)} ${noun}${number === 1 ? "" : "s"}`;

/**
 * The size of a canvas on the page, as CSS: its pixels are those of the screen, unless its longer side
 * exceeds the room, in CSS pixels.
 */
export function fittingSize(width, height, room, dpr) {
  const share = Math.min(1, (room * dpr) / Math.max(width, height)) / dpr;
  return `width:${width * share}px;height:${height * share}px${share * dpr < 1 ? ";image-rendering:auto" : ""}`;
}

/** Pixels of at least so many times their size are drawn as sharp squares: smoothed, they look like details. */
export const LEAST_SHARP = 2;

/** Draw the pixels of a canvas as sharp squares if the page enlarges it. */
export function sharpenEnlarged(canvas) {
  const scale = (canvas.clientWidth * window.devicePixelRatio) / canvas.width;
  canvas.style.imageRendering = scale >= LEAST_SHARP ? "pixelated" : "auto";
}

export const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

/**
 * A function that calls at most once in so many milliseconds; the last request is always followed
 * by a call.
 */
export function throttle(milliseconds, callback) {
  let timer = null, last = -Infinity;
  return () => {
    if (timer !== null) return;
    timer = setTimeout(() => {
      timer = null;
      last = performance.now();
      callback();
    }, Math.max(0, last + milliseconds - performance.now()));
  };
}

/** A function that calls when it has not been requested again for so many milliseconds. */
export function debounce(milliseconds, callback) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(callback, milliseconds);
  };
}

/** A function that calls once before the next frame, however often it is requested. */
export function oncePerFrame(callback) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame((now) => {
      asked = false;
      callback(now);
    });
  };
}
